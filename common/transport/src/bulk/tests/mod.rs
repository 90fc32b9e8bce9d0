//! Transfers in memory: whole, cut and resumed, corrupted, refused, and without room.

mod failures;
mod refusals;
mod resuming;

use std::path::Path;

use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};

use super::*;
use crate::frame::{FrameError, read_frame, write_frame};

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

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
