//! Whole transfers, and those that resume after a cut or a crash.

use std::io;

use super::*;

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
