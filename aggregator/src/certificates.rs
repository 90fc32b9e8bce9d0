//! How long certificates are valid, and when others take their place: the aggregator's own while it
//! serves, and members' when they connect.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fedlora_common::clock::Timestamp;
use fedlora_protocol::crypto::os_rng;
use fedlora_transport::pki::Issued;
use fedlora_transport::{Certificate, Credentials, Peer, TlsKeyPair, TransportError};
use tracing::{info, warn};

use crate::ca::CaError;
use crate::ca::requests::{Requests, Waiting, end_of};
use crate::ca::server_certificate::{self, KEPT_DAYS, Kept};
use crate::clock::Clock;
use crate::directory::{Directory, Opened};

/// How long a member's certificate is valid. One that connects in the second half gets another.
pub(crate) const MEMBER_DAYS: u32 = 365;
/// How long the server's certificate is valid. It is replaced after half of that.
const SERVER_DAYS: u32 = 30;

/// How often a server looks whether its certificate needs another.
pub(crate) const RENEWAL_TICK: Duration = Duration::from_secs(10);

/// Shows another certificate on an endpoint where it is time, as `reconfigure` does it. Where that
/// fails, the one in use stays, and it is tried again.
pub(crate) fn renew(
    own: &mut OwnCertificate,
    reconfigure: impl FnOnce(&Credentials, &Certificate) -> Result<(), TransportError>,
) {
    let before = (own.issued, own.due, own.end);
    let renewed = match own.renewed() {
        Ok(None) => return,
        Ok(Some(credentials)) => reconfigure(&credentials, own.authority()),
        Err(error) => {
            warn!(%error, "the server's certificate cannot be renewed");
            return;
        }
    };
    match renewed {
        Ok(()) => info!("the server shows a new certificate"),
        Err(error) => {
            (own.issued, own.due, own.end) = before;
            warn!(%error, "the server's certificate cannot be shown");
        }
    }
}

/// The authority, and the time by which it issues.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    requests: Requests,
    root: PathBuf,
    opened: Arc<Opened>,
    clock: Arc<dyn Clock>,
}

/// The certificate that a server shows, and when it needs another.
#[derive(Debug)]
pub(crate) struct OwnCertificate {
    certificates: Certificates,
    issued: Timestamp,
    due: Timestamp,
    end: Timestamp,
}

fn half_of(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 86_400 / 2)
}

impl Certificates {
    pub(crate) fn new(directory: &Directory, opened: Arc<Opened>, clock: Arc<dyn Clock>) -> Self {
        Self {
            requests: Requests::of(directory.root()),
            root: directory.root().to_owned(),
            opened,
            clock,
        }
    }

    /// The authority's certificate.
    pub(crate) fn authority(&self) -> &Certificate {
        self.opened.authority.certificate()
    }

    /// A new key and certificate for a server; those that are kept, where the authority's key is not at
    /// hand.
    ///
    /// # Errors
    /// [`CaError::NoServerCertificate`] where none is kept that is valid; an authority whose own
    /// certificate has ended, or a failure of the cryptographic library.
    pub(crate) fn for_server(&self) -> Result<(Credentials, OwnCertificate), CaError> {
        let mut own = OwnCertificate {
            certificates: self.clone(),
            issued: Timestamp::default(),
            due: Timestamp::default(),
            end: Timestamp::default(),
        };
        match own.issue()? {
            Some(credentials) => Ok((credentials, own)),
            None => Err(CaError::NoServerCertificate),
        }
    }

    /// Another certificate for a member whose own, as shown in its verified handshake, is in its second
    /// half. Where the authority's key is not at hand, one that was signed meanwhile; there is none until
    /// then.
    ///
    /// # Errors
    /// As [`for_server`](Self::for_server); a request that cannot be kept.
    pub(crate) fn renewed(
        &self,
        peer: &Peer,
        shown: &Certificate,
    ) -> Result<Option<Issued>, CaError> {
        let now = self.clock.now();
        if now.until(peer.not_after) > half_of(MEMBER_DAYS) {
            // It has what was signed for it.
            self.requests.has(peer)?;
            return Ok(None);
        }
        let from = self.clock.valid_from();
        let issued = self.opened.authority.sign(|authority| {
            authority.renew_member_certificate(shown, from, MEMBER_DAYS, &mut os_rng())
        });
        let issued = match issued {
            Err(error) if error.is_waiting() => match self.requests.renewing(peer, shown, now)? {
                Waiting::Signed(issued) => issued,
                Waiting::Waits | Waiting::OtherKeys => return Ok(None),
            },
            issued => issued?,
        };
        // The authority's own end may leave no more time than there was.
        Ok((end_of(&issued) > peer.not_after).then_some(issued))
    }
}

impl OwnCertificate {
    /// A new key and certificate, where the ones in use are in their second half.
    ///
    /// # Errors
    /// As [`Certificates::for_server`].
    pub(crate) fn renewed(&mut self) -> Result<Option<Credentials>, CaError> {
        // A clock that was ahead, and was set back: nobody would take the certificate for years.
        match (self.issued..self.due).contains(&self.certificates.clock.now()) {
            true => Ok(None),
            false => self.issue(),
        }
    }

    /// The authority's certificate.
    pub(crate) fn authority(&self) -> &Certificate {
        self.certificates.authority()
    }

    /// When the certificate in use ends.
    pub(crate) fn end(&self) -> Timestamp {
        self.end
    }

    fn issue(&mut self) -> Result<Option<Credentials>, CaError> {
        let Certificates { opened, clock, .. } = &self.certificates;
        let key = TlsKeyPair::generate()?;
        let from = clock.valid_from();
        let issued = opened.authority.sign(|authority| {
            authority.issue_server_certificate(&key, from, SERVER_DAYS, &mut os_rng())
        });
        let issued = match issued {
            Err(error) if error.is_waiting() => return self.take_kept(),
            issued => issued?,
        };
        self.issued = clock.now();
        self.due = self.issued.after(half_of(SERVER_DAYS));
        self.end = end_of(&issued);
        Ok(Some(Credentials::new(issued.certificate, &key)?))
    }

    /// The certificate that is kept, where it is a later one than the one in use and still valid. Asks
    /// for another where that is due.
    fn take_kept(&mut self) -> Result<Option<Credentials>, CaError> {
        let Certificates { clock, root, .. } = &self.certificates;
        let now = clock.now();
        server_certificate::ask_if_due(root, now)?;
        let kept = Kept::read(root)?;
        let Some(kept) = kept.filter(|kept| kept.end > self.end.max(now)) else {
            return Ok(None);
        };
        let whole = half_of(KEPT_DAYS) * 2;
        self.issued = Timestamp(kept.end.0.saturating_sub(whole.as_millis() as u64));
        self.due = kept.due();
        self.end = kept.end;
        Ok(Some(kept.credentials))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use fedlora_protocol::ids::MemberName;
    use fedlora_transport::pki::Passphrase;
    use zeroize::Zeroizing;

    use super::*;
    use crate::ca::passphrase::PassphraseSource;
    use crate::ca::sign;
    use crate::config::AggregatorConfig;
    use crate::registry::Registry;

    const DAY: u64 = 86_400_000;

    #[derive(Debug, Default)]
    struct Settable(AtomicU64);

    impl Clock for Settable {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::Relaxed))
        }
    }

    fn certificates(root: &std::path::Path) -> (Certificates, Arc<Settable>) {
        certificates_sealed(root, None)
    }

    fn certificates_sealed(
        root: &std::path::Path,
        passphrase: Option<&Passphrase>,
    ) -> (Certificates, Arc<Settable>) {
        let clock = Arc::new(Settable::default());
        clock.0.store(20_000 * DAY, Ordering::Relaxed);
        let config = AggregatorConfig::new("test", "127.0.0.1:4433".parse().unwrap()).unwrap();
        Directory::init_sealed(root, &config, clock.valid_from(), passphrase).unwrap();
        let (directory, opened) = Directory::open(root).unwrap();
        let certificates = Certificates::new(&directory, Arc::new(opened), clock.clone());
        (certificates, clock)
    }

    #[test]
    fn the_servers_certificate_is_replaced_in_its_second_half() {
        let folder = tempfile::tempdir().unwrap();
        let (certificates, clock) = certificates(folder.path());
        let (_, mut own) = certificates.for_server().unwrap();
        let at = |days: u64| clock.0.store((20_000 + days) * DAY, Ordering::Relaxed);
        at(14);
        assert!(own.renewed().unwrap().is_none());
        at(15);
        assert!(own.renewed().unwrap().is_some());
        assert!(own.renewed().unwrap().is_none());
        // The clock was ahead.
        at(14);
        assert!(own.renewed().unwrap().is_some());
        at(28);
        assert!(own.renewed().unwrap().is_none());
        // For years.
        for days in (30..3000).step_by(15) {
            at(days);
            assert!(own.renewed().unwrap().is_some());
        }
    }

    #[test]
    fn without_the_passphrase_the_server_shows_the_certificate_that_was_signed_last() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let text = Zeroizing::new("correct horse battery".to_owned());
        let passphrase = Passphrase::chosen(text).unwrap();
        let (certificates, clock) = certificates_sealed(root, Some(&passphrase));
        let waits = || certificates.requests.all().unwrap().len();
        let error = certificates.for_server().unwrap_err();
        assert!(matches!(error, CaError::NoServerCertificate), "{error}");
        assert_eq!(waits(), 1);
        let sign = || {
            let (directory, opened) = Directory::open(root).unwrap();
            let source = PassphraseSource::Given(passphrase.clone());
            let opened = opened.with_passphrase(Some(&source)).unwrap();
            let registry = Registry::new(directory);
            let handled = sign::sign_waiting(&registry, &opened.authority, &*clock);
            handled.unwrap().len()
        };
        let at = |days: u64| clock.0.store((20_000 + days) * DAY, Ordering::Relaxed);
        assert_eq!((sign(), sign(), waits()), (1, 0, 0));
        let (_, mut own) = certificates.for_server().unwrap();
        at(44);
        assert!(own.renewed().unwrap().is_none());
        assert_eq!((waits(), sign()), (0, 0));
        // In its second half it waits for another, and goes on with this one.
        at(45);
        assert!(own.renewed().unwrap().is_none());
        assert_eq!(waits(), 1);
        let end = own.end();
        assert_eq!(sign(), 1);
        assert!(own.renewed().unwrap().is_some());
        assert!(own.end() > end && waits() == 0);
        assert!(own.renewed().unwrap().is_none());
        // One that has ended is not shown.
        at(45 + 90);
        let error = certificates.for_server().unwrap_err();
        assert!(matches!(error, CaError::NoServerCertificate), "{error}");
    }

    #[test]
    fn a_member_gets_another_certificate_for_its_key_in_the_second_half() {
        let folder = tempfile::tempdir().unwrap();
        let (certificates, clock) = certificates(folder.path());
        let (key, name): (_, MemberName) = (TlsKeyPair::generate().unwrap(), "a".parse().unwrap());
        let request = key.signing_request().unwrap();
        let mut shown = certificates
            .opened
            .authority
            .sign(|authority| {
                let from = clock.valid_from();
                authority.issue_member_certificate(&request, &name, from, 365, &mut os_rng())
            })
            .unwrap()
            .certificate;
        let (mut ends, mut renewals) = (Timestamp::default(), 0);
        for day in 0..1500 {
            clock.0.store((20_000 + day) * DAY, Ordering::Relaxed);
            let peer = Peer::from_certificate(&shown).unwrap();
            assert!(peer.not_after > clock.now(), "out on day {day}");
            if let Some(issued) = certificates.renewed(&peer, &shown).unwrap() {
                let renewed = Peer::from_certificate(&issued.certificate).unwrap();
                assert_eq!((&renewed.name, renewed.key), (&name, key.digest()));
                assert!(renewed.not_after > ends);
                ends = renewed.not_after;
                renewals += 1;
                shown = issued.certificate;
                fedlora_transport::check_member_certificate(
                    &shown,
                    certificates.authority(),
                    clock.now(),
                )
                .unwrap();
            }
        }
        assert_eq!(renewals, 8, "twice a year");
        // Not one of another authority, nor once it has ended.
        let other = tempfile::tempdir().unwrap();
        let (others, _) = self::certificates(other.path());
        let check = |authority: &Certificate, now| {
            fedlora_transport::check_member_certificate(&shown, authority, now)
        };
        assert!(check(others.authority(), clock.now()).is_err());
        let late = clock.now().after(Duration::from_secs(86_400 * 400));
        assert!(check(certificates.authority(), late).is_err());
    }
}
