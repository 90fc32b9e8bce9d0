//! What a receiver refuses, and what a sender does not take for an answer.

use fedlora_common::digest::Digest;

use super::*;

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
                Err(BulkError::Unexpected { .. } | BulkError::Reply(_))
            ),
            "{sent:?}"
        );
    }
}
