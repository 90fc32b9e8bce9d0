//! The file of an attempt's events: for each a `u32` little-endian length, and as many bytes of the
//! protocol's codec.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use fedlora_protocol::round::coordinator::Event;
use fedlora_protocol::wire::codec::{self, CodecError, MESSAGE_LIMIT};

use crate::store::{Log, Store};

/// Appends events to a file.
#[derive(Debug)]
pub(super) struct EventWriter(Log);

impl EventWriter {
    pub(super) fn create(store: &Store, path: &Path) -> io::Result<Self> {
        store.begin_log(path).map(Self)
    }

    /// Goes on after the first `length` bytes; what stands behind them goes.
    pub(super) fn append_at(store: &Store, path: &Path, length: u64) -> io::Result<Self> {
        store.go_on_with_log(path, length).map(Self)
    }

    pub(super) fn append(&mut self, event: &Event) -> io::Result<()> {
        let bytes = codec::encode(event).map_err(io::Error::other)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.0.append(&[&length.to_le_bytes(), &bytes[..]].concat())
    }

    /// Makes the events so far durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    /// Makes the file durable.
    pub(super) fn finish(self) -> io::Result<()> {
        self.0.finish()
    }
}

/// Reads events one after another. After an error there are no more.
#[derive(Debug)]
pub(super) struct EventReader<R> {
    source: Option<R>,
    length: u64,
}

impl EventReader<BufReader<File>> {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::new(BufReader::new(File::open(path)?)))
    }
}

impl<R: Read> EventReader<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source: Some(source),
            length: 0,
        }
    }

    /// How many bytes the events so far take.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    fn read(source: &mut R) -> Result<Option<(Event, u64)>, EventFileError> {
        let mut head = Vec::new();
        source.take(4).read_to_end(&mut head)?;
        if head.is_empty() {
            return Ok(None);
        }
        let head = <[u8; 4]>::try_from(head).map_err(|_| EventFileError::Cut)?;
        let length = u32::from_le_bytes(head);
        if length as usize > MESSAGE_LIMIT {
            return Err(EventFileError::TooLong { length });
        }
        let mut bytes = Vec::new();
        source.take(length.into()).read_to_end(&mut bytes)?;
        if bytes.len() != length as usize {
            return Err(EventFileError::Cut);
        }
        Ok(Some((codec::decode(&bytes)?, 4 + u64::from(length))))
    }
}

impl<R: Read> Iterator for EventReader<R> {
    type Item = Result<Event, EventFileError>;

    fn next(&mut self) -> Option<Self::Item> {
        match Self::read(self.source.as_mut()?) {
            Ok(Some((event, length))) => {
                self.length += length;
                Some(Ok(event))
            }
            end => {
                self.source = None;
                end.err().map(Err)
            }
        }
    }
}

/// Why a file of events cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum EventFileError {
    /// The file ends within an event.
    #[error("the file ends within the event")]
    Cut,
    /// A length above what the codec takes.
    #[error("an event of {length} bytes is longer than any message")]
    TooLong {
        /// The length in bytes.
        length: u32,
    },
    /// Bytes that are no event.
    #[error(transparent)]
    Malformed(#[from] CodecError),
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use fedlora_common::clock::Timestamp;
    use fedlora_protocol::ids::MemberIndex;
    use fedlora_protocol::round::coordinator::EventKind;

    use super::*;

    fn event(at: u64) -> Event {
        Event {
            at: Timestamp(at),
            kind: EventKind::Left(MemberIndex(3)),
        }
    }

    fn written(events: &[Event]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.bin");
        let store = Store::folder(folder.path());
        let mut writer = EventWriter::create(&store, &path).unwrap();
        for event in events {
            writer.append(event).unwrap();
        }
        writer.finish().unwrap();
        assert!(EventWriter::create(&store, &path).is_err(), "written over");
        std::fs::read(&path).unwrap()
    }

    #[test]
    fn events_come_back_in_order() {
        let events = [event(1), event(1 << 40)];
        let bytes = written(&events);
        let read: Result<Vec<_>, _> = EventReader::new(&bytes[..]).collect();
        assert_eq!(read.unwrap(), events);
        assert!(EventReader::new(&[][..]).next().is_none());
    }

    #[test]
    fn a_file_that_is_cut_or_claims_too_much_is_refused() {
        let one = written(&[event(1)]);
        let bytes = written(&[event(1), event(2)]);
        for length in 0..bytes.len() {
            let read: Result<Vec<_>, _> = EventReader::new(&bytes[..length]).collect();
            if length == 0 || length == one.len() {
                read.unwrap();
            } else {
                assert!(matches!(read, Err(EventFileError::Cut)), "{length}");
            }
        }
        let mut reader = EventReader::new(&[255; 8][..]);
        let error = reader.next().unwrap().unwrap_err();
        assert!(matches!(error, EventFileError::TooLong { .. }));
        assert!(reader.next().is_none(), "read on after an error");
        let mut malformed = one;
        *malformed.last_mut().unwrap() = 255;
        let error = EventReader::new(&malformed[..])
            .next()
            .unwrap()
            .unwrap_err();
        assert!(matches!(error, EventFileError::Malformed(_)));
    }
}
