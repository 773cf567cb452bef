//! Entries to systemd's journal, over its native protocol: one datagram per entry.
//!
//! `tracing-journald` speaks the same protocol but keeps errors to itself, and here every loss has to be counted.

use std::{
    io,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    time::Duration,
};

use super::queue::{Entry, Failure, Output};

const SOCKET: &str = "/run/systemd/journal/socket";
/// Syslog's `info`.
const PRIORITY: &str = "6";
/// How long a write may wait for the journal to read.
const TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct JournalOutput {
    socket: UnixDatagram,
    path: PathBuf,
    buffer: Vec<u8>,
}

impl JournalOutput {
    pub(super) fn open() -> io::Result<Self> {
        Self::open_at(Path::new(SOCKET))
    }

    fn open_at(path: &Path) -> io::Result<Self> {
        // The socket stays unconnected, so that it outlives a restart of the journal; this one only asks if it is there.
        UnixDatagram::unbound()?.connect(path)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { socket, path: path.to_owned(), buffer: Vec::new() })
    }
}

impl Output for JournalOutput {
    fn write(&mut self, batch: &[Entry<'_>]) -> Result<(), Failure> {
        for (written, entry) in batch.iter().enumerate() {
            self.buffer.clear();
            encode(*entry, &mut self.buffer);
            self.socket.send_to(&self.buffer, &self.path).map_err(|error| Failure { written, error })?;
        }
        Ok(())
    }
}

/// The fields of the JSON as `PORTCULLIS_…`, and those that the journal itself knows.
fn encode(entry: Entry<'_>, buffer: &mut Vec<u8>) {
    field(buffer, "MESSAGE", &entry.event().summary());
    field(buffer, "PRIORITY", PRIORITY);
    field(buffer, "SYSLOG_IDENTIFIER", "portcullis");
    if let Ok(serde_json::Value::Object(fields)) = serde_json::from_slice(entry.line()) {
        for (name, value) in fields {
            let name = format!("PORTCULLIS_{}", name.to_uppercase());
            match value {
                serde_json::Value::String(text) => field(buffer, &name, &text),
                other => field(buffer, &name, &other.to_string()),
            }
        }
    }
}

/// The form with an explicit length, in which a value may hold any byte.
fn field(buffer: &mut Vec<u8>, name: &str, value: &str) {
    buffer.extend_from_slice(name.as_bytes());
    buffer.push(b'\n');
    buffer.extend_from_slice(&(value.len() as u64).to_le_bytes());
    buffer.extend_from_slice(value.as_bytes());
    buffer.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{
        super::{
            Event, Record,
            queue::Batch,
            record::tests::sample,
            request::{RequestRecord, tests::sample as request},
        },
        *,
    };

    fn decode(mut bytes: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let name = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let length = u64::from_le_bytes(bytes[end + 1..end + 9].try_into().unwrap()) as usize;
            let value = &bytes[end + 9..end + 9 + length];
            assert_eq!(bytes[end + 9 + length], b'\n');
            fields.insert(name, String::from_utf8(value.to_vec()).unwrap());
            bytes = &bytes[end + 10 + length..];
        }
        fields
    }

    #[test]
    fn sends_one_datagram_per_record() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        assert!(JournalOutput::open_at(&path).is_err());
        let journal = UnixDatagram::bind(&path).unwrap();
        let mut output = JournalOutput::open_at(&path).unwrap();
        let strange = Record { interface: "a\nMESSAGE=forged".into(), ..sample() };
        let forged = RequestRecord { path: "/\nMESSAGE=forged\u{1b}".into(), ..request() };
        let events: [Event; 3] = [sample().into(), strange.into(), forged.into()];
        let batch = Batch::new(events.into_iter(), Default::default());
        let entries: Vec<_> = batch.entries().collect();
        output.write(&entries).unwrap();

        let mut buffer = [0; 4096];
        let length = journal.recv(&mut buffer).unwrap();
        let fields = decode(&buffer[..length]);
        assert_eq!(fields["SYSLOG_IDENTIFIER"], "portcullis");
        assert_eq!(fields["PORTCULLIS_REASON"], "packet-rate");
        assert_eq!(fields["PORTCULLIS_SOURCE_PORT"], "40000");
        assert_eq!(fields["MESSAGE"], sample().summary());
        let length = journal.recv(&mut buffer).unwrap();
        assert_eq!(decode(&buffer[..length])["PORTCULLIS_INTERFACE"], "a\nMESSAGE=forged");
        let length = journal.recv(&mut buffer).unwrap();
        let fields = decode(&buffer[..length]);
        assert_eq!(fields["PORTCULLIS_PATH"], "/\nMESSAGE=forged\u{1b}");
        assert_eq!(fields["PORTCULLIS_SOURCE"], "203.0.113.7");
        assert!(fields["MESSAGE"].starts_with("refuse: ") && !fields["MESSAGE"].contains(char::is_control));

        // A journal that is gone is a failure; one that comes back is found again.
        drop(journal);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(output.write(&entries).unwrap_err().written, 0);
        let _journal = UnixDatagram::bind(&path).unwrap();
        output.write(&entries).unwrap();
    }
}
