//! What is wrong with a PKCS #11 token, or the way to it.

use std::path::PathBuf;

use fedlora_transport::pki::PkiError;

/// Why a token does not serve.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// This program was built without PKCS #11.
    #[error("the configuration names a PKCS #11 token, and this program was built without them")]
    NotBuilt,
    /// The module cannot be loaded.
    #[error("the PKCS #11 module {} cannot be used: {reason}", path.display())]
    Module {
        /// The module's file.
        path: PathBuf,
        /// What it or the system said.
        reason: String,
    },
    /// No token of that label is there.
    #[error("no PKCS #11 token has the label '{token}'; there are {found:?}")]
    NoToken {
        /// The label in the configuration.
        token: String,
        /// Labels of the tokens that are there.
        found: Vec<String>,
    },
    /// Not exactly one key has the label.
    #[error("{found} EC keys in the token '{token}' have the label '{key}'; one pair is expected")]
    Keys {
        /// The key's label in the configuration.
        key: String,
        /// The token's label.
        token: String,
        /// How many there are, of the public or of the private half.
        found: usize,
    },
    /// A key of another kind.
    #[error("the token's key '{key}' is not on P-256")]
    Curve {
        /// The key's label.
        key: String,
    },
    /// The token refused the PIN. The same is not tried again: a token locks itself after a few.
    #[error("{}: the token does not take this PIN", path.display())]
    Pin {
        /// The PIN's file.
        path: PathBuf,
    },
    /// The token takes no PIN any more.
    #[error("the token '{token}' is locked after wrong PINs: its security officer can unlock it")]
    Locked {
        /// The token's label.
        token: String,
    },
    /// The PIN's file cannot be read.
    #[error("PIN: {0}")]
    PinFile(#[from] PkiError),
    /// The token did not do what it was asked.
    #[error("the token refused: {reason}")]
    Refused {
        /// Its code, and the function that gave it.
        reason: String,
    },
}
