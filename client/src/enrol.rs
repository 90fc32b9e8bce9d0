//! Joining a federation: keys are made here, the certificate comes back, the certificate
//! authority and the aggregator's identity are pinned.

use std::path::Path;
use std::time::Duration;

use fedlora_common::clock::Timestamp;
use fedlora_protocol::ids::MemberName;
use fedlora_protocol::plan::Floors;
use fedlora_protocol::wire::codec::{self, CodecError};
use fedlora_protocol::wire::session::{JoinRequest, JoinResponse};
use fedlora_protocol::wire::token::InviteToken;
use fedlora_protocol::wire::versions::Protocols;
use fedlora_transport::hello::hello;
use fedlora_transport::pki::{Peer, PkiError};
use fedlora_transport::{
    CaFingerprint, Certificate, Connection, Dialer, Proxy, Silence, TransportChoice, TransportError,
};
use time::Date;

use crate::agent::AgentConfig;
use crate::certificate::day;
use crate::directory::{DirectoryError, MemberConfig, MemberDirectory};
use crate::remedy::Remedy;

/// How long the aggregator may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Joins with an invitation and stores the membership in `root`. `transport` is what the connection
/// runs over, over TCP through the proxy; those that follow run over the same.
///
/// # Errors
/// [`JoinError`]; the directory is left without a membership, and with the keys: joining again with
/// the same invitation is safe until it expires.
pub async fn join(
    token: &InviteToken,
    root: &Path,
    now: Timestamp,
    (transport, proxy): (TransportChoice, Option<Proxy>),
) -> Result<MemberConfig, JoinError> {
    let dialer = Dialer::new(transport, proxy);
    let connecting = async {
        let fingerprint = CaFingerprint(token.authority);
        Ok(dialer.join(&token.address, fingerprint).await?)
    };
    join_over(connecting, token, root, (now, transport)).await
}

/// The same over the connection that `connecting` gives, with the certificate of the authority that
/// issued the aggregator's. The connections that follow run over `transport`.
///
/// # Errors
/// As [`join`].
pub async fn join_over(
    connecting: impl Future<Output = Result<(Connection, Certificate), JoinError>>,
    token: &InviteToken,
    root: &Path,
    (now, transport): (Timestamp, TransportChoice),
) -> Result<MemberConfig, JoinError> {
    if now > token.expires {
        return Err(JoinError::Expired {
            until: day(token.expires),
            today: day(now),
        });
    }
    let directory = MemberDirectory::create(root)?;
    let _lock = directory.lock()?;
    let (identity, tls) = directory.keys()?;
    let certificate_request = tls.signing_request()?;
    let proof = JoinRequest::proof_digest(&token.name, &certificate_request);
    let request = JoinRequest {
        protocol: Protocols::OWN,
        name: token.name.clone(),
        secret: token.secret.clone(),
        identity: identity.public(),
        proof: identity.sign(&proof),
        certificate_request,
    };

    let (connection, authority) = connecting.await?;
    let answer = hello(&connection, &codec::encode(&request)?, PATIENCE).await?;
    connection.finish().await;
    let (federation, certificate, address, aggregator) = match codec::decode(&answer)? {
        JoinResponse::Welcome {
            federation,
            certificate,
            address,
            aggregator,
        } => (federation, certificate, address, aggregator),
        JoinResponse::Refused { reason } => return Err(JoinError::Refused { reason }),
    };
    let certificate = Certificate::from_der(certificate);
    let peer = Peer::from_certificate(&certificate)?;
    if peer.name != token.name || peer.key != tls.digest() {
        return Err(JoinError::OtherCertificate { name: peer.name });
    }
    let config = MemberConfig {
        name: token.name.clone(),
        federation,
        address,
        transport,
        silence: Silence::default(),
        aggregator,
        weight_class: None,
        floors: Floors::default(),
        agent: AgentConfig::default(),
    };
    directory.store(&config, &certificate, &authority)?;
    Ok(config)
}

impl JoinError {
    /// What would help, where something simple would.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Directory(error) => error.remedy(),
            _ => None,
        }
    }
}

/// Why an invitation could not be redeemed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token's expiry has passed.
    #[error(
        "the invitation has expired: it was for {until} at the latest, and it is {today} by this machine's \
         clock; ask the operator for a new one"
    )]
    Expired {
        /// Its last day.
        until: Date,
        /// The day of joining.
        today: Date,
    },
    /// The aggregator did not accept the invitation.
    #[error("the aggregator refused: {reason}")]
    Refused {
        /// The reason that the aggregator gave.
        reason: String,
    },
    /// A certificate for another name or key.
    #[error("the aggregator issued a certificate for {name} or another key: do not use it")]
    OtherCertificate {
        /// The name in the certificate.
        name: MemberName,
    },
    /// The member's directory cannot be created or written.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A key or certificate cannot be made or read.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The aggregator cannot be reached, or shows another certificate than the token's.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The answer is malformed.
    #[error(transparent)]
    Codec(#[from] CodecError),
}
