//! The TLS parameters themselves: what is negotiated, and what an endpoint with other parameters
//! gets.

use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::quic::{ClientConnection, Connection as QuicTls, ServerConnection, Version};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, NamedGroup, ProtocolVersion, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::AsyncReadExt;

use super::*;
use crate::error::PeerContext;
use crate::pki::SERVER_NAME;
use crate::tls::{
    self, ALPN_FEDERATION, ALPN_FEDERATION_TCP, ALPN_JOIN, ALPN_JOIN_TCP, client_config,
    join_client_config, server_config,
};

/// Runs the TLS handshake alone, in memory, until neither side has more to say.
fn shake(
    client: ClientConfig,
    server: rustls::ServerConfig,
) -> Result<(QuicTls, QuicTls), rustls::Error> {
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let mut client: QuicTls =
        ClientConnection::new(Arc::new(client), Version::V1, name, b"client".to_vec())?.into();
    let mut server: QuicTls =
        ServerConnection::new(Arc::new(server), Version::V1, b"server".to_vec())?.into();
    loop {
        let moved = step(&mut client, &mut server)? + step(&mut server, &mut client)?;
        if moved == 0 {
            return Ok((client, server));
        }
    }
}

fn step(from: &mut QuicTls, to: &mut QuicTls) -> Result<usize, rustls::Error> {
    let mut moved = 0;
    loop {
        let mut bytes = Vec::new();
        let keys = from.write_hs(&mut bytes);
        if bytes.is_empty() && keys.is_none() {
            return Ok(moved);
        }
        moved += 1;
        if !bytes.is_empty() {
            to.read_hs(&bytes)?;
        }
    }
}

#[test]
fn a_stolen_chain_signed_for_with_another_key_is_refused() {
    let federation = Federation::new();
    let authority = federation.authority.certificate();
    let thief = federation.member("mallory").key();
    let key = tls::provider()
        .key_provider
        .load_private_key(thief)
        .unwrap();
    let chain = vec![
        federation.server.certificate().der().clone(),
        authority.der().clone(),
    ];
    let stolen = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));

    let member = client_config(&federation.member("a"), authority).unwrap();
    let joining = join_client_config(federation.authority.fingerprint()).unwrap();
    for ((client, verifier), alpn) in [(member, ALPN_FEDERATION), (joining, ALPN_JOIN)] {
        let mut server = rustls::ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(stolen.clone());
        server.alpn_protocols = vec![alpn.to_vec()];
        let error = shake(client, server).err();
        assert!(
            matches!(
                error,
                Some(rustls::Error::InvalidCertificate(
                    rustls::CertificateError::BadSignature
                ))
            ),
            "{error:?}"
        );
        assert!(verifier.refusal().is_some());
    }
}

#[test]
fn tls_1_3_with_the_hybrid_group_and_no_tickets() {
    let federation = Federation::new();
    let authority = federation.authority.certificate();
    let (client, _) = client_config(&federation.member("a"), authority).unwrap();
    let server = server_config(&federation.server, authority, Vec::new()).unwrap();
    assert_eq!(server.send_tls13_tickets, 0);
    assert_eq!(server.max_early_data_size, 0);
    assert!(!server.ticketer.enabled());
    assert!(!client.enable_early_data);
    let (client, server) = shake(client, server).unwrap();
    for side in [&client, &server] {
        assert!(!side.is_handshaking());
        assert_eq!(side.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(
            side.negotiated_key_exchange_group()
                .map(|group| group.name()),
            Some(NamedGroup::X25519MLKEM768)
        );
        assert_eq!(side.alpn_protocol(), Some(ALPN_FEDERATION));
    }
    let QuicTls::Client(client) = client else {
        unreachable!("the first of the two is the client");
    };
    assert_eq!(client.tls13_tickets_received(), 0);
}

#[test]
fn tls_1_2_cannot_be_configured() {
    let provider = tls::provider();
    let groups: Vec<_> = provider
        .kx_groups
        .iter()
        .map(|group| group.name())
        .collect();
    assert_eq!(groups, [NamedGroup::X25519MLKEM768]);
    let federation = Federation::new();
    let authority = federation.authority.certificate();
    let server = server_config(&federation.server, authority, Vec::new()).unwrap();
    // A TLS 1.2 client over TCP framing gets no further than its first message.
    let mut old = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots(&federation))
        .with_no_client_auth();
    old.alpn_protocols = vec![ALPN_FEDERATION.to_vec()];
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(old), name).unwrap();
    let mut server = rustls::ServerConnection::new(Arc::new(server)).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    server.read_tls(&mut bytes.as_slice()).unwrap();
    let error = server.process_new_packets().unwrap_err();
    assert!(
        matches!(error, rustls::Error::PeerIncompatible(_)),
        "{error:?}"
    );
}

fn roots(federation: &Federation) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots
        .add(federation.authority.certificate().der().clone())
        .unwrap();
    roots
}

/// Dials with a hand-made TLS configuration; the error of the handshake or of the first read.
async fn dial(over: TransportKind, address: SocketAddr, config: ClientConfig) -> TransportError {
    let place = PeerContext {
        server: false,
        address,
        alpn: ALPN_FEDERATION,
    };
    match over {
        TransportKind::Quic => {
            let endpoint = quinn::Endpoint::client(loopback()).unwrap();
            let crypto = QuicClientConfig::try_from(config).unwrap();
            let config = quinn::ClientConfig::new(Arc::new(crypto));
            let connecting = endpoint.connect_with(config, address, SERVER_NAME).unwrap();
            let error = match connecting.await {
                Ok(connection) => connection.closed().await,
                Err(error) => error,
            };
            TransportError::from_connection(error, &place)
        }
        TransportKind::Tcp => {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from(SERVER_NAME).unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let error = match connector.connect(name, stream).await {
                Ok(mut stream) => stream.read_u8().await.unwrap_err(),
                Err(error) => error,
            };
            TransportError::from_tls(&error, &place)
        }
    }
}

/// The federation's application protocol, and the other endpoint's.
fn protocols(over: TransportKind) -> [&'static [u8]; 2] {
    match over {
        TransportKind::Quic => [ALPN_FEDERATION, ALPN_JOIN],
        TransportKind::Tcp => [ALPN_FEDERATION_TCP, ALPN_JOIN_TCP],
    }
}

fn without_certificate(
    over: TransportKind,
    provider: rustls::crypto::CryptoProvider,
    of: &Federation,
) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(of))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocols(over)[0].to_vec()];
    config
}

/// What the server and the client see of a hand-made client.
async fn outcome(
    over: TransportKind,
    config: ClientConfig,
    of: &Federation,
) -> (TransportError, TransportError) {
    let mut server = of.listen();
    let address = server.local_address().unwrap();
    let (client, accepted) = tokio::join!(dial(over, address, config), server.accept());
    (client, accepted.unwrap().unwrap_err())
}

over_both!(
    a_client_without_a_certificate_is_refused,
    a_client_with_only_classical_key_exchange_is_refused,
    another_application_protocol_is_refused,
);

async fn a_client_without_a_certificate_is_refused(over: TransportKind) {
    let federation = Federation::new();
    let config = without_certificate(over, (*tls::provider()).clone(), &federation);
    let (client, server) = outcome(over, config, &federation).await;
    assert!(
        matches!(&client, TransportError::CertificateRefused { reason } if reason.contains("required")),
        "{client:?}"
    );
    assert!(
        matches!(&server, TransportError::ClientCertificate { reason, .. } if reason.contains("required")),
        "{server:?}"
    );
}

async fn a_client_with_only_classical_key_exchange_is_refused(over: TransportKind) {
    let federation = Federation::new();
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1];
    let config = without_certificate(over, provider, &federation);
    let (client, server) = outcome(over, config, &federation).await;
    assert!(
        matches!(client, TransportError::NoCommonParameters { .. }),
        "{client:?}"
    );
    assert!(
        matches!(server, TransportError::NoCommonParameters { .. }),
        "{server:?}"
    );
}

async fn another_application_protocol_is_refused(over: TransportKind) {
    let federation = Federation::new();
    let mut others = vec![
        vec![protocols(over)[1].to_vec()],
        vec![b"h3".to_vec()],
        vec![],
    ];
    // Each carrier has its own: what follows the handshake differs.
    let carriers = [TransportKind::Quic, TransportKind::Tcp];
    let other = carriers.into_iter().find(|kind| *kind != over);
    others.extend(other.map(|other| vec![protocols(other)[0].to_vec()]));
    for alpn in others {
        let unasked = alpn.is_empty();
        let authority = federation.authority.certificate();
        let (mut config, _) = client_config(&federation.member("a"), authority).unwrap();
        config.alpn_protocols = alpn;
        let (client, server) = outcome(over, config, &federation).await;
        // TLS itself lets a client pass that names none, QUIC does not.
        let cut = unasked && matches!(client, TransportError::Broken { .. });
        assert!(
            cut || matches!(client, TransportError::Protocol { .. }),
            "{client:?}"
        );
        assert!(
            matches!(server, TransportError::Protocol { .. }),
            "{server:?}"
        );
    }
}
