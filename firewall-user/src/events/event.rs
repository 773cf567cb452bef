//! What a sink is sent: one type for all kinds.

use super::{BanRecord, Record, request::RequestRecord};

/// Something worth telling.
#[derive(Clone, Debug)]
pub enum Event {
    /// A verdict of the kernel.
    Packet(Record),
    /// A request to an API, or a connection that was refused before it had one.
    Request(RequestRecord),
    /// A client whose reputation was spent.
    Ban(BanRecord),
}

impl Event {
    /// What a person reads first, without control characters.
    pub fn summary(&self) -> String {
        match self {
            Self::Packet(record) => record.summary(),
            Self::Request(record) => record.summary(),
            Self::Ban(record) => record.summary(),
        }
    }
}

impl From<Record> for Event {
    fn from(record: Record) -> Self {
        Self::Packet(record)
    }
}

impl From<RequestRecord> for Event {
    fn from(record: RequestRecord) -> Self {
        Self::Request(record)
    }
}

impl From<BanRecord> for Event {
    fn from(record: BanRecord) -> Self {
        Self::Ban(record)
    }
}
