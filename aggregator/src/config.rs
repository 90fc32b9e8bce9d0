//! `aggregator.toml`: what the operator decides once, beside the plans of single runs.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::remedy::Remedy;

/// The aggregator's configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AggregatorConfig {
    /// The federation's name, shown to members: 1 to 64 characters.
    pub federation: String,
    /// Where members with certificates connect (UDP).
    pub listen: SocketAddr,
    /// Where invited members join (UDP); the port above `listen`'s by default.
    pub join_listen: SocketAddr,
    /// The host and port by which members reach `listen`, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// The host and port by which members reach `join_listen`, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_advertise: Option<String>,
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

/// Why a configuration cannot be made of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The members' port is 65535, so the port for joining cannot be the next.
    #[error("port 65535 has none above it for joining")]
    NoPortAbove,
}

impl ConfigError {
    /// What would help.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::NoPortAbove => Some(Remedy::ChooseJoinAddress),
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
}
