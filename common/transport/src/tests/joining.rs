//! The enrolment endpoint: a client with a fingerprint and no certificate.

use super::*;
use crate::JoinServer;
use crate::ServerCertificateProblem;
use crate::pki::CaFingerprint;

over_both!(
    the_authority_with_the_tokens_fingerprint_is_learnt,
    another_fingerprint_is_refused,
    the_right_authority_shown_beside_anothers_server_certificate_is_refused,
    a_member_may_not_pose_as_the_enrolment_server,
    the_two_ports_are_not_interchangeable,
);

fn listen(credentials: &Credentials, authority: &CertificateAuthority) -> JoinServer {
    JoinServer::bind(
        loopback(),
        credentials,
        authority.certificate(),
        limits(),
        Transports::All,
    )
    .unwrap()
}

async fn join(
    over: TransportKind,
    server: &mut JoinServer,
    fingerprint: CaFingerprint,
) -> Result<crate::Certificate, TransportError> {
    let address = server.local_address().unwrap();
    let client = async {
        let (connection, authority) = join_connect(over, address, fingerprint, limits()).await?;
        hello(&connection, b"token", PATIENCE).await?;
        Ok(authority)
    };
    let serving = async {
        if let Ok(connection) = server.accept().await.unwrap() {
            let (_, reply) = receive_hello(&connection, PATIENCE).await.unwrap();
            reply.accept(b"").await.unwrap();
            return Some(connection);
        }
        None
    };
    tokio::join!(client, serving).0
}

async fn the_authority_with_the_tokens_fingerprint_is_learnt(over: TransportKind) {
    let federation = Federation::new();
    let mut server = listen(&federation.server, &federation.authority);
    let authority = join(over, &mut server, federation.authority.fingerprint())
        .await
        .unwrap();
    assert_eq!(&authority, federation.authority.certificate());
}

async fn another_fingerprint_is_refused(over: TransportKind) {
    let (federation, other) = (Federation::new(), Federation::new());
    let mut server = listen(&federation.server, &federation.authority);
    let expected = other.authority.fingerprint();
    let found = federation.authority.fingerprint();
    let error = join(over, &mut server, expected).await.unwrap_err();
    assert!(
        matches!(
            &error,
            TransportError::ServerCertificate(problem)
                if *problem == ServerCertificateProblem::Fingerprint { expected, found }
        ),
        "{error:?}"
    );
}

async fn the_right_authority_shown_beside_anothers_server_certificate_is_refused(
    over: TransportKind,
) {
    let (federation, impostor) = (Federation::new(), Federation::new());
    // The authority's certificate is public: an impostor can show it beside its own.
    let mut server = listen(&impostor.server, &federation.authority);
    let error = join(over, &mut server, federation.authority.fingerprint())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            TransportError::ServerCertificate(ServerCertificateProblem::OtherAuthority)
        ),
        "{error:?}"
    );
}

async fn a_member_may_not_pose_as_the_enrolment_server(over: TransportKind) {
    let federation = Federation::new();
    let mut server = listen(&federation.member("mallory"), &federation.authority);
    let error = join(over, &mut server, federation.authority.fingerprint())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            TransportError::ServerCertificate(
                ServerCertificateProblem::OtherName { .. }
                    | ServerCertificateProblem::OtherPurpose { .. }
            )
        ),
        "{error:?}"
    );
}

async fn the_two_ports_are_not_interchangeable(over: TransportKind) {
    let federation = Federation::new();
    let mut members = federation.listen();
    let address = members.local_address().unwrap();
    let (joined, _) = tokio::join!(
        join_connect(over, address, federation.authority.fingerprint(), limits()),
        members.accept()
    );
    let error = joined.unwrap_err();
    assert!(
        matches!(error, TransportError::Protocol { .. }),
        "{error:?}"
    );

    let mut enrolment = listen(&federation.server, &federation.authority);
    let credentials = federation.member("a");
    let (connected, _) = tokio::join!(
        connect(
            over,
            enrolment.local_address().unwrap(),
            &credentials,
            federation.authority.certificate(),
            limits()
        ),
        enrolment.accept()
    );
    let error = connected.unwrap_err();
    assert!(
        matches!(error, TransportError::Protocol { .. }),
        "{error:?}"
    );
}
