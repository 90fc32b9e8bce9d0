//! The authority: what it issues, what it refuses, and what survives storage.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, PublicKeyData, SanType, SigningKey};

use super::*;
use crate::pki::{AuthorityCertificate, Certificate, MAX_REQUEST_BYTES, Peer, PkiError, RemoteKey};

fn issue(federation: &Federation, request: &[u8]) -> Result<Issued, PkiError> {
    federation.authority.issue_member_certificate(
        request,
        &name("hospital-a"),
        yesterday(),
        30,
        &mut fedlora_protocol::crypto::os_rng(),
    )
}

#[test]
fn the_request_gives_the_key_and_nothing_else() {
    let federation = Federation::new();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::DnsName("aggregator.fedlora".try_into().unwrap())];
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let request = params.serialize_request(&key).unwrap();
    let issued = issue(&federation, request.der()).unwrap();
    let peer = Peer::from_certificate(&issued.certificate).unwrap();
    assert_eq!(peer.name, name("hospital-a"));
    assert_eq!(peer.key, issued.key);
    let (_, parsed) = x509_parser::parse_x509_certificate(issued.certificate.as_der()).unwrap();
    assert!(!parsed.is_ca());
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    assert_eq!(parsed.raw_serial(), issued.serial);
    assert!(parsed.subject().to_string().contains("hospital-a"));
}

#[test]
fn a_request_without_proof_of_possession_is_refused() {
    let federation = Federation::new();
    let request = TlsKeyPair::generate().unwrap().signing_request().unwrap();
    assert!(issue(&federation, &request).is_ok());
    // Another's public key in place of one's own: the signature no longer fits.
    let mut forged = request.clone();
    let other = TlsKeyPair::generate().unwrap().signing_request().unwrap();
    let point = forged
        .windows(3)
        .position(|w| w == [0x42, 0x00, 0x04])
        .unwrap()
        + 2;
    let same = other
        .windows(3)
        .position(|w| w == [0x42, 0x00, 0x04])
        .unwrap()
        + 2;
    forged[point..point + 65].copy_from_slice(&other[same..same + 65]);
    assert!(matches!(
        issue(&federation, &forged),
        Err(PkiError::Request { .. })
    ));
    // Signature altered, bytes after the end, too long, empty, another kind of key.
    let mut altered = request.clone();
    *altered.last_mut().unwrap() ^= 1;
    let mut longer = request.clone();
    longer.push(0);
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let ed25519 = CertificateParams::default()
        .serialize_request(&ed25519)
        .unwrap();
    for bad in [
        altered.as_slice(),
        &longer,
        &vec![0; MAX_REQUEST_BYTES + 1],
        &[],
        ed25519.der(),
    ] {
        assert!(matches!(
            issue(&federation, bad),
            Err(PkiError::Request { .. })
        ));
    }
}

#[test]
fn an_authority_survives_storage_and_mismatched_halves_are_refused() {
    let (federation, other) = (Federation::new(), Federation::new());
    let authority = &federation.authority;
    let stored =
        CertificateAuthority::from_pem(&authority.certificate_pem(), &authority.key_pem().unwrap())
            .unwrap();
    assert_eq!(stored.fingerprint(), authority.fingerprint());
    let key = TlsKeyPair::generate().unwrap();
    let request = key.signing_request().unwrap();
    let issued = stored
        .issue_member_certificate(
            &request,
            &name("a"),
            yesterday(),
            30,
            &mut fedlora_protocol::crypto::os_rng(),
        )
        .unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(issued.certificate.as_der()).unwrap();
    let (_, root) = x509_parser::parse_x509_certificate(authority.certificate().as_der()).unwrap();
    parsed.verify_signature(Some(root.public_key())).unwrap();
    assert_eq!(parsed.issuer(), root.subject());

    assert!(matches!(
        CertificateAuthority::from_pem(
            &authority.certificate_pem(),
            &other.authority.key_pem().unwrap()
        ),
        Err(PkiError::OtherKey { .. })
    ));
    assert!(matches!(
        CertificateAuthority::from_pem(&issued.pem(), &key.to_pem()),
        Err(PkiError::Certificate { .. })
    ));
    assert!(matches!(
        Credentials::new(issued.certificate, &TlsKeyPair::generate().unwrap()),
        Err(PkiError::OtherKey { .. })
    ));
    assert!(matches!(
        CertificateAuthority::from_pem(&authority.certificate_pem(), "no key"),
        Err(PkiError::Key)
    ));
}

#[test]
fn validity_is_bounded_by_the_authoritys_own() {
    let federation = Federation::new();
    let (_, issued) = federation.member_from("a", yesterday(), 10_000);
    assert!(issued.not_after <= yesterday() + time::Duration::days(30));
    let request = TlsKeyPair::generate().unwrap().signing_request().unwrap();
    let rng = &mut fedlora_protocol::crypto::os_rng();
    let late = now() + time::Duration::days(60);
    let authority = &federation.authority;
    assert!(matches!(
        authority.issue_member_certificate(&request, &name("a"), late, 1, rng),
        Err(PkiError::AuthorityExpired { .. })
    ));
    assert!(matches!(
        authority.issue_member_certificate(&request, &name("a"), now(), 0, rng),
        Err(PkiError::Validity { days: 0 })
    ));
    for bad in ["", "a\nb", &"x".repeat(65)] {
        assert!(matches!(
            CertificateAuthority::create(bad, now(), 30, rng),
            Err(PkiError::FederationName { .. })
        ));
    }
}

#[test]
fn debug_shows_no_key() {
    let federation = Federation::new();
    let key = TlsKeyPair::generate().unwrap();
    let secret = key.to_pem();
    let line = secret.lines().nth(1).unwrap();
    for text in [
        format!("{key:?}"),
        format!("{:?}", federation.authority),
        format!("{:?}", federation.server),
    ] {
        assert!(!text.contains(line) && text.len() < 80, "{text}");
    }
    assert_eq!(
        TlsKeyPair::from_pem(&secret).unwrap().digest(),
        key.digest()
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_certificate_and_never_panic(bytes: Vec<u8>, text: String) {
        prop_assert!(Peer::from_certificate(&Certificate::from_der(bytes)).is_err());
        prop_assert!(Certificate::from_pem(&text).is_err());
        prop_assert!(TlsKeyPair::from_pem(&text).is_err());
    }

    /// The encoding has a little slack outside what is signed, but never enough for another key.
    #[test]
    fn an_altered_request_is_refused_or_means_the_same_key(at in 0..200_usize, flip in 1..=255_u8) {
        let federation = Federation::new();
        let key = TlsKeyPair::generate().unwrap();
        let mut request = key.signing_request().unwrap();
        prop_assume!(at < request.len());
        request[at] ^= flip;
        if let Ok(issued) = issue(&federation, &request) {
            prop_assert_eq!(issued.key, key.digest());
        }
    }
}

/// A key that something else holds: it signs, and may refuse.
#[derive(Debug)]
struct Token {
    key: KeyPair,
    refuses: Arc<AtomicBool>,
}

impl RemoteKey for Token {
    fn public_key(&self) -> &[u8] {
        self.key.der_bytes()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        match self.refuses.load(Ordering::Relaxed) {
            true => Err("the token is not there".to_owned()),
            false => self.key.sign(message).map_err(|error| error.to_string()),
        }
    }
}

#[test]
fn a_key_that_something_else_holds_signs_and_says_why_it_does_not() {
    let rng = &mut fedlora_protocol::crypto::os_rng();
    let refuses = Arc::new(AtomicBool::new(false));
    let token = || {
        Box::new(Token {
            key: KeyPair::from_pem(&TlsKeyPair::generate().unwrap().to_pem()).unwrap(),
            refuses: Arc::clone(&refuses),
        })
    };
    let authority =
        CertificateAuthority::create_remote(token(), "demo", yesterday(), 30, rng).unwrap();
    assert!(authority.key_pem().is_none());
    let request = TlsKeyPair::generate().unwrap().signing_request().unwrap();
    // A certificate holds whole seconds.
    let from = yesterday().replace_nanosecond(0).unwrap();
    let issue = || {
        let rng = &mut fedlora_protocol::crypto::os_rng();
        authority.issue_member_certificate(&request, &name("a"), from, 9, rng)
    };
    let issued = issue().unwrap();
    let now = fedlora_common::clock::Timestamp(now().unix_timestamp() as u64 * 1000);
    crate::check_member_certificate(&issued.certificate, authority.certificate(), now).unwrap();
    assert_eq!(Issued::read(issued.certificate.clone()).unwrap(), issued);
    authority.revocation_list(&[], 1, yesterday(), 9).unwrap();

    refuses.store(true, Ordering::Relaxed);
    for error in [
        issue().unwrap_err(),
        authority
            .revocation_list(&[], 2, yesterday(), 9)
            .unwrap_err(),
    ] {
        assert!(
            error.to_string().contains("the token is not there"),
            "{error}"
        );
    }
    // Nor is another token's key taken for the authority's.
    let certificate = AuthorityCertificate::from_pem(&authority.certificate_pem()).unwrap();
    let other = CertificateAuthority::remote(certificate, token());
    assert!(matches!(other, Err(PkiError::OtherKey { .. })));
}
