//! What can happen to a connection, in words for an operator or a member.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quinn::{ConnectError, ConnectionError, TransportErrorCode};
use rustls::AlertDescription;

use super::close::CloseCode;
use super::frame::FrameError;
use super::pki::PkiError;
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
    /// The aggregator's name has no address.
    #[error("cannot find the address of '{address}' (expected HOST:PORT): {reason}")]
    Resolve {
        /// The address as given.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// No packet came back.
    #[error(
        "no answer from {address} within {seconds:.0} s: is the aggregator running there, and does \
         a firewall let UDP through?",
        seconds = after.as_secs_f64()
    )]
    Unreachable {
        /// The address tried.
        address: SocketAddr,
        /// How long it was tried.
        after: Duration,
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
        /// The reason that QUIC or the system gives.
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
        )
    }

    /// Why a connection broke, from quinn's error and what is known of the peer.
    pub(super) fn from_connection(error: ConnectionError, at: &PeerContext) -> Self {
        match error {
            ConnectionError::TransportError(error) => match alert(error.code) {
                Some(AlertDescription::NoApplicationProtocol) => at.protocol(),
                Some(alert) => match (at.server, certificate_alert(alert)) {
                    (true, Some(reason)) => Self::ClientCertificate {
                        address: at.address,
                        reason,
                        detail: error.reason,
                    },
                    (false, Some(_)) => Self::ServerCertificate(ServerCertificateProblem::Other {
                        detail: error.reason,
                    }),
                    (_, None) => parameters(alert, error.reason),
                },
                None => Self::Broken {
                    detail: error.to_string(),
                },
            },
            ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
                Some(AlertDescription::NoApplicationProtocol) => at.protocol(),
                Some(alert) => match certificate_alert(alert) {
                    Some(reason) => Self::CertificateRefused { reason },
                    None => parameters(alert, printable(&close.reason)),
                },
                None if close.error_code == TransportErrorCode::CONNECTION_REFUSED => Self::Busy,
                None => Self::Broken {
                    detail: close.error_code.to_string(),
                },
            },
            ConnectionError::ApplicationClosed(close) => {
                let code = close.error_code.into_inner();
                if code == CloseCode::Busy as u64 {
                    Self::Busy
                } else if code == CloseCode::NotAMember as u64 && !at.server {
                    let reason = printable(&close.reason);
                    Self::Refused { reason }
                } else {
                    Self::Closed {
                        code,
                        reason: printable(&close.reason),
                    }
                }
            }
            ConnectionError::TimedOut => Self::Silent,
            ConnectionError::LocallyClosed => Self::ClosedHere,
            error => Self::Broken {
                detail: error.to_string(),
            },
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

/// The peer, and what was offered to it: what is needed to word an error.
#[derive(Debug, Clone)]
pub(super) struct PeerContext {
    /// Whether this side is the server.
    pub(super) server: bool,
    /// The peer's UDP address.
    pub(super) address: SocketAddr,
    /// The application protocol that this side offered (RFC 7301).
    pub(super) alpn: &'static [u8],
}

impl PeerContext {
    fn protocol(&self) -> TransportError {
        TransportError::Protocol {
            ours: String::from_utf8_lossy(self.alpn).into_owned(),
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
