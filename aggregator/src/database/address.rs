//! Addresses of a store, which may hold a password: nothing prints them whole.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The `[store]` table of `aggregator.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// The database: `postgres://USER@HOST/NAME`, or `sqlite:///PATH`. The environment variable
    /// `FEDLORA_STORE_DATABASE` takes its place, for a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<StoreAddress>,
    /// Where large files lie: `s3://BUCKET/PREFIX`, or `file:///PATH`. The environment variable
    /// `FEDLORA_STORE_BLOBS` takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blobs: Option<StoreAddress>,
}

impl StoreConfig {
    /// The same, with what the environment says in place of what the file says.
    #[must_use]
    pub fn with_environment(self) -> Self {
        let named = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        Self {
            database: named("FEDLORA_STORE_DATABASE")
                .map(StoreAddress)
                .or(self.database),
            blobs: named("FEDLORA_STORE_BLOBS")
                .map(StoreAddress)
                .or(self.blobs),
        }
    }
}

/// An address, printed without user, password and parameters.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreAddress(String);

impl StoreAddress {
    /// An address as a configuration has it.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The whole address, with its password.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return f.write_str("(not a URL)");
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        // A password may hold a slash or an at sign that is not encoded.
        let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        write!(f, "{scheme}://{rest}")
    }
}

impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreAddress({self})")
    }
}

/// `text` without what stands between `//` and the last `@` of a word: users and passwords.
pub(crate) fn without_passwords(text: &str) -> String {
    let words = text.split_inclusive(char::is_whitespace);
    let mut clean = String::with_capacity(text.len());
    for word in words {
        match (word.find("://"), word.rfind('@')) {
            (Some(start), Some(end)) if start < end => {
                clean.push_str(&word[..start + 3]);
                clean.push_str(&word[end + 1..]);
            }
            _ => clean.push_str(word),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (text, shown) in [
            (
                "postgres://user:secret@db:5432/name?password=secret",
                "postgres://db:5432/name",
            ),
            ("postgres://user:sec/r@t@db/name", "postgres://db/name"),
            ("sqlite:///var/lib/x.db", "sqlite:///var/lib/x.db"),
            ("s3://bucket/prefix", "s3://bucket/prefix"),
            ("secret", "(not a URL)"),
        ] {
            let address = StoreAddress::new(text);
            assert_eq!(address.to_string(), shown);
            assert_eq!(format!("{address:?}"), format!("StoreAddress({shown})"));
        }
        let said = without_passwords("bad \"postgres://user:p@ss@db/x\", at line 3");
        assert_eq!(said, "bad \"postgres://db/x\", at line 3");
    }
}
