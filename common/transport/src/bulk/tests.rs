//! Transfers in memory: whole, cut and resumed, corrupted, refused, and without room.

use std::io;
use std::path::Path;

use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};

use super::*;
use crate::frame::{FrameError, read_frame, write_frame};
use fedlora_common::digest::Digest;

const SIZE: u32 = MIN_CHUNK;

fn object(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| (i % 253 * 7 + i / 1000) as u8)
        .collect()
}

fn exactly(length: usize) -> Expected {
    Expected {
        length: ExpectedLength::Exactly(length as u64),
        digest: None,
    }
}

type Halves = (ReadHalf<DuplexStream>, WriteHalf<DuplexStream>);

fn wire() -> (Halves, Halves) {
    let (a, b) = duplex(64 * 1024);
    (split(a), split(b))
}

async fn send_to((mut reader, mut writer): Halves, bytes: &[u8]) -> Result<Transferred, BulkError> {
    let manifest = Manifest::of(bytes, SIZE).unwrap();
    send(
        &mut reader,
        &mut writer,
        &manifest,
        &mut MemorySource(bytes),
        |_| (),
    )
    .await
}

async fn receive_into<S: ChunkSink>(
    (mut reader, mut writer): Halves,
    expected: &Expected,
    sink: &mut S,
) -> Result<Transferred, BulkError> {
    receive(&mut reader, &mut writer, expected, sink, |_| ()).await
}

async fn transfer<S: ChunkSink>(
    bytes: &[u8],
    expected: &Expected,
    sink: &mut S,
) -> (
    Result<Transferred, BulkError>,
    Result<Transferred, BulkError>,
) {
    let (a, b) = wire();
    tokio::join!(send_to(a, bytes), receive_into(b, expected, sink))
}

/// Sends the manifest and the first `chunks` chunks, then half of one more, and goes away.
async fn send_some((mut reader, mut writer): Halves, bytes: &[u8], chunks: usize) {
    let manifest = Manifest::of(bytes, SIZE).unwrap();
    write_frame(&mut writer, &manifest.encode()).await.unwrap();
    read_frame(&mut reader, MAX_REPLY_BYTES).await.unwrap();
    for (index, chunk) in bytes.chunks(SIZE as usize).enumerate().take(chunks) {
        write_frame(&mut writer, &numbered(index as u32, chunk))
            .await
            .unwrap();
    }
    let next = numbered(chunks as u32, &bytes[chunks * SIZE as usize..][..1000]);
    let mut cut = ((SIZE + 4).to_le_bytes()).to_vec();
    cut.extend_from_slice(&next);
    tokio::io::AsyncWriteExt::write_all(&mut writer, &cut)
        .await
        .unwrap();
}

fn numbered(index: u32, chunk: &[u8]) -> Vec<u8> {
    [&index.to_le_bytes(), chunk].concat()
}

#[tokio::test]
async fn an_object_arrives_whole_and_both_sides_count_alike() {
    let bytes = object(3 * SIZE as usize + 17);
    let mut sink = MemorySink::default();
    let mut steps = Vec::new();
    let ((mut ra, mut wa), (mut rb, mut wb)) = wire();
    let manifest = Manifest::of(&bytes, SIZE).unwrap();
    let expected = exactly(bytes.len());
    let mut source = MemorySource(&bytes);
    let (sent, received) = tokio::join!(
        send(&mut ra, &mut wa, &manifest, &mut source, |_| ()),
        receive(&mut rb, &mut wb, &expected, &mut sink, |step| steps
            .push(step.done))
    );
    let (sent, received) = (sent.unwrap(), received.unwrap());
    assert_eq!(sent, received);
    assert_eq!(sent.digest, content_digest(&bytes));
    assert_eq!(sent.resumed, 0);
    assert_eq!(sent.forward, (52 + 4 * 32 + 4 + 4 * 8 + bytes.len()) as u64);
    let size = u64::from(SIZE);
    assert_eq!(steps, [0, size, 2 * size, 3 * size, bytes.len() as u64]);
    assert_eq!(sink.into_bytes().unwrap(), bytes);
}

#[tokio::test]
async fn a_cut_transfer_resumes_and_sends_only_the_rest() {
    let bytes = object(5 * SIZE as usize + 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("update.bin");
    let mut memory = MemorySink::default();
    cut_and_resume(&bytes, &mut memory).await;
    let mut file = FileSink::new(&path).unwrap();
    cut_and_resume(&bytes, &mut file).await;
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(names(dir.path()), ["update.bin"]);
}

async fn cut_and_resume<S: ChunkSink>(bytes: &[u8], sink: &mut S) {
    let (a, b) = wire();
    let expected = exactly(bytes.len());
    let ((), cut) = tokio::join!(send_some(a, bytes, 3), receive_into(b, &expected, sink));
    assert!(
        matches!(cut, Err(BulkError::Frame(FrameError::Truncated { .. }))),
        "{cut:?}"
    );
    let (sent, received) = transfer(bytes, &exactly(bytes.len()), sink).await;
    let sent = sent.unwrap();
    assert_eq!(sent.resumed, 3 * u64::from(SIZE));
    let rest = bytes.len() as u64 - sent.resumed;
    // The manifest, three chunks' framing, and not one byte of what was held.
    assert_eq!(sent.forward, 4 + 52 + 6 * 32 + 3 * 8 + rest);
    assert_eq!(received.unwrap(), sent);
}

#[tokio::test]
async fn a_file_sink_survives_a_restart_and_what_a_crash_leaves() {
    let bytes = object(4 * SIZE as usize);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("update.bin");
    let (a, b) = wire();
    {
        let mut sink = FileSink::new(&path).unwrap();
        let expected = exactly(bytes.len());
        let (_, cut) = tokio::join!(
            send_some(a, &bytes, 3),
            receive_into(b, &expected, &mut sink)
        );
        assert!(cut.is_err());
    }
    assert!(!path.exists());
    // The third chunk reached the disk wrongly, and part of a fourth is there.
    let part = dir.path().join("update.bin.part");
    let mut stored = std::fs::read(&part).unwrap();
    stored[2 * SIZE as usize + 5] ^= 1;
    stored.extend_from_slice(&[9; 100]);
    std::fs::write(&part, &stored).unwrap();

    let mut sink = FileSink::new(&path).unwrap();
    let (sent, received) = transfer(&bytes, &exactly(bytes.len()), &mut sink).await;
    assert_eq!(sent.unwrap().resumed, 2 * u64::from(SIZE));
    received.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);

    // The acknowledgement was lost: the sender tries again and sends nothing but the manifest.
    let mut sink = FileSink::new(&path).unwrap();
    let (again, _) = transfer(&bytes, &exactly(bytes.len()), &mut sink).await;
    assert_eq!(again.unwrap().resumed, bytes.len() as u64);

    // Another object of the same length takes its place, from its first chunk.
    let other: Vec<u8> = bytes.iter().map(|byte| byte ^ 0x55).collect();
    let mut sink = FileSink::new(&path).unwrap();
    let (sent, _) = transfer(&other, &exactly(other.len()), &mut sink).await;
    assert_eq!(sent.unwrap().resumed, 0);
    assert_eq!(std::fs::read(&path).unwrap(), other);
    assert_eq!(names(dir.path()), ["update.bin"]);
}

#[tokio::test]
async fn a_part_of_another_object_is_not_built_upon() {
    let first = object(3 * SIZE as usize);
    let second: Vec<u8> = first.iter().map(|byte| byte ^ 1).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("update.bin");
    let mut sink = FileSink::new(&path).unwrap();
    let (a, b) = wire();
    let expected = exactly(first.len());
    let (_, cut) = tokio::join!(
        send_some(a, &first, 2),
        receive_into(b, &expected, &mut sink)
    );
    assert!(cut.is_err());
    let (sent, _) = transfer(&second, &expected, &mut sink).await;
    assert_eq!(sent.unwrap().resumed, 0);
    assert_eq!(std::fs::read(&path).unwrap(), second);
}

#[tokio::test]
async fn two_transfers_into_one_file_are_not_mixed() {
    let bytes = object(1000);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("update.bin");
    let mut first = FileSink::new(&path).unwrap();
    let manifest = Manifest::of(&bytes, SIZE).unwrap();
    assert_eq!(first.begin(&manifest).await.unwrap(), 0);
    let mut second = FileSink::new(&path).unwrap();
    let (sent, received) = transfer(&bytes, &exactly(1000), &mut second).await;
    assert!(
        matches!(sent, Err(BulkError::Refused(Refusal::Storage(0)))),
        "{sent:?}"
    );
    assert!(
        matches!(&received, Err(BulkError::Storage(error)) if error.kind() == io::ErrorKind::ResourceBusy)
    );
    drop(first);
    let (sent, _) = transfer(&bytes, &exactly(1000), &mut second).await;
    sent.unwrap();
}

#[tokio::test]
async fn a_corrupted_chunk_is_refused_by_number_and_costs_nothing_else() {
    let bytes = object(4 * SIZE as usize);
    let manifest = Manifest::of(&bytes, SIZE).unwrap();
    let mut sink = MemorySink::default();
    let ((mut ra, mut wa), (mut rb, mut wb)) = wire();
    let mut corrupt = bytes.clone();
    corrupt[2 * SIZE as usize] ^= 1;
    let expected = exactly(bytes.len());
    let mut source = MemorySource(&corrupt);
    // The receiver keeps its streams open: the refusal must get through all the same.
    let (sent, received) = tokio::join!(
        send(&mut ra, &mut wa, &manifest, &mut source, |_| ()),
        receive(&mut rb, &mut wb, &expected, &mut sink, |_| ())
    );
    assert!(
        matches!(sent, Err(BulkError::Refused(Refusal::Chunk(2)))),
        "{sent:?}"
    );
    assert!(matches!(
        received,
        Err(BulkError::Rejected(Refusal::Chunk(2)))
    ));
    assert_eq!(sink.held(), 2 * SIZE as usize);
    let (sent, _) = transfer(&bytes, &expected, &mut sink).await;
    assert_eq!(sent.unwrap().resumed, 2 * u64::from(SIZE));
    assert_eq!(sink.into_bytes().unwrap(), bytes);
}

#[tokio::test]
async fn chunks_out_of_order_too_long_or_too_short_are_refused() {
    let bytes = object(2 * SIZE as usize);
    let manifest = Manifest::of(&bytes, SIZE).unwrap();
    let (first, second) = bytes.split_at(SIZE as usize);
    for frame in [
        numbered(1, second),
        numbered(1, first),
        numbered(0, &first[1..]),
        numbered(0, &bytes[..SIZE as usize + 1]),
        vec![0, 0, 0],
    ] {
        let ((mut reader, mut writer), b) = wire();
        let mut sink = MemorySink::default();
        let expected = exactly(bytes.len());
        let (refused, received) = tokio::join!(
            async {
                write_frame(&mut writer, &manifest.encode()).await.unwrap();
                read_frame(&mut reader, MAX_REPLY_BYTES).await.unwrap();
                // May fail: the receiver stops reading at the header of one too long.
                let _ = write_frame(&mut writer, &frame).await;
                read_frame(&mut reader, MAX_REPLY_BYTES).await.unwrap()
            },
            receive_into(b, &expected, &mut sink)
        );
        assert_eq!(
            Reply::decode(&refused),
            Ok(Reply::Refused(Refusal::Chunk(0)))
        );
        assert!(matches!(
            received,
            Err(BulkError::Rejected(Refusal::Chunk(0)))
        ));
        assert_eq!(sink.held(), 0);
    }
}

#[tokio::test]
async fn an_unexpected_length_or_object_is_refused_before_anything_is_stored() {
    let bytes = object(SIZE as usize + 1);
    let at_most = |limit| Expected {
        length: ExpectedLength::AtMost(limit),
        digest: None,
    };
    let other = Expected {
        digest: Some(content_digest(b"another object")),
        ..exactly(bytes.len())
    };
    let huge = object(40 * SIZE as usize);
    for (object, expected, refusal) in [
        (
            &bytes,
            exactly(bytes.len() - 1),
            Refusal::Length(bytes.len() as u64 - 1),
        ),
        (
            &bytes,
            exactly(bytes.len() + 1),
            Refusal::Length(bytes.len() as u64 + 1),
        ),
        (&bytes, at_most(SIZE.into()), Refusal::Length(SIZE.into())),
        // So long a manifest is not even read.
        (&huge, at_most(10), Refusal::Length(10)),
        (&bytes, other, Refusal::OtherObject),
    ] {
        let mut sink = MemorySink::default();
        let (sent, received) = transfer(object, &expected, &mut sink).await;
        assert!(
            matches!(sent, Err(BulkError::Refused(found)) if found == refusal),
            "{sent:?}"
        );
        assert!(matches!(received, Err(BulkError::Rejected(found)) if found == refusal));
        assert_eq!(sink.held(), 0);
    }
    let fitting = Expected {
        digest: Some(content_digest(&bytes)),
        ..at_most(1 << 20)
    };
    let (sent, _) = transfer(&bytes, &fitting, &mut MemorySink::default()).await;
    sent.unwrap();
}

#[tokio::test]
async fn a_manifest_that_lies_about_the_whole_is_found_out_and_nothing_is_kept() {
    let bytes = object(2 * SIZE as usize);
    let mut encoded = Manifest::of(&bytes, SIZE).unwrap().encode();
    encoded[20..52].copy_from_slice(content_digest(b"something else").as_bytes());
    let manifest = Manifest::decode(&encoded).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut sink = FileSink::new(&dir.path().join("update.bin")).unwrap();
    let ((mut ra, mut wa), b) = wire();
    let expected = exactly(bytes.len());
    let mut source = MemorySource(&bytes);
    let (sent, received) = tokio::join!(
        send(&mut ra, &mut wa, &manifest, &mut source, |_| ()),
        receive_into(b, &expected, &mut sink)
    );
    assert!(
        matches!(sent, Err(BulkError::Refused(Refusal::Digest))),
        "{sent:?}"
    );
    assert!(matches!(
        received,
        Err(BulkError::Rejected(Refusal::Digest))
    ));
    assert!(names(dir.path()).is_empty());
}

#[tokio::test]
async fn a_malformed_manifest_or_reply_ends_the_transfer() {
    let ((mut reader, mut writer), b) = wire();
    let expected = exactly(100);
    let mut sink = MemorySink::default();
    let (reply, received) = tokio::join!(
        async {
            write_frame(&mut writer, b"FLM1 and no more").await.unwrap();
            read_frame(&mut reader, MAX_REPLY_BYTES).await.unwrap()
        },
        receive_into(b, &expected, &mut sink)
    );
    assert_eq!(Reply::decode(&reply), Ok(Reply::Refused(Refusal::Manifest)));
    assert!(matches!(received, Err(BulkError::Manifest(_))));

    let bytes = object(1000);
    let done_too_soon = Reply::Done(Digest::from_bytes([0; 32]));
    for reply in [vec![7], Reply::Continue(2).encode(), done_too_soon.encode()] {
        let (a, (mut reader, mut writer)) = wire();
        let (sent, ()) = tokio::join!(send_to(a, &bytes), async {
            read_frame(&mut reader, MAX_MANIFEST_BYTES).await.unwrap();
            write_frame(&mut writer, &reply).await.unwrap();
        });
        assert!(
            matches!(
                sent,
                Err(BulkError::Unexpected { .. } | BulkError::Manifest(_))
            ),
            "{sent:?}"
        );
    }
}

/// A disk that is full after so many bytes.
struct FullAfter<S> {
    inner: S,
    room: usize,
}

impl<S: ChunkSink> ChunkSink for FullAfter<S> {
    async fn begin(&mut self, manifest: &Manifest) -> io::Result<u32> {
        self.inner.begin(manifest).await
    }

    async fn read_back(&mut self, index: u32, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_back(index, buffer).await
    }

    async fn keep(&mut self, chunks: u32) -> io::Result<u32> {
        self.inner.keep(chunks).await
    }

    async fn append(&mut self, index: u32, bytes: &[u8]) -> io::Result<()> {
        // As a disk does: what fits is written, then the error comes.
        let fitting = bytes.len().min(self.room);
        self.room -= fitting;
        self.inner.append(index, &bytes[..fitting]).await?;
        if fitting < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    async fn commit(&mut self) -> io::Result<()> {
        self.inner.commit().await
    }

    async fn discard(&mut self) -> io::Result<()> {
        self.inner.discard().await
    }
}

#[tokio::test]
async fn a_full_disk_is_reported_and_the_transfer_can_be_resumed() {
    let bytes = object(4 * SIZE as usize);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("update.bin");
    let mut sink = FullAfter {
        inner: FileSink::new(&path).unwrap(),
        room: 2 * SIZE as usize + 100,
    };
    let (sent, received) = transfer(&bytes, &exactly(bytes.len()), &mut sink).await;
    let held = 2 * u64::from(SIZE);
    assert!(
        matches!(sent, Err(BulkError::Refused(Refusal::Storage(found))) if found == held),
        "{sent:?}"
    );
    assert!(
        matches!(&received, Err(BulkError::Storage(error)) if error.kind() == io::ErrorKind::StorageFull),
        "{received:?}"
    );
    sink.room = usize::MAX;
    let (sent, _) = transfer(&bytes, &exactly(bytes.len()), &mut sink).await;
    assert_eq!(sent.unwrap().resumed, held);
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[tokio::test]
async fn files_are_sent_from_disk_and_unreadable_ones_are_reported() {
    let bytes = object(2 * SIZE as usize + 3);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter.safetensors");
    std::fs::write(&path, &bytes).unwrap();
    let (mut source, manifest) = FileSource::open(&path, SIZE).await.unwrap();
    assert_eq!(manifest, Manifest::of(&bytes, SIZE).unwrap());
    let ((mut ra, mut wa), b) = wire();
    let mut sink = MemorySink::default();
    let expected = exactly(bytes.len());
    let (sent, _) = tokio::join!(
        send(&mut ra, &mut wa, &manifest, &mut source, |_| ()),
        receive_into(b, &expected, &mut sink)
    );
    sent.unwrap();
    assert_eq!(sink.into_bytes().unwrap(), bytes);

    // The file shrinks between its manifest and its sending.
    std::fs::write(&path, &bytes[..SIZE as usize]).unwrap();
    let (a, b) = wire();
    let mut sink = MemorySink::default();
    let (sent, received) = tokio::join!(
        async move {
            let (mut reader, mut writer) = a;
            send(&mut reader, &mut writer, &manifest, &mut source, |_| ()).await
        },
        receive_into(b, &expected, &mut sink)
    );
    assert!(matches!(sent, Err(BulkError::Source(_))), "{sent:?}");
    assert!(matches!(received, Err(BulkError::Frame(_))));

    std::fs::write(&path, b"").unwrap();
    assert!(matches!(
        FileSource::open(&path, SIZE).await,
        Err(BulkError::Manifest(ManifestError::Empty))
    ));
    assert!(
        FileSource::open(&dir.path().join("none"), SIZE)
            .await
            .is_err()
    );
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
