//! A full disk, an unreadable file.

use std::io;

use super::*;

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
