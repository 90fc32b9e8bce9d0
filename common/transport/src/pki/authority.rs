//! The authority: it is made once, and issues every certificate. Its certificate is stored as PEM; its
//! key is too, or is sealed, or something else holds it.

use std::fmt;

use rand::CryptoRng;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams,
    CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls_pki_types::CertificateSigningRequestDer;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509CertificationRequest};
use zeroize::Zeroizing;

use super::authority_key::{AuthorityKey, RemoteKey};
use super::certificate::{Certificate, RevocationList, parse_certificate};
use super::error::PkiError;
use super::identity::{CaFingerprint, MEMBER_SUFFIX, Peer, SERVER_NAME};
use super::keys::{TlsKeyPair, key_digest};
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::MemberName;

/// The longest signing request that is parsed, in bytes. One for a P-256 key takes about 250.
pub const MAX_REQUEST_BYTES: usize = 4096;

/// What the authority issued, with what the operator keeps of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, DER.
    pub certificate: Certificate,
    /// Its serial number, big-endian: how a revocation names it.
    pub serial: [u8; 16],
    /// Digest of the public key it was issued for.
    pub key: Digest,
    /// The end of its validity.
    pub not_after: OffsetDateTime,
}

impl Issued {
    /// What a certificate of ours, issued before, says of itself. It is not verified here.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] for one that no authority of ours has issued.
    pub fn read(certificate: Certificate) -> Result<Self, PkiError> {
        let (serial, key, not_after) = {
            let parsed = parse_certificate(certificate.as_der())?;
            (
                <[u8; 16]>::try_from(parsed.raw_serial()).ok(),
                key_digest(parsed.public_key().raw),
                parsed.validity().not_after.to_datetime(),
            )
        };
        Ok(Self {
            serial: serial.ok_or_else(|| PkiError::certificate("its serial number is not ours"))?,
            certificate,
            key,
            not_after,
        })
    }

    /// The certificate as PEM.
    pub fn pem(&self) -> String {
        self.certificate.to_pem()
    }
}

/// A certificate to be listed as revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// The certificate's serial number.
    pub serial: [u8; 16],
    /// When the operator revoked it.
    pub at: OffsetDateTime,
}

/// An authority's certificate: public, the root that members pin.
#[derive(Debug, Clone)]
pub struct AuthorityCertificate {
    certificate: Certificate,
    /// Digest of the public key.
    key: Digest,
    not_after: OffsetDateTime,
}

impl AuthorityCertificate {
    /// Reads an authority's certificate.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] where it is none, or not an authority's.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        let certificate = Certificate::from_pem(pem)?;
        let (key, not_after, is_ca) = {
            let parsed = parse_certificate(certificate.as_der())?;
            (
                key_digest(parsed.public_key().raw),
                parsed.validity().not_after.to_datetime(),
                parsed.is_ca(),
            )
        };
        match is_ca {
            true => Ok(Self {
                certificate,
                key,
                not_after,
            }),
            false => Err(PkiError::certificate("not an authority's certificate")),
        }
    }

    /// The certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The fingerprint that join tokens carry.
    pub fn fingerprint(&self) -> CaFingerprint {
        CaFingerprint::of(&self.certificate)
    }

    /// The end of its validity.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }
}

/// The federation's certificate authority, able to sign. It is the only root that members and
/// aggregator trust.
pub struct CertificateAuthority {
    issuer: Issuer<'static, AuthorityKey>,
    certificate: Certificate,
    not_after: OffsetDateTime,
}

impl CertificateAuthority {
    /// Makes an authority valid for `days` from `not_before`.
    ///
    /// # Errors
    /// [`PkiError::FederationName`] unless the name is 1 to 64 printable characters,
    /// [`PkiError::Validity`] for no days or too many, [`PkiError::Generation`].
    pub fn create(
        federation: &str,
        not_before: OffsetDateTime,
        days: u32,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, PkiError> {
        Self::create_with(AuthorityKey::generate()?, federation, not_before, days, rng)
    }

    /// Makes an authority of a key that something else holds, such as a hardware token; see
    /// [`create`](Self::create).
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_remote(
        key: Box<dyn RemoteKey>,
        federation: &str,
        not_before: OffsetDateTime,
        days: u32,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, PkiError> {
        let key = AuthorityKey::remote(key);
        Self::create_with(key, federation, not_before, days, rng)
    }

    fn create_with(
        key: AuthorityKey,
        federation: &str,
        not_before: OffsetDateTime,
        days: u32,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, PkiError> {
        let length = federation.chars().count();
        if !(1..=64).contains(&length) || federation.chars().any(char::is_control) {
            return Err(PkiError::FederationName { length });
        }
        let not_after = end_of(not_before, days)?;
        let mut params = CertificateParams::default();
        params.not_before = not_before;
        params.not_after = not_after;
        params.serial_number = Some(SerialNumber::from_slice(&random_serial(rng)));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("fedlora {federation}"));
        // It issues end-entity certificates and nothing below them.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(|error| key.error(error))?;
        Ok(Self {
            certificate: Certificate::from_der(certificate.der().to_vec()),
            issuer: Issuer::new(params, key),
            not_after,
        })
    }

    /// Reads an authority that was stored as two PEM texts.
    ///
    /// # Errors
    /// [`PkiError::Key`], [`PkiError::Certificate`], or [`PkiError::OtherKey`] when the two do not
    /// belong together.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        Self::with_key_pem(AuthorityCertificate::from_pem(certificate_pem)?, key_pem)
    }

    /// The same of a certificate that was read before.
    ///
    /// # Errors
    /// [`PkiError::Key`] or [`PkiError::OtherKey`].
    pub fn with_key_pem(
        certificate: AuthorityCertificate,
        key_pem: &str,
    ) -> Result<Self, PkiError> {
        Self::with_key(certificate, AuthorityKey::from_pem(key_pem)?)
    }

    /// An authority whose key something else holds, such as a hardware token.
    ///
    /// # Errors
    /// [`PkiError::OtherKey`] when the two do not belong together.
    pub fn remote(
        certificate: AuthorityCertificate,
        key: Box<dyn RemoteKey>,
    ) -> Result<Self, PkiError> {
        Self::with_key(certificate, AuthorityKey::remote(key))
    }

    fn with_key(authority: AuthorityCertificate, key: AuthorityKey) -> Result<Self, PkiError> {
        if authority.key != key.digest() {
            return Err(PkiError::OtherKey {
                certificate: authority.key,
                key: key.digest(),
            });
        }
        let AuthorityCertificate {
            certificate,
            not_after,
            ..
        } = authority;
        let issuer = Issuer::from_ca_cert_der(certificate.der(), key)
            .map_err(|error| PkiError::certificate(error.to_string()))?;
        Ok(Self {
            issuer,
            certificate,
            not_after,
        })
    }

    /// The authority's certificate: public, what members pin.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The authority's certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        self.certificate.to_pem()
    }

    /// The authority's private key as PKCS #8 PEM, for a file that only its owner may read; nothing
    /// where something else holds it.
    pub fn key_pem(&self) -> Option<Zeroizing<String>> {
        self.issuer.key().to_pem()
    }

    /// The fingerprint that join tokens carry.
    pub fn fingerprint(&self) -> CaFingerprint {
        CaFingerprint::of(&self.certificate)
    }

    /// Issues the aggregator's own certificate: [`SERVER_NAME`], usable by a server only.
    ///
    /// # Errors
    /// [`PkiError::Validity`] or [`PkiError::Generation`].
    pub fn issue_server_certificate(
        &self,
        key: &TlsKeyPair,
        not_before: OffsetDateTime,
        days: u32,
        rng: &mut impl CryptoRng,
    ) -> Result<Issued, PkiError> {
        self.issue(
            &key.0,
            SERVER_NAME,
            ExtendedKeyUsagePurpose::ServerAuth,
            not_before,
            days,
            rng,
        )
    }

    /// The same for the public key in `request` (PKCS #10, DER).
    ///
    /// # Errors
    /// [`PkiError::Request`] as [`issue_member_certificate`](Self::issue_member_certificate);
    /// [`PkiError::Validity`] or [`PkiError::Generation`].
    pub fn issue_requested_server_certificate(
        &self,
        request: &[u8],
        not_before: OffsetDateTime,
        days: u32,
        rng: &mut impl CryptoRng,
    ) -> Result<Issued, PkiError> {
        self.issue(
            &verified_request_key(request)?,
            SERVER_NAME,
            ExtendedKeyUsagePurpose::ServerAuth,
            not_before,
            days,
            rng,
        )
    }

    /// Issues a member's certificate: `NAME.member.fedlora`, usable by a client only, for the
    /// public key in `request` (PKCS #10, DER). Whatever subject, names and usages the request
    /// asks for are ignored.
    ///
    /// # Errors
    /// [`PkiError::Request`] when it is malformed, not for a P-256 key, or not signed by that key;
    /// [`PkiError::Validity`] or [`PkiError::Generation`].
    pub fn issue_member_certificate(
        &self,
        request: &[u8],
        member: &MemberName,
        not_before: OffsetDateTime,
        days: u32,
        rng: &mut impl CryptoRng,
    ) -> Result<Issued, PkiError> {
        self.issue(
            &verified_request_key(request)?,
            &format!("{member}{MEMBER_SUFFIX}"),
            ExtendedKeyUsagePurpose::ClientAuth,
            not_before,
            days,
            rng,
        )
    }

    /// Issues another certificate to a member, for the name and key of the one that it shows. That one
    /// must have been verified.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] unless it is a member's, for a P-256 key; [`PkiError::Validity`] or
    /// [`PkiError::Generation`].
    pub fn renew_member_certificate(
        &self,
        shown: &Certificate,
        not_before: OffsetDateTime,
        days: u32,
        rng: &mut impl CryptoRng,
    ) -> Result<Issued, PkiError> {
        let Peer { name, key: own, .. } = Peer::from_certificate(shown)?;
        let key = {
            let parsed = parse_certificate(shown.as_der())?;
            CertifiedKey(parsed.public_key().subject_public_key.data.to_vec())
        };
        let issued = self.issue(
            &key,
            &format!("{name}{MEMBER_SUFFIX}"),
            ExtendedKeyUsagePurpose::ClientAuth,
            not_before,
            days,
            rng,
        )?;
        // The key was taken for one on P-256.
        match issued.key == own {
            true => Ok(issued),
            false => Err(PkiError::certificate("its key is not ECDSA on P-256")),
        }
    }

    /// Signs the list of revoked certificates. `number` must grow with each list.
    ///
    /// # Errors
    /// [`PkiError::Validity`] or [`PkiError::Generation`].
    pub fn revocation_list(
        &self,
        revoked: &[Revocation],
        number: u64,
        issued: OffsetDateTime,
        days: u32,
    ) -> Result<RevocationList, PkiError> {
        CertificateRevocationListParams {
            this_update: issued,
            next_update: end_of(issued, days)?,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|revocation| RevokedCertParams {
                    serial_number: SerialNumber::from_slice(&revocation.serial),
                    revocation_time: revocation.at,
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer)
        .map(|list| RevocationList(list.into()))
        .map_err(|error| self.issuer.key().error(error))
    }

    fn issue(
        &self,
        key: &impl PublicKeyData,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        not_before: OffsetDateTime,
        days: u32,
        rng: &mut impl CryptoRng,
    ) -> Result<Issued, PkiError> {
        let serial = random_serial(rng);
        // Never beyond the authority's own end: it could not be verified there.
        let not_after = end_of(not_before, days)?.min(self.not_after);
        if not_after <= not_before {
            return Err(PkiError::AuthorityExpired {
                not_after: self.not_after,
            });
        }
        let mut params = CertificateParams::default();
        params.not_before = not_before;
        params.not_after = not_after;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::DnsName(
            name.try_into().map_err(PkiError::Generation)?,
        )];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(key, &self.issuer)
            .map_err(|error| self.issuer.key().error(error))?;
        Ok(Issued {
            certificate: Certificate::from_der(certificate.der().to_vec()),
            serial,
            key: key_digest(&key.subject_public_key_info()),
            not_after,
        })
    }
}

/// The public key of a certificate, a point on P-256.
struct CertifiedKey(Vec<u8>);

impl PublicKeyData for CertifiedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateAuthority({})", self.fingerprint().0.short())
    }
}

/// Digest of the key in a signing request, once its signature has proved possession: what an
/// operator compares before approving, equal to the later [`Peer::key`](super::Peer::key).
///
/// # Errors
/// [`PkiError::Request`].
pub fn request_key(request: &[u8]) -> Result<Digest, PkiError> {
    let key = verified_request_key(request)?;
    Ok(key_digest(&key.subject_public_key_info()))
}

/// The public key of a signing request whose signature verifies under that very key.
fn verified_request_key(request: &[u8]) -> Result<rcgen::PublicKey, PkiError> {
    if request.len() > MAX_REQUEST_BYTES {
        return Err(PkiError::request(format!(
            "{} bytes; at most {MAX_REQUEST_BYTES} are taken",
            request.len()
        )));
    }
    let (rest, parsed) = X509CertificationRequest::from_der(request)
        .map_err(|_| PkiError::request("not a PKCS #10 request in DER"))?;
    if !rest.is_empty() {
        return Err(PkiError::request(format!(
            "{} bytes after its end",
            rest.len()
        )));
    }
    let verified =
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
            .map_err(|error| PkiError::request(error.to_string()))?;
    // The algorithm above is the signature's; the key must be of that very kind.
    let key = verified.public_key;
    if *key.algorithm() != PKCS_ECDSA_P256_SHA256
        || key.subject_public_key_info() != parsed.certification_request_info.subject_pki.raw
    {
        return Err(PkiError::request("its key is not ECDSA on P-256"));
    }
    Ok(key)
}

/// 126 random bits. The top two are 01, so that DER neither drops a leading zero nor adds one and
/// a revocation list names the very same bytes.
fn random_serial(rng: &mut impl CryptoRng) -> [u8; 16] {
    let mut serial = [0; 16];
    rng.fill_bytes(&mut serial);
    serial[0] = 0x40 | (serial[0] & 0x3f);
    serial
}

fn end_of(not_before: OffsetDateTime, days: u32) -> Result<OffsetDateTime, PkiError> {
    (1..=36_500)
        .contains(&days)
        .then(|| not_before.checked_add(Duration::days(i64::from(days))))
        .flatten()
        .ok_or(PkiError::Validity { days })
}
