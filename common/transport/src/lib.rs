//! TLS 1.3 over QUIC, or over TCP: certificates, endpoints, framed streams, chunked bulk transfer.
//!
//! Step 6 of a round, and the way that all its other messages travel. This crate carries
//! bytes: what they mean is the wire format's business. It knows who the peer is, because a
//! verified certificate says so, and hands that on as a [`Peer`]. The types of quinn and rustls
//! stay inside: streams and certificates are this crate's own.
//!
//! | module | owns |
//! |---|---|
//! | [`pki`] | the certificate authority, requests, issued certificates, peer identity |
//! | `tls` | the four TLS configurations: server, client, join server, join client |
//! | [`endpoint`], `accept`, `limits`, `silence` | the servers: bind, accept |
//! | `dialer`, `route`, `quic` | how a member reaches a server, and over what |
//! | `tcp`, `mux` | TLS over TCP, and streams within it |
//! | `places`, `budget` | strangers' places, of which the oldest makes room; the bytes that transfers share |
//! | [`connection`], `close` | one connection: tagged streams, traffic counters, closing |
//! | `stream` | the two halves of a stream |
//! | [`hello`] | the first exchange, in which a refused certificate shows |
//! | [`frame`] | length-prefixed frames |
//! | [`bulk`] | large objects in hashed, resumable chunks |

mod accept;
mod budget;
pub mod bulk;
mod close;
pub mod connection;
mod dialer;
pub mod endpoint;
mod error;
pub mod frame;
pub mod hello;
mod limits;
mod mux;
pub mod pki;
mod places;
mod quic;
mod restart;
mod route;
mod server_certificate;
mod silence;
#[cfg(feature = "simulation")]
pub mod simulated;
mod stream;
mod tcp;
mod tls;

#[cfg(test)]
mod tests;

pub use budget::{WindowBudget, WindowShare};
pub use connection::{Connection, StreamKind, Traffic};
pub use dialer::{Dialer, connect, join_connect};
pub use endpoint::{JoinServer, MemberConnection, ServerEndpoint, Transports};
pub use error::{ProxyProblem, TransportError};
pub use limits::Limits;
pub use pki::{CaFingerprint, Certificate, CertificateAuthority, Credentials, Peer, TlsKeyPair};
pub use places::Places;
pub use restart::RestartSecret;
pub use route::{Proxy, Route, TransportChoice, TransportKind, UnknownTransport};
pub use server_certificate::ServerCertificateProblem;
pub use silence::{Silence, SilenceOutOfRange};
pub use stream::{RecvStream, SendStream, StreamClosed};
pub use tls::{TlsError, check_member_certificate, check_server_certificate};
