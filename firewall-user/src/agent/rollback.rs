//! What a start with `--confirm` goes back to: the programs behind the links that were there before it, and the pins of these
//! links, which an unconfirmed policy does without.

use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};

use crate::dmz::{
    link::{Links, link_pins},
    syscall::HeldProgram,
};

/// Programs held open, each with the pin of its link.
#[derive(Default)]
pub struct Before {
    programs: Vec<(u32, HeldProgram)>,
    indices: Vec<u32>,
    pins: Vec<(PathBuf, FdLink)>,
}

impl Before {
    /// Holds on to the programs behind the links pinned in `directory`.
    pub fn capture(directory: &Path) -> Self {
        let mut before = Self::default();
        for (path, index) in link_pins(directory) {
            if let Ok(link) = PinnedLink::from_pin(&path) {
                before.pins.push((path.clone(), link.into()));
            }
            let is_link =
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| !name.starts_with("mode-"));
            if is_link && let Some((link, program)) = HeldProgram::behind_pin(&path) {
                before.programs.push((link, program));
                before.indices.push(index);
            }
        }
        before
    }

    /// Puts the programs back, and takes away the links that were not there.
    pub fn restore(self, links: &mut Links) {
        for (link, program) in &self.programs {
            if let Err(error) = program.put_behind(*link) {
                tracing::error!("link {link}: the program before could not be put back: {error}");
            }
        }
        // Without its pin a link would end with us, and the policy before with it.
        for (path, link) in self.pins {
            if !path.exists()
                && let Err(error) = link.pin(&path)
            {
                tracing::error!("{}: the policy before ends with this agent: {error}", path.display());
            }
        }
        links.detach_others(&self.indices);
    }
}
