//! Why a client refuses the aggregator's certificate.

use rustls::CertificateError;

use super::pki::{CaFingerprint, SERVER_NAME};

/// Why a client refused the aggregator's certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerCertificateProblem {
    /// Issued by another authority than the pinned one.
    #[error("it is not from this federation's authority: another federation, or an impostor")]
    OtherAuthority,
    /// The authority shown is not the one the token names.
    #[error("its authority has the fingerprint {found}, the join token says {expected}")]
    Fingerprint {
        /// The fingerprint in the token.
        expected: CaFingerprint,
        /// The fingerprint of the authority that the server showed.
        found: CaFingerprint,
    },
    /// Past its end or before its beginning.
    #[error("it is not valid now ({detail}): is this machine's clock right?")]
    NotValidNow {
        /// The dates, as rustls words them.
        detail: String,
    },
    /// Not for the name that every aggregator has.
    #[error("it is not for the name {SERVER_NAME} ({detail})")]
    OtherName {
        /// The names in it.
        detail: String,
    },
    /// Not for use by a server.
    #[error("it is not a server's certificate ({detail})")]
    OtherPurpose {
        /// The purposes in it.
        detail: String,
    },
    /// Refused by rustls for another reason.
    #[error("{detail}")]
    Other {
        /// What was found.
        detail: String,
    },
}

impl ServerCertificateProblem {
    pub(super) fn from_rustls(error: &rustls::Error) -> Self {
        use CertificateError as E;
        let detail = error.to_string();
        let rustls::Error::InvalidCertificate(problem) = error else {
            return Self::Other { detail };
        };
        match problem {
            // A root of the same name with another key signs what our root cannot verify.
            E::UnknownIssuer | E::BadSignature => Self::OtherAuthority,
            E::Expired
            | E::ExpiredContext { .. }
            | E::NotValidYet
            | E::NotValidYetContext { .. } => Self::NotValidNow { detail },
            E::NotValidForName | E::NotValidForNameContext { .. } => Self::OtherName { detail },
            E::InvalidPurpose | E::InvalidPurposeContext { .. } => Self::OtherPurpose { detail },
            _ => Self::Other { detail },
        }
    }
}
