use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::crypto::sign::IdentityKey;
use fedlora_protocol::ids::MemberName;
use fedlora_transport::pki::Passphrase;
use fedlora_transport::{CertificateAuthority, TlsKeyPair};
use zeroize::Zeroizing;

use super::carried::Carried;
use super::*;
use crate::ca::passphrase::PassphraseSource;
use crate::ca::requests::{CertificateRequest, Der, Requests as Waiting};
use crate::ca::sign::SignError;
use crate::ca::{CaError, CustodyKind};
use crate::clock::{Clock, SystemClock};
use crate::config::AggregatorConfig;
use crate::directory::{Directory, Opened};
use crate::registry::{InvitationFor, MemberRecord, Registry};

/// A federation whose authority's key is in another folder.
struct Apart {
    folder: tempfile::TempDir,
    registry: Registry,
    opened: Opened,
    passphrase: Passphrase,
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::chosen(Zeroizing::new(text.to_owned())).unwrap()
}

fn name(text: &str) -> MemberName {
    text.parse().unwrap()
}

impl Apart {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("operator");
        let config = AggregatorConfig::new("test", "127.0.0.1:0".parse().unwrap()).unwrap();
        let passphrase = passphrase("correct horse battery");
        let from = SystemClock.valid_from();
        Directory::init_sealed(&root, &config, from, Some(&passphrase)).unwrap();
        let (directory, opened) = Directory::open(&root).unwrap();
        let registry = Registry::new(directory);
        detach(&registry, &opened, &passphrase, &folder.path().join("ca")).unwrap();
        let (_, opened) = Directory::open(&root).unwrap();
        Self {
            folder,
            registry,
            opened,
            passphrase,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn waiting(&self) -> Waiting {
        Waiting::of(self.registry.directory().root())
    }

    /// Invites somebody, whose request waits from now on.
    fn asks(&self, name: &MemberName, keys: (&IdentityKey, &TlsKeyPair)) {
        let what = (name.clone(), InvitationFor::NewMember);
        let authority = self.opened.authority.fingerprint();
        let expires = Timestamp(u64::MAX);
        let token = self.registry.invite(what, "x:1".into(), authority, expires);
        let secret = token.unwrap().secret.digest();
        self.waiting().put(&join(name, keys, secret)).unwrap();
    }

    fn export(&self) -> PathBuf {
        let path = self.path("requests");
        export(&self.registry, &self.opened, SystemClock.now(), &path).unwrap();
        path
    }

    /// Signs what is in the file; gives the file that is carried back.
    fn sign(&self, requests: &Path, allowed: &Allowed) -> Result<PathBuf, CaError> {
        let mut folder = AuthorityFolder::open(&self.path("ca"))?;
        let requests = folder.requests(requests)?;
        folder.take_removals(&requests, SystemClock.now());
        let judged = folder.judge(&requests, allowed);
        let source = PassphraseSource::Given(self.passphrase.clone());
        let (certificates, _) = folder.sign(&judged, &source, &SystemClock)?;
        let path = self.path("certificates");
        certificates.write(&path)?;
        Ok(path)
    }

    fn take(&self, from: &Path) -> Vec<Result<Digest, String>> {
        let taken = take(&self.registry, &self.opened, SystemClock.now(), from).unwrap();
        let outcome = |one: crate::ca::sign::Handled| one.outcome.map(|signed| signed.key);
        taken.into_iter().map(outcome).collect()
    }
}

fn join(
    name: &MemberName,
    (identity, key): (&IdentityKey, &TlsKeyPair),
    secret: Digest,
) -> CertificateRequest {
    CertificateRequest::Join {
        name: name.clone(),
        identity: identity.public(),
        request: Der(key.signing_request().unwrap()),
        secret,
        asked: Timestamp(1),
    }
}

fn keys() -> (IdentityKey, TlsKeyPair) {
    let identity = IdentityKey::random(&mut os_rng());
    (identity, TlsKeyPair::generate().unwrap())
}

#[test]
fn what_waits_is_carried_to_the_key_signed_and_carried_back() {
    let apart = Apart::new();
    assert_eq!(apart.opened.authority.custody(), CustodyKind::Apart);
    assert!(!apart.path("operator/ca.key").exists());
    let refused = apart.opened.authority.sign(|_| Ok(()));
    assert!(matches!(refused, Err(CaError::Apart)));

    let (identity, key) = keys();
    apart.asks(&name("hospital-a"), (&identity, &key));
    let requests = apart.export();
    let signed = apart.sign(&requests, &Allowed::default()).unwrap();
    // The aggregator's own, and the member's.
    let taken = apart.take(&signed);
    assert_eq!(taken.len(), 2);
    assert_eq!(taken[1], Ok(key.digest()));
    assert!(apart.path("operator/server.pem").exists());
    assert!(
        apart
            .path("operator/ca-answers/join-hospital-a.pem")
            .exists()
    );
    assert!(apart.waiting().all().unwrap().is_empty());
    // Once more there is nothing to take.
    assert_eq!(apart.take(&signed), []);
    // Another folder is not overwritten, and a key that is gone not taken twice.
    let again = detach(
        &apart.registry,
        &apart.opened,
        &apart.passphrase,
        &apart.path("ca"),
    );
    assert!(again.is_err());
}

#[test]
fn a_request_that_was_changed_or_is_anothers_is_not_signed() {
    let (apart, other) = (Apart::new(), Apart::new());
    let (identity, key) = keys();
    apart.asks(&name("hospital-a"), (&identity, &key));
    let requests = apart.export();
    let text = fs::read_to_string(&requests).unwrap();
    let changed = text.replace("hospital-a", "hospital-b");
    assert_ne!(changed, text);
    fs::write(&requests, changed).unwrap();
    let error = apart.sign(&requests, &Allowed::default()).unwrap_err();
    assert!(matches!(
        error,
        CaError::Carried(CarriedError::Signature { .. })
    ));
    fs::write(&requests, "{}").unwrap();
    let error = apart.sign(&requests, &Allowed::default()).unwrap_err();
    assert!(matches!(
        error,
        CaError::Carried(CarriedError::Malformed { .. })
    ));
    // Another federation's, signed by its own aggregator.
    let foreign = other.export();
    assert!(apart.sign(&foreign, &Allowed::default()).is_err());
    // Another passphrase.
    let requests = apart.export();
    let wrong = Apart {
        passphrase: passphrase("staple wrong horse"),
        ..apart
    };
    let error = wrong.sign(&requests, &Allowed::default()).unwrap_err();
    assert!(matches!(error, CaError::WrongPassphrase { .. }));
}

#[test]
fn no_key_gets_two_names_and_no_name_two_keys_unless_that_is_said() {
    let apart = Apart::new();
    let (identity, key) = keys();
    apart.asks(&name("hospital-a"), (&identity, &key));
    let signed = apart.sign(&apart.export(), &Allowed::default()).unwrap();
    apart.take(&signed);
    let doubt = |allowed: &Allowed| match apart.sign(&apart.export(), allowed) {
        Ok(_) => None,
        Err(CaError::Carried(CarriedError::Refused { doubt, .. })) => Some(doubt),
        Err(error) => panic!("{error}"),
    };
    // The same keys under another name; the same identity key alone.
    let (_, fresh) = keys();
    for keys in [(&identity, &key), (&identity, &fresh)] {
        apart.asks(&name("hospital-b"), keys);
        let found = doubt(&Allowed::default());
        let name = "hospital-a".to_owned();
        assert_eq!(found, Some(Doubt::OtherName { name }));
    }
    // Two in one file.
    let (one, two) = (keys(), name("hospital-c"));
    apart.asks(&name("hospital-b"), (&one.0, &one.1));
    apart.asks(&two, (&one.0, &one.1));
    let name_of = "hospital-b".to_owned();
    assert_eq!(
        doubt(&Allowed::default()),
        Some(Doubt::OtherName { name: name_of })
    );
    // Nothing was signed of that file; without the one the other is.
    let allowed = Allowed {
        left_out: BTreeSet::from([two]),
        ..Allowed::default()
    };
    assert_eq!(doubt(&allowed), None);
    // Other keys for a name that has some.
    let (identity, key) = keys();
    apart.asks(&name("hospital-a"), (&identity, &key));
    let found = doubt(&allowed);
    assert!(matches!(found, Some(Doubt::OtherKeys { .. })), "{found:?}");
    let allowed = Allowed {
        other_keys: BTreeSet::from([name("hospital-a")]),
        ..allowed
    };
    assert_eq!(doubt(&allowed), None);
}

/// Whoever can write on what is carried back gets nothing into the directory by that.
#[test]
fn a_certificate_is_taken_only_for_the_name_and_key_that_wait() {
    let apart = Apart::new();
    let (identity, key) = keys();
    apart.asks(&name("hospital-a"), (&identity, &key));
    let signed = apart.sign(&apart.export(), &Allowed::default()).unwrap();
    let right = Certificates::read(&signed).unwrap();
    let with = |edit: &dyn Fn(&mut Vec<Carried>)| {
        let mut file = right.clone();
        edit(&mut file.certificates);
        file.write(&signed).unwrap();
        apart.take(&signed)
    };
    // The server's in the member's place, and one of another authority.
    let taken = with(&|all| {
        let server = all[0].certificate.clone();
        all.remove(0);
        all[0].certificate = server;
    });
    assert!(matches!(&taken[..], [Err(_)]), "{taken:?}");
    let from = SystemClock.valid_from();
    let other = CertificateAuthority::create("test", from, 30, &mut os_rng()).unwrap();
    let request = key.signing_request().unwrap();
    let forged = other
        .issue_member_certificate(&request, &name("hospital-a"), from, 30, &mut os_rng())
        .unwrap();
    let taken = with(&|all| {
        all.remove(0);
        all[0].certificate = forged.pem();
    });
    assert!(matches!(&taken[..], [Err(_)]), "{taken:?}");
    // The member's own, in answer to a request that nobody made.
    let taken = with(&|all| {
        all.remove(0);
        all[0].request = "join-hospital-b".to_owned();
    });
    assert_eq!(taken, []);
    // A file of another authority's.
    let mut file = right.clone();
    file.authority = "00".repeat(32);
    file.write(&signed).unwrap();
    let error = take(&apart.registry, &apart.opened, SystemClock.now(), &signed).unwrap_err();
    assert!(matches!(
        error,
        SignError::Ca(CaError::Carried(CarriedError::OtherAuthority { .. }))
    ));
    // And the right one is taken still.
    right.write(&signed).unwrap();
    assert_eq!(apart.take(&signed)[1], Ok(key.digest()));
}

/// A member whose certificate the authority has signed, and the request to renew it.
fn joined(apart: &Apart, member: &MemberName) -> (TlsKeyPair, CertificateRequest) {
    let (identity, key) = keys();
    apart.asks(member, (&identity, &key));
    let allowed = Allowed {
        other_keys: BTreeSet::from([member.clone()]),
        ..Allowed::default()
    };
    let signed = apart.sign(&apart.export(), &allowed).unwrap();
    let carried = Certificates::read(&signed).unwrap().certificates;
    apart.take(&signed);
    let asked = format!("join-{member}");
    let own = carried.iter().find(|one| one.request == asked).unwrap();
    let shown = fedlora_transport::Certificate::from_pem(&own.certificate).unwrap();
    let record = MemberRecord {
        name: member.clone(),
        identity: identity.public(),
        certificate_key: key.digest(),
        serial: key.digest().to_string()[..8].to_owned(),
        joined: Timestamp(1),
    };
    let folder = apart.registry.directory().members();
    let path = folder.join(format!("{member}.json"));
    fs::write(path, serde_json::to_vec(&record).unwrap()).unwrap();
    let renewal = CertificateRequest::Renewal {
        name: member.clone(),
        shown: Der(shown.as_der().to_vec()),
        asked: Timestamp(1),
    };
    (key, renewal)
}

fn refusal(outcome: Result<PathBuf, CaError>) -> Doubt {
    match outcome {
        Err(CaError::Carried(CarriedError::Refused { doubt, .. })) => doubt,
        other => panic!("it is not refused: {other:?}"),
    }
}

/// Whoever has taken over the aggregator's host gets a removed member no other certificate.
#[test]
fn a_removal_is_carried_to_the_key_which_signs_nothing_for_those_keys_any_more() {
    let apart = Apart::new();
    let (member, other) = (name("hospital-a"), name("hospital-b"));
    let (key, renewal) = joined(&apart, &member);
    let (_, others) = joined(&apart, &other);
    // Signed, and then removed, before the certificate is back: it is not taken.
    apart.waiting().put(&renewal).unwrap();
    let signed = apart.sign(&apart.export(), &Allowed::default()).unwrap();
    apart.registry.remove(&member).unwrap();
    assert_eq!(apart.take(&signed), []);
    apart.waiting().put(&renewal).unwrap();
    let taken = apart.take(&signed);
    assert!(matches!(&taken[..], [Err(_)]), "{taken:?}");

    // The next file tells the authority, whatever else it is for.
    apart.waiting().put(&others).unwrap();
    let carried = apart.export();
    let mut folder = AuthorityFolder::open(&apart.path("ca")).unwrap();
    let requests = folder.requests(&carried).unwrap();
    assert_eq!(requests.requests.len(), 1);
    let removed = RemovedMember {
        member: member.clone(),
        key: key.digest(),
    };
    assert_eq!(folder.take_removals(&requests, Timestamp(1)), [removed]);
    apart.sign(&carried, &Allowed::default()).unwrap();
    let mut folder = AuthorityFolder::open(&apart.path("ca")).unwrap();
    assert_eq!(folder.take_removals(&requests, Timestamp(2)), []);

    // From then on a file that says otherwise gets nothing, signed by the aggregator as it may be.
    let forged = |request: &CertificateRequest| {
        let file = Requests {
            authority: apart.opened.authority.fingerprint().to_string(),
            exported: Timestamp(1),
            requests: vec![request.clone()],
            removed: Vec::new(),
        };
        let path = apart.path("forged");
        file.write(&path, &apart.opened.identity).unwrap();
        apart.sign(&path, &Allowed::default())
    };
    assert_eq!(refusal(forged(&renewal)), Doubt::Revoked);
    let stranger = IdentityKey::random(&mut os_rng());
    let again = join(&member, (&stranger, &key), Digest::from_bytes([1; 32]));
    assert_eq!(refusal(forged(&again)), Doubt::Revoked);
    assert!(forged(&others).is_ok());
    // The name can be given again, to other keys.
    let (fresh, renewal) = joined(&apart, &member);
    apart.waiting().put(&renewal).unwrap();
    let signed = apart.sign(&apart.export(), &Allowed::default()).unwrap();
    assert_eq!(apart.take(&signed), [Ok(fresh.digest())]);
}

#[test]
fn whoever_has_the_key_revokes_a_member_without_the_aggregator() {
    let apart = Apart::new();
    let member = name("hospital-a");
    let (key, renewal) = joined(&apart, &member);
    let mut folder = AuthorityFolder::open(&apart.path("ca")).unwrap();
    let unknown = folder.revoke(&name("hospital-b"), Timestamp(1));
    assert!(matches!(unknown, Err(CarriedError::NeverIssued { .. })));
    let revoked = folder.revoke(&member, Timestamp(1)).unwrap();
    assert_eq!(revoked.first().map(|one| one.key), Some(key.digest()));
    assert_eq!(folder.revoke(&member, Timestamp(2)).unwrap().len(), 0);
    folder.keep().unwrap();
    apart.waiting().put(&renewal).unwrap();
    let refused = apart.sign(&apart.export(), &Allowed::default());
    assert_eq!(refusal(refused), Doubt::Revoked);
}

/// The authority's folder notes what it issues from then on; whoever was removed before is carried there.
#[test]
fn keys_that_were_removed_before_the_key_was_apart_are_revoked_too() {
    let apart = Apart::new();
    let member = name("hospital-a");
    let (_, renewal) = joined(&apart, &member);
    apart.registry.remove(&member).unwrap();
    fs::write(apart.path("ca/issued.json"), "[]").unwrap();
    let mut folder = AuthorityFolder::open(&apart.path("ca")).unwrap();
    let requests = folder.requests(&apart.export()).unwrap();
    assert_eq!(folder.take_removals(&requests, Timestamp(1)).len(), 1);
    folder.keep().unwrap();
    let mut asked = requests.clone();
    asked.requests = vec![renewal];
    let folder = AuthorityFolder::open(&apart.path("ca")).unwrap();
    let judged = folder.judge(&asked, &Allowed::default());
    assert_eq!(judged[0].doubt, Some(Doubt::Revoked));
}

#[test]
fn a_renewal_is_signed_for_the_key_that_was_issued_last() {
    let apart = Apart::new();
    let member = name("hospital-a");
    let (key, renewal) = joined(&apart, &member);
    apart.waiting().put(&renewal).unwrap();
    let signed = apart.sign(&apart.export(), &Allowed::default()).unwrap();
    assert_eq!(apart.take(&signed), [Ok(key.digest())]);
    // The folder of a federation that has never seen the member signs none for it.
    let issued = apart.path("ca/issued.json");
    fs::write(issued, "[]").unwrap();
    apart.waiting().put(&renewal).unwrap();
    let error = apart
        .sign(&apart.export(), &Allowed::default())
        .unwrap_err();
    assert!(matches!(
        error,
        CaError::Carried(CarriedError::Refused {
            doubt: Doubt::Unknown,
            ..
        })
    ));
}
