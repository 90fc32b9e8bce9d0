//! What can happen to a connection, in words for an operator or a member.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quinn::{ConnectError, ConnectionError, TransportErrorCode};
use rustls::AlertDescription;

use super::close::CloseCode;
use super::frame::FrameError;
use super::mux::End;
use super::pki::PkiError;
use super::route::TransportKind;
use super::server_certificate::ServerCertificateProblem;
use super::tls::TlsError;

/// Why a connection could not be made, or ended.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The local address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The TCP port of the same number cannot be used.
    #[error("cannot listen on {address} over TCP: {source}")]
    BindTcp {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The aggregator's name has no address.
    #[error("cannot find the address of '{address}' (expected HOST:PORT): {reason}")]
    Resolve {
        /// The address as given.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// Nothing came back.
    #[error(
        "no answer over {over} from {address} within {seconds:.0} s: is the aggregator running \
         there, and does a firewall let {} through?",
        match over { TransportKind::Quic => "UDP", TransportKind::Tcp => "TCP" },
        seconds = after.as_secs_f64()
    )]
    Unreachable {
        /// What was tried.
        over: TransportKind,
        /// The address tried.
        address: SocketAddr,
        /// How long it was tried.
        after: Duration,
    },
    /// The system opens no TCP connection to the address.
    #[error("no TCP connection to {address}: {source}")]
    TcpConnect {
        /// The address tried.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The HTTP proxy opens no tunnel.
    #[error("the proxy {proxy}: {problem}")]
    Proxy {
        /// Its host and port.
        proxy: String,
        /// What it said.
        problem: ProxyProblem,
    },
    /// Neither QUIC nor TCP reaches the aggregator.
    #[error("{quic}; over TCP: {tcp}")]
    NoRoute {
        /// Why QUIC does not.
        quic: Box<TransportError>,
        /// Why TCP does not.
        tcp: Box<TransportError>,
    },
    /// A peer began a handshake and did not end it in time.
    #[error("{address} did not complete its handshake within {after:?}")]
    HandshakeTimeout {
        /// The peer's address.
        address: SocketAddr,
        /// The time it had.
        after: Duration,
    },
    /// An answer was awaited for too long.
    #[error("no {awaited} from the peer within {after:?}")]
    AnswerTimeout {
        /// What was awaited.
        awaited: &'static str,
        /// The time it had.
        after: Duration,
    },
    /// The peer refused this side's certificate.
    #[error("the peer refused our certificate: {reason}")]
    CertificateRefused {
        /// What its alert says.
        reason: &'static str,
    },
    /// This side refused the aggregator's certificate.
    #[error("the aggregator's certificate is refused: {0}")]
    ServerCertificate(ServerCertificateProblem),
    /// This side refused a client's certificate.
    #[error("a client at {address} is refused: {reason} ({detail})")]
    ClientCertificate {
        /// The client's address.
        address: SocketAddr,
        /// What was sent to it.
        reason: &'static str,
        /// What was found.
        detail: String,
    },
    /// The peer speaks another protocol: an older program, or the other of the two endpoints.
    #[error("the peer does not speak {ours}: is this the right port, and the same version?")]
    Protocol {
        /// The protocol offered.
        ours: String,
    },
    /// The TLS parameters have nothing in common.
    #[error("no common TLS 1.3 parameters; X25519MLKEM768 is required ({detail})")]
    NoCommonParameters {
        /// What was found.
        detail: String,
    },
    /// The server has as many connections as it takes.
    #[error("the aggregator has as many connections as it takes: try again later")]
    Busy,
    /// A newer connection with the same keys is in this one's place.
    #[error(
        "another process has connected with this member's keys: a copy of its directory is in use, or \
         somebody else has the keys"
    )]
    Replaced,
    /// The connection was silent for too long.
    #[error("the connection was silent for too long and is taken for dead")]
    Silent,
    /// The peer closed the connection.
    #[error("the peer closed the connection (code {code}): {reason}")]
    Closed {
        /// Its code; see [`CloseCode`].
        code: u64,
        /// Its words, cut at 200 characters.
        reason: String,
    },
    /// This side closed the connection.
    #[error("the connection was closed on this side")]
    ClosedHere,
    /// The connection broke.
    #[error("the connection broke: {detail}")]
    Broken {
        /// The reason that QUIC, TLS or the system gives.
        detail: String,
    },
    /// A malformed or cut frame, on a connection that still stands.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The hello was answered with a refusal.
    #[error("the aggregator refused the connection: {reason}")]
    Refused {
        /// Its words, cut at 200 characters.
        reason: String,
    },
    /// A message that the protocol does not allow at this point.
    #[error("unexpected {got}, where {expected} was expected")]
    Unexpected {
        /// What the protocol calls for here.
        expected: &'static str,
        /// What arrived.
        got: String,
    },
    /// TLS cannot be configured.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

impl TransportError {
    /// Whether the network is the cause, and not a peer that answered.
    pub(super) fn is_of_the_network(&self) -> bool {
        matches!(
            self,
            Self::Bind { .. }
                | Self::Unreachable { .. }
                | Self::Resolve { .. }
                | Self::Broken { .. }
                | Self::TcpConnect { .. }
                | Self::Proxy { .. }
                | Self::NoRoute { .. }
        )
    }

    /// Why a connection broke, from quinn's error and what is known of the peer.
    pub(super) fn from_connection(error: ConnectionError, at: &PeerContext) -> Self {
        match error {
            ConnectionError::TransportError(error) => match alert(error.code) {
                Some(alert) => at.refusing(alert, error.reason),
                None => Self::Broken {
                    detail: error.to_string(),
                },
            },
            ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
                Some(alert) => at.refused(alert, printable(&close.reason)),
                None if close.error_code == TransportErrorCode::CONNECTION_REFUSED => Self::Busy,
                None => Self::Broken {
                    detail: close.error_code.to_string(),
                },
            },
            ConnectionError::ApplicationClosed(close) => {
                at.closed(close.error_code.into_inner(), &close.reason)
            }
            ConnectionError::TimedOut => Self::Silent,
            ConnectionError::LocallyClosed => Self::ClosedHere,
            error => Self::Broken {
                detail: error.to_string(),
            },
        }
    }

    /// Why a connection over TCP ended.
    pub(super) fn from_end(end: End, at: &PeerContext) -> Self {
        match end {
            End::Closed { code, reason } => at.closed(u64::from(code), &reason),
            End::ClosedHere => Self::ClosedHere,
            End::Silent => Self::Silent,
            End::Alert(alert) => at.refused(alert, String::new()),
            End::Violation(what) => Self::Unexpected {
                expected: "frames as the protocol has them",
                got: what.into(),
            },
            End::Broken(detail) => Self::Broken { detail },
        }
    }

    /// Why a handshake over TCP failed.
    pub(super) fn from_tls(error: &io::Error, at: &PeerContext) -> Self {
        let inner = error.get_ref();
        let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return Self::Broken {
                detail: format!("the handshake ended early: {error}"),
            };
        };
        let detail = tls.to_string();
        match tls {
            rustls::Error::AlertReceived(alert) => at.refused(*alert, detail),
            rustls::Error::NoApplicationProtocol => at.protocol(),
            rustls::Error::NoCertificatesPresented => {
                at.refusing(AlertDescription::CertificateRequired, detail)
            }
            rustls::Error::InvalidCertificate(problem) => {
                at.refusing(AlertDescription::from(problem.clone()), detail)
            }
            rustls::Error::PeerIncompatible(_) => Self::NoCommonParameters { detail },
            _ => Self::Broken { detail },
        }
    }

    pub(super) fn from_connect(error: ConnectError, address: SocketAddr) -> Self {
        match error {
            ConnectError::InvalidRemoteAddress(_) => Self::Resolve {
                address: address.to_string(),
                reason: "not an address to connect to".into(),
            },
            error => Self::Broken {
                detail: error.to_string(),
            },
        }
    }
}

/// What an HTTP proxy has against a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyProblem {
    /// It asks for credentials, or for others.
    #[error(
        "{} (407)",
        if *given { "it does not take the credentials" } else { "it asks for credentials" }
    )]
    Credentials {
        /// Whether some were given.
        given: bool,
    },
    /// It refuses the tunnel.
    #[error("it refused the tunnel: {status} {reason}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its words.
        reason: String,
    },
    /// Its answer is not HTTP's.
    #[error("its answer is not one of an HTTP proxy")]
    NotHttp,
    /// The connection to it broke.
    #[error("{0}")]
    Broken(String),
}

/// The peer, and what was offered to it: what is needed to word an error.
#[derive(Debug, Clone)]
pub(super) struct PeerContext {
    /// Whether this side is the server.
    pub(super) server: bool,
    /// The peer's address.
    pub(super) address: SocketAddr,
    /// The application protocol that this side offered (RFC 7301).
    pub(super) alpn: &'static [u8],
}

impl PeerContext {
    pub(super) fn protocol(&self) -> TransportError {
        TransportError::Protocol {
            ours: String::from_utf8_lossy(self.alpn).into_owned(),
        }
    }

    /// This side ended the handshake, with `alert`.
    fn refusing(&self, alert: AlertDescription, detail: String) -> TransportError {
        if alert == AlertDescription::NoApplicationProtocol {
            return self.protocol();
        }
        match (self.server, certificate_alert(alert)) {
            (true, Some(reason)) => TransportError::ClientCertificate {
                address: self.address,
                reason,
                detail,
            },
            (false, Some(_)) => {
                TransportError::ServerCertificate(ServerCertificateProblem::Other { detail })
            }
            (_, None) => parameters(alert, detail),
        }
    }

    /// The peer ended the handshake, with `alert`.
    fn refused(&self, alert: AlertDescription, detail: String) -> TransportError {
        if alert == AlertDescription::NoApplicationProtocol {
            return self.protocol();
        }
        match certificate_alert(alert) {
            Some(reason) => TransportError::CertificateRefused { reason },
            None => parameters(alert, detail),
        }
    }

    /// The peer closed the connection.
    fn closed(&self, code: u64, reason: &[u8]) -> TransportError {
        let reason = printable(reason);
        if code == CloseCode::Busy as u64 {
            TransportError::Busy
        } else if code == CloseCode::Replaced as u64 && !self.server {
            TransportError::Replaced
        } else if code == CloseCode::NotAMember as u64 && !self.server {
            TransportError::Refused { reason }
        } else {
            TransportError::Closed { code, reason }
        }
    }
}

/// Text from a peer, fit for a terminal: control characters replaced, cut at 200 characters.
pub(super) fn printable(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(800)];
    String::from_utf8_lossy(head)
        .chars()
        .take(200)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// The TLS alert in a QUIC error code (RFC 9001, section 4.8).
fn alert(code: TransportErrorCode) -> Option<AlertDescription> {
    let code = u64::from(code);
    let alert = u8::try_from(code.checked_sub(0x100)?).ok()?;
    Some(AlertDescription::from(alert))
}

fn certificate_alert(alert: AlertDescription) -> Option<&'static str> {
    use AlertDescription as A;
    Some(match alert {
        A::CertificateRequired | A::NoCertificate => "a client certificate is required",
        A::CertificateExpired => "the certificate has expired or is not yet valid",
        A::CertificateRevoked => "the certificate has been revoked",
        A::UnknownCA => "the certificate is not from this federation's authority",
        A::BadCertificate => "the certificate is malformed or for another name",
        A::UnsupportedCertificate => "the certificate is not for this purpose",
        A::DecryptError => "the certificate's signature does not verify",
        A::CertificateUnknown | A::AccessDenied => "the certificate is not accepted",
        _ => return None,
    })
}

fn parameters(alert: AlertDescription, detail: String) -> TransportError {
    use AlertDescription as A;
    match alert {
        A::HandshakeFailure
        | A::ProtocolVersion
        | A::InsufficientSecurity
        | A::IllegalParameter => TransportError::NoCommonParameters { detail },
        alert => TransportError::Broken {
            detail: format!("TLS alert {alert:?}: {detail}"),
        },
    }
}
