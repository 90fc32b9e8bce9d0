//! Signing what waits for the authority's key.

use std::path::Path;

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::ids::MemberName;
use fedlora_transport::pki::{Issued, PkiError};
use fedlora_transport::{Certificate, CertificateAuthority, Peer, check_member_certificate};
use time::OffsetDateTime;

use super::requests::{CertificateRequest, Requests};
use super::server_certificate::{self, KEPT_DAYS};
use super::{Authority, CaError, CustodyKind};
use crate::certificates::MEMBER_DAYS;
use crate::clock::Clock;
use crate::registry::{Registry, RegistryError};

/// What became of a request.
#[derive(Debug)]
pub struct Handled {
    /// `server`, `join` or `renewal`.
    pub kind: &'static str,
    /// The member that it is for; nothing for the aggregator's own.
    pub member: Option<MemberName>,
    /// The certificate, or why it was refused.
    pub outcome: Result<SignedCertificate, String>,
}

/// A certificate that was signed.
#[derive(Debug)]
pub struct SignedCertificate {
    /// The digest of the key that it is for.
    pub key: Digest,
    /// The end of its validity.
    pub not_after: OffsetDateTime,
}

/// Lets the aggregator's own certificate wait too, where that is due and the key is sealed. Gives
/// all that waits.
///
/// # Errors
/// A file that cannot be read or written.
pub fn prepare(
    root: &Path,
    authority: &Authority,
    now: Timestamp,
) -> Result<Vec<CertificateRequest>, CaError> {
    if matches!(
        authority.custody(),
        CustodyKind::Sealed | CustodyKind::Apart
    ) {
        server_certificate::ask_if_due(root, now)?;
    }
    Requests::of(root).all()
}

/// Signs all that waits in an operator's directory. A request of somebody who is invited no longer, or no
/// longer a member, is dropped.
///
/// # Errors
/// Where the key cannot be used, or a file cannot be read or written: what was signed before that is kept.
pub fn sign_waiting(
    registry: &Registry,
    authority: &Authority,
    clock: &dyn Clock,
) -> Result<Vec<Handled>, SignError> {
    let root = registry.directory().root();
    let (requests, now) = (Requests::of(root), clock.now());
    let mut handled = Vec::new();
    let mut wanted = Vec::new();
    for request in prepare(root, authority, now)? {
        match still_wanted(&request, registry)? {
            true => wanted.push(request),
            false => {
                requests.discard(&request)?;
                handled.push(of(
                    &request,
                    Err("not a member, nor invited any more".to_owned()),
                ));
            }
        }
    }
    if wanted.is_empty() {
        return Ok(handled);
    }
    // The key is opened once for all of them.
    let signed = authority.sign(|authority| {
        let sign = |request| (request, issue(request, authority, clock));
        Ok(wanted.iter().map(sign).collect::<Vec<_>>())
    })?;
    for (request, issued) in signed {
        let outcome = match issued {
            Ok(issued) => {
                keep(root, &requests, request, &issued)?;
                Ok(SignedCertificate {
                    key: issued.key,
                    not_after: issued.not_after,
                })
            }
            // The holder of the key may be away for a moment.
            Err(error @ PkiError::Remote { .. }) => return Err(CaError::from(error).into()),
            Err(error) => {
                requests.discard(request)?;
                Err(error.to_string())
            }
        };
        handled.push(of(request, outcome));
    }
    Ok(handled)
}

pub(super) fn of(
    request: &CertificateRequest,
    outcome: Result<SignedCertificate, String>,
) -> Handled {
    Handled {
        kind: request.kind(),
        member: request.member().cloned(),
        outcome,
    }
}

pub(super) fn keep(
    root: &Path,
    requests: &Requests,
    request: &CertificateRequest,
    issued: &Issued,
) -> Result<(), CaError> {
    match request {
        CertificateRequest::Server { .. } => {
            server_certificate::keep(root, &issued.certificate)?;
            requests.discard(request)
        }
        _ => requests.answered(request, &issued.certificate),
    }
}

/// Whether the name is still invited, or a member with that key.
pub(super) fn still_wanted(
    request: &CertificateRequest,
    registry: &Registry,
) -> Result<bool, RegistryError> {
    match request {
        CertificateRequest::Server { .. } => Ok(true),
        CertificateRequest::Join { name, secret, .. } => registry.is_invited(name, secret),
        CertificateRequest::Renewal { name, shown, .. } => {
            match Peer::from_certificate(&Certificate::from_der(shown.0.clone())) {
                Ok(peer) => registry.is_member(name, &peer.key),
                Err(_) => Ok(false),
            }
        }
    }
}

/// Issues what a request asks for. Takes nothing from it that its sender has not proved.
pub(super) fn issue(
    request: &CertificateRequest,
    authority: &CertificateAuthority,
    clock: &dyn Clock,
) -> Result<Issued, PkiError> {
    let (from, rng) = (clock.valid_from(), &mut os_rng());
    match request {
        CertificateRequest::Server { request, .. } => {
            authority.issue_requested_server_certificate(&request.0, from, KEPT_DAYS, rng)
        }
        CertificateRequest::Join { name, request, .. } => {
            authority.issue_member_certificate(&request.0, name, from, MEMBER_DAYS, rng)
        }
        CertificateRequest::Renewal { name, shown, .. } => {
            let shown = Certificate::from_der(shown.0.clone());
            let refused = |reason: String| PkiError::Certificate { reason };
            // Whoever can write into the folder gets no certificate for a key of his own by that.
            check_member_certificate(&shown, authority.certificate(), clock.now())
                .map_err(|error| refused(error.to_string()))?;
            if Peer::from_certificate(&shown)?.name != *name {
                return Err(refused("it is another member's".to_owned()));
            }
            authority.renew_member_certificate(&shown, from, MEMBER_DAYS, rng)
        }
    }
}

/// Why what waits cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key or a file cannot be used.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// A record of a member that cannot be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use fedlora_protocol::crypto::sign::IdentityKey;
    use fedlora_transport::TlsKeyPair;

    use super::super::requests::Der;
    use super::*;
    use crate::config::AggregatorConfig;
    use crate::directory::Directory;
    use crate::registry::{InvitationFor, MemberRecord};

    const DAY: u64 = 86_400_000;

    #[derive(Debug)]
    struct Settable(AtomicU64);

    impl Clock for Settable {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::Relaxed))
        }
    }

    /// A directory in which `hospital-a` is a member, with the key and the certificate that it has.
    fn with_member(
        root: &Path,
        clock: &Settable,
    ) -> (Registry, Authority, TlsKeyPair, Certificate) {
        let config = AggregatorConfig::new("test", "127.0.0.1:0".parse().unwrap()).unwrap();
        Directory::init(root, &config, clock.valid_from()).unwrap();
        let (directory, opened) = Directory::open(root).unwrap();
        let (registry, authority) = (Registry::new(directory), opened.authority);
        let name: MemberName = "hospital-a".parse().unwrap();
        let what = (name.clone(), InvitationFor::NewMember);
        let expires = Timestamp(u64::MAX);
        let token = registry
            .invite(what, "x:1".into(), authority.fingerprint(), expires)
            .unwrap();
        let key = TlsKeyPair::generate().unwrap();
        let request = key.signing_request().unwrap();
        let (from, rng) = (clock.valid_from(), &mut os_rng());
        let issued = authority
            .sign(|authority| authority.issue_member_certificate(&request, &name, from, 365, rng))
            .unwrap();
        let record = MemberRecord {
            name,
            identity: IdentityKey::random(&mut os_rng()).public(),
            certificate_key: issued.key,
            serial: "00".into(),
            joined: clock.now(),
        };
        registry
            .redeem(&record, &token.secret, clock.now())
            .unwrap();
        (registry, authority, key, issued.certificate)
    }

    fn renewal(name: &str, shown: &Certificate) -> CertificateRequest {
        CertificateRequest::Renewal {
            name: name.parse().unwrap(),
            shown: Der(shown.as_der().to_vec()),
            asked: Timestamp(1),
        }
    }

    #[test]
    fn nothing_is_signed_for_keys_that_no_member_has_shown() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let clock = Settable(AtomicU64::new(20_000 * DAY));
        let (registry, authority, key, shown) = with_member(folder.path(), &clock);
        let requests = Requests::of(folder.path());
        let signed = |request: &CertificateRequest| {
            requests.put(request).unwrap();
            let handled = sign_waiting(&registry, &authority, &clock).unwrap();
            assert_eq!((handled.len(), requests.all().unwrap().len()), (1, 0));
            let [one] = <[Handled; 1]>::try_from(handled).unwrap();
            one.outcome.map(|signed| signed.key)
        };
        clock.0.store(20_200 * DAY, Ordering::Relaxed);
        assert_eq!(signed(&renewal("hospital-a", &shown)), Ok(key.digest()));

        // A certificate for the name and the key, made under another authority.
        let (from, rng) = (clock.valid_from(), &mut os_rng());
        let config = AggregatorConfig::new("other", "127.0.0.1:0".parse().unwrap()).unwrap();
        Directory::init(elsewhere.path(), &config, from).unwrap();
        let (_, other) = Directory::open(elsewhere.path()).unwrap();
        let name = "hospital-a".parse().unwrap();
        let request = key.signing_request().unwrap();
        let forged = other
            .authority
            .sign(|authority| authority.issue_member_certificate(&request, &name, from, 365, rng))
            .unwrap();
        assert!(signed(&renewal("hospital-a", &forged.certificate)).is_err());
        // Of a key that is not the member's; under another name; of bytes that are no certificate.
        let theirs = TlsKeyPair::generate().unwrap().signing_request().unwrap();
        let (from, rng) = (clock.valid_from(), &mut os_rng());
        let stray = authority
            .sign(|authority| authority.issue_member_certificate(&theirs, &name, from, 365, rng))
            .unwrap();
        assert!(signed(&renewal("hospital-a", &stray.certificate)).is_err());
        assert!(signed(&renewal("hospital-b", &shown)).is_err());
        assert!(signed(&renewal("hospital-a", &Certificate::from_der(vec![1; 9]))).is_err());
        // Nobody with that invitation.
        let join = CertificateRequest::Join {
            name: "hospital-b".parse().unwrap(),
            identity: IdentityKey::random(&mut os_rng()).public(),
            request: Der(theirs),
            secret: Digest::from_bytes([7; 32]),
            asked: Timestamp(1),
        };
        assert!(signed(&join).is_err());
        // The member's certificate has ended meanwhile.
        clock.0.store(20_400 * DAY, Ordering::Relaxed);
        assert!(signed(&renewal("hospital-a", &shown)).is_err());
    }
}
