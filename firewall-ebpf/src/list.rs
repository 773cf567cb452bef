//! What the allow and block lists say of a source.

use aya_ebpf::maps::lpm_trie::Key;
use firewall_common::{packet::Headers, policy::stage, prefix::ListEntry};

use crate::maps::{LISTS_V4, LISTS_V6, has_stage};

#[inline(always)]
pub(crate) fn find(headers: &Headers) -> Option<ListEntry> {
    if headers.v4 {
        if !has_stage(stage::LISTS_V4) {
            return None;
        }
        LISTS_V4.get(Key::new(32, headers.source.v4_word())).copied()
    } else {
        if !has_stage(stage::LISTS_V6) {
            return None;
        }
        LISTS_V6.get(Key::new(128, headers.source)).copied()
    }
}
