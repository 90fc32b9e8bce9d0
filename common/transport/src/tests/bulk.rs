//! A bulk transfer over QUIC, cut off and resumed on another connection.

use super::*;
use crate::StreamKind;
use crate::bulk::{
    BulkError, Expected, ExpectedLength, FileSink, MIN_CHUNK, Manifest, MemorySource, receive, send,
};
use crate::connection::CloseCode;

over_both!(an_upload_goes_on_where_a_lost_connection_left_it,);

async fn an_upload_goes_on_where_a_lost_connection_left_it(over: TransportKind) {
    let federation = Federation::new();
    let mut server = federation.listen();
    let address = server.local_address().unwrap();
    let authority = federation.authority.certificate();
    let credentials = federation.member("hospital-a");
    let bytes: Vec<u8> = (0..12 * MIN_CHUNK as usize)
        .map(|i| ((i * i) >> 3) as u8)
        .collect();
    let manifest = Manifest::of(&bytes, MIN_CHUNK).unwrap();
    let expected = Expected {
        length: ExpectedLength::Exactly(bytes.len() as u64),
        digest: Some(manifest.digest()),
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("update.bin");

    let mut resumed = Vec::new();
    for cut in [true, false] {
        let (client, member) = tokio::join!(
            connect(over, address, &credentials, authority, limits()),
            server.accept()
        );
        let (client, member) = (client.unwrap(), member.unwrap().unwrap());
        let sending = async {
            let (mut writer, mut reader) = client.open(StreamKind::Bulk).await.unwrap();
            let mut source = MemorySource(&bytes);
            send(&mut reader, &mut writer, &manifest, &mut source, |_| ()).await
        };
        let receiving = async {
            let (kind, mut writer, mut reader) = member.connection.accept().await.unwrap();
            assert_eq!(kind, StreamKind::Bulk);
            let mut sink = FileSink::new(&path).unwrap();
            receive(&mut reader, &mut writer, &expected, &mut sink, |step| {
                if cut && step.done >= 5 * u64::from(MIN_CHUNK) {
                    member
                        .connection
                        .close(CloseCode::ShuttingDown, "power cut");
                }
            })
            .await
        };
        match tokio::join!(sending, receiving) {
            (Ok(sent), Ok(received)) => {
                assert_eq!(sent, received);
                resumed.push(sent.resumed);
            }
            (Err(BulkError::Frame(error)), Err(_)) => {
                let reason = client.explain(error);
                assert!(
                    matches!(&reason, TransportError::Closed { reason, .. } if reason == "power cut"),
                    "{reason:?}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(resumed.len(), 1);
    assert!(resumed[0] >= 5 * u64::from(MIN_CHUNK), "{resumed:?}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}
