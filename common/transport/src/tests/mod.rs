//! Two endpoints on this machine, and what each must refuse of the other.

/// A test over QUIC and one over TCP of each of these.
macro_rules! over_both {
    ($($name:ident),* $(,)?) => {
        mod quic {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::TransportKind::Quic).await;
            })*
        }
        mod tcp {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::TransportKind::Tcp).await;
            })*
        }
    };
}

mod bulk;
mod certificates;
mod endpoints;
mod fallback;
mod handshake;
mod joining;

use std::net::SocketAddr;
use std::time::Duration;

use time::OffsetDateTime;

use super::hello::{hello, receive_hello};
use super::pki::{CertificateAuthority, Credentials, Issued, RevocationList, TlsKeyPair};
use super::{
    CaFingerprint, Certificate, Connection, Dialer, Limits, MemberConnection, RestartSecret,
    ServerEndpoint, TransportChoice, TransportError, TransportKind, Transports,
};
use fedlora_protocol::ids::MemberName;

/// Generous: these tests wait for events, and fail by what happens, not by when.
const PATIENCE: Duration = Duration::from_secs(20);

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn yesterday() -> OffsetDateTime {
    now() - time::Duration::days(1)
}

fn name(text: &str) -> MemberName {
    text.parse().unwrap()
}

fn limits() -> Limits {
    Limits {
        handshake: PATIENCE,
        idle: PATIENCE,
        ..Limits::default()
    }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A federation: its authority and its server's credentials.
struct Federation {
    authority: CertificateAuthority,
    server: Credentials,
}

impl Federation {
    fn new() -> Self {
        let rng = &mut fedlora_protocol::crypto::os_rng();
        let authority = CertificateAuthority::create("demo", yesterday(), 30, rng).unwrap();
        let key = TlsKeyPair::generate().unwrap();
        let issued = authority
            .issue_server_certificate(&key, yesterday(), 30, rng)
            .unwrap();
        let server = Credentials::new(issued.certificate, &key).unwrap();
        Self { authority, server }
    }

    fn member(&self, member: &str) -> Credentials {
        self.member_from(member, yesterday(), 30).0
    }

    fn member_from(
        &self,
        member: &str,
        not_before: OffsetDateTime,
        days: u32,
    ) -> (Credentials, Issued) {
        let key = TlsKeyPair::generate().unwrap();
        let request = key.signing_request().unwrap();
        let issued = self
            .authority
            .issue_member_certificate(
                &request,
                &name(member),
                not_before,
                days,
                &mut fedlora_protocol::crypto::os_rng(),
            )
            .unwrap();
        let credentials = Credentials::new(issued.certificate.clone(), &key).unwrap();
        (credentials, issued)
    }

    fn listen(&self) -> ServerEndpoint {
        self.listen_with(Vec::new(), limits())
    }

    fn listen_with(&self, revocations: Vec<RevocationList>, limits: Limits) -> ServerEndpoint {
        ServerEndpoint::bind(
            loopback(),
            &self.server,
            self.authority.certificate(),
            revocations,
            limits,
            &RestartSecret::derive(&[1; 32]),
            Transports::All,
        )
        .unwrap()
    }
}

fn dialer(over: TransportKind, limits: Limits) -> Dialer {
    let choice = match over {
        TransportKind::Quic => TransportChoice::Quic,
        TransportKind::Tcp => TransportChoice::Tcp,
    };
    Dialer::new(choice, None).with_limits(limits)
}

async fn connect(
    over: TransportKind,
    address: SocketAddr,
    credentials: &Credentials,
    authority: &Certificate,
    limits: Limits,
) -> Result<Connection, TransportError> {
    dialer(over, limits)
        .connect(&address.to_string(), credentials, authority)
        .await
}

async fn join_connect(
    over: TransportKind,
    address: SocketAddr,
    fingerprint: CaFingerprint,
    limits: Limits,
) -> Result<(Connection, Certificate), TransportError> {
    dialer(over, limits)
        .join(&address.to_string(), fingerprint)
        .await
}

/// Connects to `server` and says hello, with a server side that answers whoever gets in. Returns
/// what the client and the server saw.
async fn meet(
    over: TransportKind,
    server: &mut ServerEndpoint,
    credentials: &Credentials,
    federation: &Federation,
) -> (
    Result<Vec<u8>, TransportError>,
    Result<MemberConnection, TransportError>,
) {
    let address = server.local_address().unwrap();
    let client = async {
        let authority = federation.authority.certificate();
        let connection = connect(over, address, credentials, authority, limits()).await?;
        hello(&connection, b"hi", PATIENCE).await
    };
    let serving = async {
        let member = server.accept().await.unwrap()?;
        let (payload, reply) = receive_hello(&member.connection, PATIENCE).await?;
        assert_eq!(payload, b"hi");
        reply.accept(b"welcome").await?;
        Ok(member)
    };
    tokio::join!(client, serving)
}
