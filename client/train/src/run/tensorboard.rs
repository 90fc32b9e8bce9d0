//! TensorBoard's event files: TFRecord framing around `Event` messages of protocol buffers,
//! written by hand since scalars are all that is needed.
//!
//! A record is its length (8 bytes, little-endian), a masked CRC-32C of those, the message,
//! and a masked CRC-32C of that (`tensorflow/core/lib/io/record_writer.h`). The messages are
//! those of `tensorboard/compat/proto/event.proto` and `summary.proto`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::run::resume_point::ResumePoint;

/// Part of every file's name, by which TensorBoard finds event files.
const MARK: &str = "tfevents";
/// Content of a file's first event.
const VERSION: &str = "brain.Event:2";
/// Prefix of the names of held-out scalars.
const HELD_OUT: &str = "eval/";

/// Wire types of protocol buffers.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const BYTES: u8 = 2;
const FIXED_32: u8 = 5;

/// An event file, open for appending.
#[derive(Debug)]
pub(crate) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Opens the event file in `folder`, or creates one, and removes events after `from` and
    /// incomplete ones. `now` is in seconds since 1970.
    pub(crate) fn open(folder: &Path, from: ResumePoint, now: f64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut found = None;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.to_string_lossy().contains(MARK) {
                found = Some(path);
            }
        }
        let path = found.unwrap_or_else(|| {
            folder.join(format!("events.out.{MARK}.{:010}.fedlora", now as u64))
        });
        let old = match fs::read(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            read => read.unwrap_or_default(),
        };
        let kept: usize = records(&old)
            .take_while(|message| scan(message).is_some_and(|(step, held)| from.keeps(step, held)))
            .map(|message| message.len() + 16)
            .sum();
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        file.set_len(kept as u64)?;
        if kept == 0 {
            file.write_all(&record(&version(now)))?;
        }
        Ok(Self { path, file })
    }

    /// The file's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends the scalars of one step.
    pub(crate) fn scalars(
        &mut self,
        now: f64,
        step: u64,
        scalars: &[(&str, f64)],
    ) -> io::Result<()> {
        self.file.write_all(&record(&event(now, step, scalars)))
    }

    /// Waits until the appended figures are on the disk.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// A message in its TFRecord frame.
fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(message.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(message);
    record.extend(masked_crc(message).to_le_bytes());
    record
}

/// A CRC-32C, rotated and offset as TFRecord demands: data may itself contain checksums.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// `Event { wall_time: 1, file_version: 3 }`.
fn version(now: f64) -> Vec<u8> {
    let mut message = wall_time(now);
    bytes(&mut message, 3, VERSION.as_bytes());
    message
}

/// `Event { wall_time: 1, step: 2, summary: 5 }` with a `Summary.Value { tag: 1,
/// simple_value: 2 }` for each scalar.
fn event(now: f64, step: u64, scalars: &[(&str, f64)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for &(tag, value) in scalars {
        let mut scalar = Vec::new();
        bytes(&mut scalar, 1, tag.as_bytes());
        key(&mut scalar, 2, FIXED_32);
        scalar.extend((value as f32).to_le_bytes());
        bytes(&mut summary, 1, &scalar);
    }
    let mut message = wall_time(now);
    if step > 0 {
        key(&mut message, 2, VARINT);
        varint(&mut message, step);
    }
    bytes(&mut message, 5, &summary);
    message
}

fn wall_time(now: f64) -> Vec<u8> {
    let mut message = Vec::new();
    key(&mut message, 1, FIXED_64);
    message.extend(now.to_le_bytes());
    message
}

fn key(message: &mut Vec<u8>, field: u8, wire: u8) {
    message.push(field << 3 | wire);
}

fn bytes(message: &mut Vec<u8>, field: u8, value: &[u8]) {
    key(message, field, BYTES);
    varint(message, value.len() as u64);
    message.extend(value);
}

/// Seven bits a byte, the lowest first; the high bit says that more follow.
fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

/// The messages of the leading records that are complete and undamaged.
fn records(mut file: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (head, rest) = file.split_at_checked(12)?;
        let (length, crc) = head.split_at(8);
        let count = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
        let (message, rest) = rest.split_at_checked(count)?;
        let (end, rest) = rest.split_at_checked(4)?;
        let whole =
            crc == masked_crc(length).to_le_bytes() && end == masked_crc(message).to_le_bytes();
        file = rest;
        whole.then_some(message)
    })
}

/// The step of an event that this module wrote, and whether it is a held-out score.
fn scan(message: &[u8]) -> Option<(usize, bool)> {
    let mut step = 0;
    // The wall time comes first: one byte of key and eight of value.
    let mut rest = message.get(9..)?;
    while let Some((&key, after)) = rest.split_first() {
        let (value, after) = read_varint(after)?;
        match key & 7 {
            VARINT => {
                step = value;
                rest = after;
            }
            BYTES => {
                let (content, after) = after.split_at_checked(usize::try_from(value).ok()?)?;
                // The first scalar's tag lies behind two keys with lengths.
                if key >> 3 == 5 {
                    let tag = content.get(4..).unwrap_or_default();
                    return Some((step as usize, tag.starts_with(HELD_OUT.as_bytes())));
                }
                rest = after;
            }
            _ => return None,
        }
    }
    Some((step as usize, false))
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

/// The steps of a file's events.
#[cfg(test)]
pub(crate) fn steps(file: &[u8]) -> Vec<usize> {
    records(file)
        .map(|message| scan(message).unwrap().0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same events, written by TensorBoard's own writer with
    /// `examples/oracle/tensorboard_events.py`.
    const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/events.out.tfevents.golden");

    fn ours() -> Vec<Vec<u8>> {
        let start = 1_700_000_000.25;
        vec![
            record(&version(start)),
            record(&event(
                start + 1.5,
                1,
                &[("train/loss", 2.5), ("train/learning_rate", 2e-4)],
            )),
            record(&event(start + 2.0, 300, &[("eval/loss", 1.0 / 3.0)])),
            record(&event(
                start + 1e6,
                70_000,
                &[("train/loss", -1e-30), ("train/grad_norm", 1e30)],
            )),
        ]
    }

    #[test]
    fn the_bytes_are_those_of_tensorboards_own_writer() {
        assert_eq!(ours().concat(), GOLDEN);
    }

    #[test]
    fn a_file_continues_after_its_last_complete_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.out.tfevents.1.fedlora");
        let whole = ours().concat();
        let after = |content: &[u8], step, scored| {
            fs::write(&path, content).unwrap();
            EventFile::open(dir.path(), ResumePoint { step, scored }, 0.0).unwrap();
            steps(&fs::read(&path).unwrap())
        };
        assert_eq!(after(&whole, 70_000, true), [0, 1, 300, 70_000]);
        assert_eq!(after(&whole, 300, true), [0, 1, 300]);
        assert_eq!(after(&whole, 300, false), [0, 1]);
        assert_eq!(after(&whole, 0, false), [0]);
        for cut in 1..30 {
            let cut = &whole[..whole.len() - cut];
            assert_eq!(after(cut, 70_000, true), [0, 1, 300]);
        }
        let mut damaged = whole.clone();
        let middle = ours()[..2].concat().len() + 20;
        damaged[middle] ^= 1;
        assert_eq!(after(&damaged, 70_000, true), [0, 1]);
        assert_eq!(after(b"something else", 9, true), [0]);
    }
}
