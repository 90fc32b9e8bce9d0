//! `aggregator.toml`: what the operator decides once, beside the plans of single runs.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::database::StoreConfig;
use crate::remedy::Remedy;
use crate::retention::RetentionConfig;

/// The aggregator's configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AggregatorConfig {
    /// The federation's name, shown to members: 1 to 64 characters.
    pub federation: String,
    /// Where members with certificates connect (UDP and TCP).
    pub listen: SocketAddr,
    /// Where invited members join (UDP and TCP); the port above `listen`'s by default.
    pub join_listen: SocketAddr,
    /// The host and port by which members reach `listen`, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// The host and port by which members reach `join_listen`, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_advertise: Option<String>,
    /// How the key of the certificate authority is kept; without it, in the file `ca.key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaConfig>,
    /// Whether to listen over UDP too. Turn it off where only TCP reaches this machine: members find out,
    /// which takes each some seconds, unless they choose `tcp`.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub udp: bool,
    /// A database and an object store behind the directory; without it the directory is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreConfig>,
    /// How long what runs published is kept; for ever by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionConfig>,
}

fn yes() -> bool {
    true
}

fn is_yes(udp: &bool) -> bool {
    *udp
}

/// How the key of the certificate authority is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaConfig {
    /// Whether the key is in a folder of its own, on another machine: what needs it waits until it was
    /// carried there and back. `ca detach` sets it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub apart: bool,
    /// A PKCS #11 token that holds the key, and signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pkcs11: Option<Pkcs11Config>,
}

/// A key in a PKCS #11 token. Needs a program that was built with the feature `pkcs11`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11Config {
    /// The file of the token's PKCS #11 module: a shared library, as its maker provides it.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// The label of the key pair, on P-256.
    pub key: String,
    /// The file with the user's PIN, which only the service can read.
    pub pin_file: PathBuf,
}

impl AggregatorConfig {
    /// A configuration that listens on `listen` and, for joining, on the port above.
    ///
    /// # Errors
    /// [`ConfigError::NoPortAbove`] where there is none.
    pub fn new(federation: &str, listen: SocketAddr) -> Result<Self, ConfigError> {
        let mut join_listen = listen;
        // Port 0 asks the system for a free one: both do.
        if listen.port() != 0 {
            let above = listen.port().checked_add(1);
            join_listen.set_port(above.ok_or(ConfigError::NoPortAbove)?);
        }
        Ok(Self {
            federation: federation.to_owned(),
            listen,
            join_listen,
            advertise: None,
            join_advertise: None,
            ca: None,
            udp: true,
            store: None,
            retention: None,
        })
    }

    /// The address that members are told to run against.
    pub fn member_address(&self) -> String {
        self.advertise
            .clone()
            .unwrap_or_else(|| self.listen.to_string())
    }

    /// The address that invitations name.
    pub fn join_address(&self) -> String {
        self.join_advertise
            .clone()
            .unwrap_or_else(|| self.join_listen.to_string())
    }
}

impl AggregatorConfig {
    /// The same, where members reach it by other addresses than it listens on: by the `host` of
    /// `advertise`, at the port that follows or the one that is listened on. Joining is at the same host,
    /// unless `join_advertise` names another.
    ///
    /// # Errors
    /// [`ConfigError::Host`] for what is no host and port; [`ConfigError::Unspecified`] where no host is
    /// named and `listen` stands for all addresses of this machine.
    pub fn advertised(
        mut self,
        advertise: Option<&str>,
        join_advertise: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let members = advertise.map(HostAndPort::parse).transpose()?;
        let joining = join_advertise.map(HostAndPort::parse).transpose()?;
        let joining = joining.or_else(|| {
            let host = members.as_ref()?.host.clone();
            Some(HostAndPort { host, port: None })
        });
        for (named, listen) in [(&members, self.listen), (&joining, self.join_listen)] {
            if named.is_none() && listen.ip().is_unspecified() {
                return Err(ConfigError::Unspecified { listen });
            }
        }
        let with = |named: Option<HostAndPort>, listen: SocketAddr| {
            named.map(|named| named.with(listen.port())).transpose()
        };
        self.advertise = with(members, self.listen)?;
        self.join_advertise = with(joining, self.join_listen)?;
        Ok(self)
    }
}

/// A host, and a port where one is named.
struct HostAndPort {
    host: String,
    port: Option<u16>,
}

impl HostAndPort {
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let refused = || ConfigError::Host {
            got: text.chars().take(80).collect(),
        };
        let port_of = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
        // An IPv6 address by itself is full of colons.
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            let host = format!("[{address}]");
            return match address.is_unspecified() {
                true => Err(refused()),
                false => Ok(Self { host, port: None }),
            };
        }
        let (host, port) = match text.split_once(']') {
            Some((address, rest)) => {
                let inside = address.strip_prefix('[').unwrap_or_default();
                let address = inside.parse::<Ipv6Addr>();
                let address = address.ok().filter(|address| !address.is_unspecified());
                let host = address.map(|address| format!("[{address}]"));
                (
                    host,
                    rest.strip_prefix(':').or((!rest.is_empty()).then_some("")),
                )
            }
            None => {
                let (host, port) = match text.rsplit_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (text, None),
                };
                let address = host.parse::<IpAddr>();
                let named = address
                    .map_or_else(|_| is_host_name(host), |address| !address.is_unspecified());
                (named.then(|| host.to_owned()), port)
            }
        };
        match (host, port, port.map(port_of)) {
            (Some(host), None, _) => Ok(Self { host, port: None }),
            (Some(host), _, Some(Some(port))) => Ok(Self {
                host,
                port: Some(port),
            }),
            _ => Err(refused()),
        }
    }

    /// The host with its port, or with the one that is listened on.
    fn with(self, listen: u16) -> Result<String, ConfigError> {
        match self.port.or((listen != 0).then_some(listen)) {
            Some(port) => Ok(format!("{}:{port}", self.host)),
            None => Err(ConfigError::NoPort { host: self.host }),
        }
    }
}

/// A name of the domain name system: labels of letters, digits and hyphens (RFC 1123, section 2.1).
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let numeric = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    text.len() <= 253 && text.split('.').all(label) && !numeric(text)
}

/// Why a configuration cannot be made of an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not a host, with or without a port.
    #[error("'{got}' is no host that members could reach: expected HOST or HOST:PORT")]
    Host {
        /// What was given, cut at 80 characters.
        got: String,
    },
    /// A host without a port, where the system chooses the one to listen on.
    #[error("'{host}' needs a port: the one to listen on is not chosen yet")]
    NoPort {
        /// The host.
        host: String,
    },
    /// Members cannot be told an address that stands for all.
    #[error(
        "{listen} is no address that members could be told: it stands for all of this machine's"
    )]
    Unspecified {
        /// The address to listen on.
        listen: SocketAddr,
    },
    /// The members' port is 65535, so the port for joining cannot be the next.
    #[error("port 65535 has none above it for joining")]
    NoPortAbove,
}

impl ConfigError {
    /// What would help.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::NoPortAbove => Some(Remedy::ChooseJoinAddress),
            Self::Unspecified { .. } => Some(Remedy::NameHost),
            Self::Host { .. } | Self::NoPort { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_join_at_the_port_above_or_at_one_that_is_named() {
        let config = AggregatorConfig::new("test", "127.0.0.1:4433".parse().unwrap()).unwrap();
        assert_eq!(config.join_listen.port(), 4434);
        let free = AggregatorConfig::new("test", "127.0.0.1:0".parse().unwrap()).unwrap();
        assert_eq!(free.join_listen.port(), 0);

        let last = AggregatorConfig::new("test", "127.0.0.1:65535".parse().unwrap());
        let error = last.unwrap_err();
        assert_eq!(error, ConfigError::NoPortAbove);
        assert_eq!(error.remedy(), Some(Remedy::ChooseJoinAddress));
        assert!(!error.to_string().contains("--"), "{error}");
    }

    #[test]
    fn members_are_told_a_host_that_they_can_reach() {
        let config = |listen: &str| AggregatorConfig::new("test", listen.parse().unwrap()).unwrap();
        let told = |listen: &str, advertise: Option<&str>, join: Option<&str>| {
            let config = config(listen).advertised(advertise, join)?;
            Ok::<_, ConfigError>((config.member_address(), config.join_address()))
        };
        let pair = |one: &str, other: &str| Ok((one.to_owned(), other.to_owned()));
        assert_eq!(
            told("10.0.0.1:4433", None, None),
            pair("10.0.0.1:4433", "10.0.0.1:4434")
        );
        assert_eq!(
            told("0.0.0.0:4433", Some("fed.example.org"), None),
            pair("fed.example.org:4433", "fed.example.org:4434")
        );
        assert_eq!(
            told(
                "0.0.0.0:4433",
                Some("fed.example.org:443"),
                Some("join.example.org")
            ),
            pair("fed.example.org:443", "join.example.org:4434")
        );
        assert_eq!(
            told("[::]:4433", Some("2001:db8::7"), None),
            pair("[2001:db8::7]:4433", "[2001:db8::7]:4434")
        );
        assert_eq!(
            told("[::]:4433", Some("[2001:db8::7]"), Some("[2001:db8::8]:99")),
            pair("[2001:db8::7]:4433", "[2001:db8::8]:99")
        );
        let chosen = told("0.0.0.0:0", Some("fed.example.org"), None).unwrap_err();
        assert!(matches!(chosen, ConfigError::NoPort { .. }));
        for (advertise, join) in [(None, None), (None, Some("fed.example.org"))] {
            let error = told("0.0.0.0:4433", advertise, join).unwrap_err();
            assert_eq!(error.remedy(), Some(Remedy::NameHost));
        }
        for bad in [
            "",
            ":4433",
            "fed example",
            "fed:x",
            "fed:0",
            "fed:70000",
            "-fed",
            "1.2.3",
            "[::]:1",
            "0.0.0.0",
            "0.0.0.0:1",
            "::",
            "[::]",
            "[fed]:1",
            "[2001:db8::7]x",
            "https://fed.example.org",
            "fed..org",
        ] {
            let error = told("10.0.0.1:4433", Some(bad), None).unwrap_err();
            assert!(matches!(error, ConfigError::Host { .. }), "{bad}");
        }
    }
}
