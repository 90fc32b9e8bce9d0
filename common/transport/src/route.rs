//! What a connection runs over, and what a member wants it to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransportKind {
    /// QUIC, over UDP.
    Quic,
    /// TLS 1.3 over TCP.
    Tcp,
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "QUIC",
            Self::Tcp => "TCP",
        })
    }
}

/// The way that a connection takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What carries it.
    pub transport: TransportKind,
    /// Host and port of the proxy that it goes through, if any.
    pub proxy: Option<String>,
}

impl Route {
    /// Straight to the peer.
    pub fn direct(transport: TransportKind) -> Self {
        Self {
            transport,
            proxy: None,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.proxy {
            None => write!(f, "{}", self.transport),
            Some(proxy) => write!(f, "{} through the proxy {proxy}", self.transport),
        }
    }
}

/// What a member wants its connections to run over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransportChoice {
    /// QUIC, and TCP where QUIC is not answered.
    #[default]
    Auto,
    /// QUIC alone.
    Quic,
    /// TCP alone.
    Tcp,
}

impl TransportChoice {
    /// Whether nothing is asked for.
    pub fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

impl FromStr for TransportChoice {
    type Err = UnknownTransport;

    fn from_str(text: &str) -> Result<Self, UnknownTransport> {
        match text {
            "auto" => Ok(Self::Auto),
            "quic" => Ok(Self::Quic),
            "tcp" => Ok(Self::Tcp),
            other => Err(UnknownTransport {
                found: other.chars().take(40).collect(),
            }),
        }
    }
}

/// A transport of no known name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{found}' is no transport: auto, quic or tcp is expected")]
pub struct UnknownTransport {
    /// The name, cut at 40 characters.
    pub found: String,
}

/// An HTTP proxy that opens tunnels (`CONNECT`, RFC 9110, section 9.3.6).
#[derive(Clone)]
pub struct Proxy {
    host: String,
    port: u16,
    authorization: Option<Zeroizing<String>>,
}

impl Proxy {
    /// A proxy at a host and port. `authorization` is the value of the header `Proxy-Authorization`.
    pub fn new(host: String, port: u16, authorization: Option<Zeroizing<String>>) -> Self {
        Self {
            host,
            port,
            authorization,
        }
    }

    /// Host and port, which hold no credentials.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub(crate) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref().map(String::as_str)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxys_credentials_are_shown_nowhere() {
        let secret = Zeroizing::new("Basic c2VjcmV0".to_owned());
        let proxy = Proxy::new("proxy.example".into(), 3128, Some(secret));
        assert_eq!(format!("{proxy:?}"), "Proxy(proxy.example:3128)");
        let route = Route {
            transport: TransportKind::Tcp,
            proxy: Some(proxy.address()),
        };
        assert_eq!(
            route.to_string(),
            "TCP through the proxy proxy.example:3128"
        );
    }

    #[test]
    fn transports_are_known_by_name() {
        assert_eq!("tcp".parse(), Ok(TransportChoice::Tcp));
        assert_eq!("auto".parse(), Ok(TransportChoice::default()));
        let unknown = "sctp".parse::<TransportChoice>().unwrap_err();
        assert!(unknown.to_string().contains("'sctp'"));
    }
}
