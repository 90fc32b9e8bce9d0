//! Certificates and revocation lists: DER on the wire, PEM on disk.

use std::fmt;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::error::PkiError;

/// The longest certificate that is parsed, in bytes.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// An X.509 certificate in DER. The bytes come from anyone: whoever reads the certificate parses
/// it, and only a TLS handshake verifies it.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate(CertificateDer<'static>);

impl Certificate {
    /// A certificate of DER bytes, which are not looked at yet.
    pub fn from_der(der: Vec<u8>) -> Self {
        Self(der.into())
    }

    /// The first certificate in a PEM text.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] when there is none, or it is not X.509.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| PkiError::certificate(format!("not a PEM certificate: {error}")))?;
        parse_certificate(&certificate)?;
        Ok(Self(certificate))
    }

    /// The certificate's DER bytes.
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }

    /// The certificate as PEM, 64 characters a line.
    pub fn to_pem(&self) -> String {
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        let text = data_encoding::BASE64.encode(&self.0);
        for start in (0..text.len()).step_by(64) {
            pem.push_str(&text[start..text.len().min(start + 64)]);
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
        pem
    }

    /// The certificate as rustls takes it.
    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        &self.0
    }
}

impl From<CertificateDer<'static>> for Certificate {
    fn from(der: CertificateDer<'static>) -> Self {
        Self(der)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({} bytes)", self.0.len())
    }
}

/// A signed list of revoked certificates, in DER
/// ([`CertificateAuthority::revocation_list`](super::CertificateAuthority::revocation_list)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList(pub(crate) CertificateRevocationListDer<'static>);

/// Parses a certificate of at most [`MAX_CERTIFICATE_BYTES`], with nothing behind its end.
pub(super) fn parse_certificate(der: &[u8]) -> Result<X509Certificate<'_>, PkiError> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(PkiError::certificate(format!(
            "{} bytes; at most {MAX_CERTIFICATE_BYTES} are taken",
            der.len()
        )));
    }
    let (rest, parsed) = X509Certificate::from_der(der)
        .map_err(|_| PkiError::certificate("not an X.509 certificate in DER"))?;
    if rest.is_empty() {
        Ok(parsed)
    } else {
        Err(PkiError::certificate(format!(
            "{} bytes after its end",
            rest.len()
        )))
    }
}
