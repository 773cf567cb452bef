//! What a value must have for a transformation to change it. What lacks that stays as it is; what has it may.

use crate::{byte_set::ByteSet, seclang::Transformation};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Triggers {
    /// One of these bytes,
    bytes: ByteSet,
    /// or all that base64 has,
    base64: bool,
    /// or nothing but dots.
    dots: bool,
}

const DOT: ByteSet = ByteSet([1 << b'.', 0, 0, 0]);
const LINE_ENDS: ByteSet = ByteSet([1 << b'\r' | 1 << b'\n', 0, 0, 0]);
/// Its digits and padding; lines end where they want.
const BASE64: ByteSet = {
    let mut set = LINE_ENDS.0;
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=') {
            set[(byte >> 6) as usize] |= 1 << (byte & 63);
        }
        byte += 1;
    }
    ByteSet(set)
};

impl Transformation {
    pub(crate) fn triggers(self) -> Triggers {
        let bytes = |bytes| Triggers { bytes, ..Triggers::default() };
        let of = |list| bytes(ByteSet::of(list));
        let upper = || ByteSet::of(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ");
        // The last is a no-break space.
        let space = || ByteSet::of(b" \t\n\x0b\x0c\r\xa0");
        match self {
            Self::Base64Decode => Triggers { base64: true, ..Triggers::default() },
            Self::CmdLine => bytes(upper().union(&space()).union(&ByteSet::of(b"\\\"'^,;/("))),
            Self::CompressWhitespace | Self::RemoveWhitespace => bytes(space()),
            Self::CssDecode | Self::EscapeSeqDecode | Self::JsDecode => of(b"\\"),
            Self::HtmlEntityDecode => of(b"&"),
            Self::Lowercase => bytes(upper()),
            Self::NormalizePath => Triggers { dots: true, ..of(b"/") },
            Self::NormalizePathWin => Triggers { dots: true, ..of(b"/\\") },
            Self::RemoveComments | Self::RemoveCommentsChar => of(b"/-#<*"),
            Self::RemoveNulls | Self::ReplaceNulls => of(b"\0"),
            Self::ReplaceComments => of(b"/"),
            Self::SqlHexDecode => of(b"xX"),
            Self::Trim | Self::TrimLeft | Self::TrimRight => bytes(space().union(&ByteSet::of(b"\0"))),
            Self::Uppercase => of(b"abcdefghijklmnopqrstuvwxyz"),
            Self::UrlDecode | Self::UrlDecodeUni => of(b"%+"),
            Self::Utf8ToUnicode => bytes(ByteSet([0, 0, u64::MAX, u64::MAX])),
            Self::Base64DecodeExt
            | Self::Base64Encode
            | Self::HexDecode
            | Self::HexEncode
            | Self::Length
            | Self::Md5
            | Self::Sha1
            | Self::UrlEncode => bytes(ByteSet::ALL),
        }
    }
}

impl Triggers {
    /// What one of the two must have.
    pub(crate) fn union(&self, other: &Self) -> Self {
        Self {
            bytes: self.bytes.union(&other.bytes),
            base64: self.base64 || other.base64,
            dots: self.dots || other.dots,
        }
    }

    /// Whether a value of these bytes and this length may change.
    pub(crate) fn meet(&self, set: &ByteSet, length: usize) -> bool {
        self.bytes.meets(set)
            || (self.base64 && set.is_within(&BASE64) && (length.is_multiple_of(4) || set.meets(&LINE_ENDS)))
            || (self.dots && set.is_within(&DOT))
    }
}
