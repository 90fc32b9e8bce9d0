//! Connections that stand, and every kind that is refused.

use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::*;
use crate::ServerCertificateProblem;
use crate::connection::{CloseCode, StreamKind};
use crate::frame::{FrameError, read_frame, write_frame};
use crate::pki::Revocation;

over_both!(
    a_member_connects_and_is_known_by_name_and_key,
    ipv6_works_as_ipv4_does,
    control_and_bulk_streams_arrive_with_their_kind,
    a_certificate_from_another_authority_is_refused,
    an_expired_or_future_certificate_is_refused,
    a_revoked_certificate_is_refused_and_the_others_are_not,
    a_server_of_another_authority_is_refused,
    a_server_is_refused_when_expired_or_in_truth_a_member,
    the_servers_own_certificate_is_no_members,
    nobody_listening_is_said_so,
    a_full_server_says_that_it_is_busy_and_frees_its_place,
    a_refused_hello_carries_the_servers_words,
    closing_tells_the_members,
);

async fn a_member_connects_and_is_known_by_name_and_key(over: TransportKind) {
    let federation = Federation::new();
    let mut server = federation.listen();
    let (credentials, issued) = federation.member_from("hospital-a", yesterday(), 30);
    let (client, accepted) = meet(over, &mut server, &credentials, &federation).await;
    assert_eq!(client.unwrap(), b"welcome");
    let member = accepted.unwrap();
    assert_eq!(member.peer.name, name("hospital-a"));
    assert_eq!(member.peer.key, issued.key);
    assert!(member.connection.traffic().received > 1200);
    assert_eq!(member.connection.route().transport, over);
}

async fn ipv6_works_as_ipv4_does(over: TransportKind) {
    let federation = Federation::new();
    let Ok(mut server) = ServerEndpoint::bind(
        "[::1]:0".parse().unwrap(),
        &federation.server,
        federation.authority.certificate(),
        Vec::new(),
        limits(),
        &RestartSecret::derive(&[1; 32]),
        Transports::All,
    ) else {
        // No IPv6 on this machine: nothing to test.
        return;
    };
    let (client, _) = meet(over, &mut server, &federation.member("bank-7"), &federation).await;
    assert_eq!(client.unwrap(), b"welcome");
}

async fn control_and_bulk_streams_arrive_with_their_kind(over: TransportKind) {
    let federation = Federation::new();
    let mut server = federation.listen();
    let address = server.local_address().unwrap();
    let credentials = federation.member("hospital-a");
    let (client, member) = tokio::join!(
        connect(
            over,
            address,
            &credentials,
            federation.authority.certificate(),
            limits()
        ),
        server.accept()
    );
    let (client, member) = (client.unwrap(), member.unwrap().unwrap());
    for kind in [StreamKind::Control, StreamKind::Bulk] {
        let (mut send, mut recv) = client.open(kind).await.unwrap();
        write_frame(&mut send, b"ping").await.unwrap();
        let (got, mut reply, mut request) = member.connection.accept().await.unwrap();
        assert_eq!(got, kind);
        assert_eq!(read_frame(&mut request, 4).await.unwrap(), b"ping");
        write_frame(&mut reply, b"pong").await.unwrap();
        assert_eq!(read_frame(&mut recv, 4).await.unwrap(), b"pong");
    }

    // A frame above the limit, and one that its sender cuts off.
    let (mut send, _recv) = client.open(StreamKind::Control).await.unwrap();
    let (_, _reply, mut request) = member.connection.accept().await.unwrap();
    write_frame(&mut send, &[7; 100]).await.unwrap();
    assert!(matches!(
        read_frame(&mut request, 99).await,
        Err(FrameError::Oversized {
            got: 100,
            limit: 99
        })
    ));
    let (mut send, _recv) = client.open(StreamKind::Control).await.unwrap();
    let (_, _reply, mut request) = member.connection.accept().await.unwrap();
    send.write_all(&[100, 0, 0, 0, 1, 2, 3]).await.unwrap();
    send.finish().unwrap();
    assert!(matches!(
        read_frame(&mut request, 100).await,
        Err(FrameError::Truncated {
            got: 3,
            expected: 100
        })
    ));

    // A stream of no known kind costs that stream; the connection stays.
    let (_send, _recv) = client.open_with(77).await.unwrap();
    assert!(matches!(
        member.connection.accept().await,
        Err(TransportError::Unexpected { .. })
    ));
    client.open(StreamKind::Control).await.unwrap();
    assert!(member.connection.accept().await.is_ok());
}

async fn a_certificate_from_another_authority_is_refused(over: TransportKind) {
    let (federation, other) = (Federation::new(), Federation::new());
    let mut server = federation.listen();
    // Trusts the right server, shows a certificate of the other federation.
    let (client, accepted) =
        meet(over, &mut server, &other.member("hospital-a"), &federation).await;
    let client = client.unwrap_err();
    assert!(
        matches!(client, TransportError::CertificateRefused { .. }),
        "{client:?}"
    );
    let accepted = accepted.unwrap_err();
    assert!(
        matches!(accepted, TransportError::ClientCertificate { .. }),
        "{accepted:?}"
    );
}

async fn an_expired_or_future_certificate_is_refused(over: TransportKind) {
    let federation = Federation::new();
    let mut server = federation.listen();
    let long_ago = now() - time::Duration::days(20);
    let tomorrow = now() + time::Duration::days(1);
    for (start, days) in [(long_ago, 10), (tomorrow, 10)] {
        let (credentials, _) = federation.member_from("hospital-a", start, days);
        let (client, accepted) = meet(over, &mut server, &credentials, &federation).await;
        let client = client.unwrap_err();
        assert!(
            matches!(&client, TransportError::CertificateRefused { reason } if reason.contains("expired")),
            "{client:?}"
        );
        assert!(matches!(
            accepted,
            Err(TransportError::ClientCertificate { .. })
        ));
    }
}

async fn a_revoked_certificate_is_refused_and_the_others_are_not(over: TransportKind) {
    let federation = Federation::new();
    let (revoked, issued) = federation.member_from("hospital-a", yesterday(), 30);
    let revocation = Revocation {
        serial: issued.serial,
        at: now(),
    };
    let list = federation
        .authority
        .revocation_list(&[revocation], 1, yesterday(), 30)
        .unwrap();
    let mut server = federation.listen();
    let (before, _) = meet(over, &mut server, &revoked, &federation).await;
    assert!(before.is_ok());

    server
        .reconfigure(
            &federation.server,
            federation.authority.certificate(),
            vec![list],
        )
        .unwrap();
    let (client, accepted) = meet(over, &mut server, &revoked, &federation).await;
    let client = client.unwrap_err();
    assert!(
        matches!(&client, TransportError::CertificateRefused { reason } if reason.contains("revoked")),
        "{client:?}"
    );
    assert!(matches!(
        accepted,
        Err(TransportError::ClientCertificate { .. })
    ));
    let (other, _) = meet(
        over,
        &mut server,
        &federation.member("hospital-b"),
        &federation,
    )
    .await;
    assert!(other.is_ok());
}

async fn a_server_of_another_authority_is_refused(over: TransportKind) {
    let (federation, other) = (Federation::new(), Federation::new());
    let mut server = other.listen();
    let (client, _) = meet(
        over,
        &mut server,
        &federation.member("hospital-a"),
        &federation,
    )
    .await;
    let client = client.unwrap_err();
    assert!(
        matches!(
            client,
            TransportError::ServerCertificate(ServerCertificateProblem::OtherAuthority)
        ),
        "{client:?}"
    );
}

async fn a_server_is_refused_when_expired_or_in_truth_a_member(over: TransportKind) {
    let mut federation = Federation::new();
    let key = TlsKeyPair::generate().unwrap();
    let long_ago = now() - time::Duration::days(20);
    let issued = federation
        .authority
        .issue_server_certificate(&key, long_ago, 10, &mut fedlora_protocol::crypto::os_rng())
        .unwrap();
    federation.server = Credentials::new(issued.certificate, &key).unwrap();
    let (client, _) = meet(
        over,
        &mut federation.listen(),
        &federation.member("a"),
        &federation,
    )
    .await;
    assert!(
        matches!(
            client,
            Err(TransportError::ServerCertificate(
                ServerCertificateProblem::NotValidNow { .. }
            ))
        ),
        "{client:?}"
    );

    // A member that poses as the aggregator with its own, valid certificate.
    federation.server = federation.member("mallory");
    let (client, _) = meet(
        over,
        &mut federation.listen(),
        &federation.member("a"),
        &federation,
    )
    .await;
    assert!(
        matches!(
            client,
            Err(TransportError::ServerCertificate(
                ServerCertificateProblem::OtherName { .. }
                    | ServerCertificateProblem::OtherPurpose { .. }
            ))
        ),
        "{client:?}"
    );
}

async fn the_servers_own_certificate_is_no_members(over: TransportKind) {
    let federation = Federation::new();
    let mut server = federation.listen();
    let (client, accepted) = meet(over, &mut server, &federation.server, &federation).await;
    assert!(
        matches!(client, Err(TransportError::CertificateRefused { .. })),
        "{client:?}"
    );
    assert!(accepted.is_err());
}

async fn nobody_listening_is_said_so(over: TransportKind) {
    let federation = Federation::new();
    // Bound and silent: no answer will ever come from here.
    let udp = UdpSocket::bind(loopback()).unwrap();
    let tcp = TcpListener::bind(loopback()).unwrap();
    let address = match over {
        TransportKind::Quic => udp.local_addr().unwrap(),
        TransportKind::Tcp => tcp.local_addr().unwrap(),
    };
    let brief = Limits {
        handshake: Duration::from_millis(300),
        ..limits()
    };
    let dial = async |address: String| {
        dialer(over, brief)
            .connect(
                &address,
                &federation.member("a"),
                federation.authority.certificate(),
            )
            .await
            .unwrap_err()
    };
    let error = dial(address.to_string()).await;
    assert!(
        matches!(error, TransportError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
    assert!(error.to_string().contains(&over.to_string()), "{error}");

    let error = dial("no port".into()).await;
    assert!(matches!(error, TransportError::Resolve { .. }), "{error:?}");
}

async fn a_full_server_says_that_it_is_busy_and_frees_its_place(over: TransportKind) {
    let federation = Federation::new();
    let mut server = federation.listen_with(
        Vec::new(),
        Limits {
            connections: 1,
            ..limits()
        },
    );
    let credentials = federation.member("a");
    let address = server.local_address().unwrap();
    let authority = federation.authority.certificate();
    let (first, accepted) = tokio::join!(
        connect(over, address, &credentials, authority, limits()),
        server.accept()
    );
    let (_first, accepted) = (first.unwrap(), accepted.unwrap().unwrap());
    let (client, refused) = meet(over, &mut server, &federation.member("b"), &federation).await;
    assert!(matches!(client, Err(TransportError::Busy)), "{client:?}");
    assert!(matches!(refused, Err(TransportError::Busy)));
    drop(accepted);
    // The place is free once the peer has been told.
    loop {
        match meet(over, &mut server, &federation.member("b"), &federation).await {
            (Ok(_), _) => break,
            (Err(TransportError::Busy), _) => {}
            (error, _) => panic!("{error:?}"),
        }
    }
}

async fn a_refused_hello_carries_the_servers_words(over: TransportKind) {
    let federation = Federation::new();
    let mut server = federation.listen();
    let address = server.local_address().unwrap();
    let credentials = federation.member("a");
    let client = async {
        let authority = federation.authority.certificate();
        let connection = connect(over, address, &credentials, authority, limits()).await?;
        hello(&connection, b"version 0", PATIENCE).await
    };
    let serving = async {
        let member = server.accept().await.unwrap().unwrap();
        let (_, reply) = receive_hello(&member.connection, PATIENCE).await.unwrap();
        reply.refuse("version 0 is too old\u{1b}[2J").await.unwrap();
        member.connection.close(CloseCode::Protocol, "version");
    };
    let (client, ()) = tokio::join!(client, serving);
    let error = client.unwrap_err();
    assert!(
        matches!(&error, TransportError::Refused { reason } if reason == "version 0 is too old [2J"),
        "{error:?}"
    );
}

async fn closing_tells_the_members(over: TransportKind) {
    let federation = Federation::new();
    let mut server = federation.listen();
    let address = server.local_address().unwrap();
    let credentials = federation.member("a");
    let authority = federation.authority.certificate();
    let (client, accepted) = tokio::join!(
        connect(over, address, &credentials, authority, limits()),
        server.accept()
    );
    let client = client.unwrap();
    let _accepted = accepted.unwrap().unwrap();
    server.close("maintenance").await;
    let reason = client.closed().await;
    assert!(
        matches!(&reason, TransportError::Closed { reason, .. } if reason == "maintenance"),
        "{reason:?}"
    );
}
