//! What a member of TX holds.

use std::io::Write as _;

use crate::operator::number;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Number(i64),
    Bytes(Vec<u8>),
}

impl Value {
    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Number(number) => {
                // Into memory, which takes it.
                let _ = write!(to, "{number}");
            }
            Self::Bytes(bytes) => to.extend_from_slice(bytes),
        }
    }

    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }

    pub(crate) fn number(&self) -> i64 {
        match self {
            Self::Number(number) => *number,
            Self::Bytes(bytes) => number(bytes),
        }
    }
}
