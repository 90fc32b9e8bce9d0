//! The four TLS configurations: server and client of the federation, server and client of the
//! enrolment endpoint.
//!
//! All are TLS 1.3 with X25519MLKEM768 as the only key exchange, without tickets, resumption,
//! early data or key log. Certificates are verified by webpki against one root, the federation's
//! authority. A joining member does not have that root yet: it knows the root's fingerprint from
//! its token, takes the root from the server's chain if the fingerprint fits, and then verifies in
//! the same way.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fedlora_common::clock::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme, version,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::pki::{CaFingerprint, Certificate, Credentials, RevocationList, SERVER_NAME};
use super::server_certificate::ServerCertificateProblem;

/// The application protocol of members with certificates.
pub(crate) const ALPN_FEDERATION: &[u8] = b"fedlora/1";

/// The application protocol of the enrolment endpoint.
pub(crate) const ALPN_JOIN: &[u8] = b"fedlora-join/1";

/// The same two over TCP. What follows the handshake differs, so the names do.
pub(crate) const ALPN_FEDERATION_TCP: &[u8] = b"fedlora-tcp/1";
pub(crate) const ALPN_JOIN_TCP: &[u8] = b"fedlora-join-tcp/1";

/// The configuration of the same endpoint over TCP.
pub(crate) fn server_over_tcp(config: &ServerConfig, alpn: &[u8]) -> ServerConfig {
    let mut config = config.clone();
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

/// A client's configuration for one connection, with the verifier that can tell afterwards what it
/// refused.
pub(crate) struct ClientTls {
    pub(crate) config: ClientConfig,
    pub(crate) verifier: Arc<ServerVerifier>,
    /// The application protocols over QUIC and over TCP.
    alpn: [&'static [u8]; 2],
}

impl ClientTls {
    /// A member's.
    ///
    /// # Errors
    /// [`TlsError`] when the authority or the credentials cannot be used.
    pub(crate) fn member(
        credentials: &Credentials,
        authority: &Certificate,
    ) -> Result<Self, TlsError> {
        let (config, verifier) = client_config(credentials, authority)?;
        Ok(Self {
            config,
            verifier,
            alpn: [ALPN_FEDERATION, ALPN_FEDERATION_TCP],
        })
    }

    /// That of a joining member.
    ///
    /// # Errors
    /// [`TlsError`] when the provider cannot be used.
    pub(crate) fn joining(fingerprint: CaFingerprint) -> Result<Self, TlsError> {
        let (config, verifier) = join_client_config(fingerprint)?;
        Ok(Self {
            config,
            verifier,
            alpn: [ALPN_JOIN, ALPN_JOIN_TCP],
        })
    }

    pub(crate) fn quic_alpn(&self) -> &'static [u8] {
        self.alpn[0]
    }

    pub(crate) fn tcp_alpn(&self) -> &'static [u8] {
        self.alpn[1]
    }

    /// The configuration over TCP.
    pub(crate) fn tcp_config(&self) -> ClientConfig {
        let mut config = self.config.clone();
        config.alpn_protocols = vec![self.tcp_alpn().to_vec()];
        config
    }
}

/// The cryptography in use: aws-lc-rs, and for the key exchange nothing but the hybrid of X25519
/// and ML-KEM-768 (draft-ietf-tls-ecdhe-mlkem), so that traffic recorded today stays closed to a
/// quantum computer of tomorrow.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
        ..aws_lc_rs::default_provider()
    })
}

/// The aggregator's configuration: a client certificate from `authority` is mandatory, and none
/// that one of `revocations` lists. With no list nothing is revoked; a list is not refused for
/// being past its next update, since it comes from the operator's own disk and dropping it would
/// only readmit the revoked.
///
/// # Errors
/// [`TlsError`] when the authority, a revocation list or the credentials cannot be used.
pub(crate) fn server_config(
    credentials: &Credentials,
    authority: &Certificate,
    revocations: Vec<RevocationList>,
) -> Result<ServerConfig, TlsError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(root(authority.der())?), provider())
            .with_crls(revocations.into_iter().map(|list| list.0))
            .build()
            .map_err(|error| TlsError::Verifier(error.to_string()))?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![credentials.certificate().der().clone()],
            credentials.key(),
        )?;
    Ok(harden_server(config, ALPN_FEDERATION))
}

/// The enrolment endpoint's configuration: the server shows its certificate and the authority's,
/// and asks for none, since none exists yet.
///
/// # Errors
/// [`TlsError`] when the credentials cannot be used.
pub(crate) fn join_server_config(
    credentials: &Credentials,
    authority: &Certificate,
) -> Result<ServerConfig, TlsError> {
    let chain = vec![
        credentials.certificate().der().clone(),
        authority.der().clone(),
    ];
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, credentials.key())?;
    Ok(harden_server(config, ALPN_JOIN))
}

/// Whether `certificate` is one of a member's that `authority` issued and that is valid at `now`.
///
/// # Errors
/// [`TlsError::Verifier`] with what is wrong.
pub fn check_member_certificate(
    certificate: &Certificate,
    authority: &Certificate,
    now: Timestamp,
) -> Result<(), TlsError> {
    let refuse = |error: String| TlsError::Verifier(error);
    let root = Arc::new(root(authority.der())?);
    let verifier = WebPkiClientVerifier::builder_with_provider(root, provider()).build();
    let now = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
    verifier
        .map_err(|error| refuse(error.to_string()))?
        .verify_client_cert(certificate.der(), &[], now)
        .map(|_| ())
        .map_err(|error| refuse(error.to_string()))
}

/// Checks that a server's certificate is the authority's, for the aggregator's one name, and valid now.
///
/// # Errors
/// [`TlsError::Verifier`] with the reason.
pub fn check_server_certificate(
    certificate: &Certificate,
    authority: &Certificate,
    now: Timestamp,
) -> Result<(), TlsError> {
    let refuse = |error: String| TlsError::Verifier(error);
    let name = ServerName::try_from(SERVER_NAME).map_err(|error| refuse(error.to_string()))?;
    let now = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
    webpki(authority.der())?
        .verify_server_cert(certificate.der(), &[], &name, &[], now)
        .map(|_| ())
        .map_err(|error| refuse(error.to_string()))
}

/// A member's configuration, with the verifier that can tell afterwards what it refused.
///
/// # Errors
/// [`TlsError`] when the authority or the credentials cannot be used.
pub(crate) fn client_config(
    credentials: &Credentials,
    authority: &Certificate,
) -> Result<(ClientConfig, Arc<ServerVerifier>), TlsError> {
    let verifier = Arc::new(ServerVerifier::pinned(authority)?);
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_client_auth_cert(
            vec![credentials.certificate().der().clone()],
            credentials.key(),
        )?;
    Ok((harden_client(config, ALPN_FEDERATION), verifier))
}

/// A joining member's configuration, with the verifier that can tell afterwards what it refused.
///
/// # Errors
/// [`TlsError`] when the provider cannot be used.
pub(crate) fn join_client_config(
    fingerprint: CaFingerprint,
) -> Result<(ClientConfig, Arc<ServerVerifier>), TlsError> {
    let verifier = Arc::new(ServerVerifier::fingerprint(fingerprint));
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    Ok((harden_client(config, ALPN_JOIN), verifier))
}

/// Verifies the aggregator's certificate with webpki, against a pinned authority or against the
/// one that the server shows, if that has the expected fingerprint. Made for one connection: it
/// remembers why it refused, which the TLS alert alone would not tell.
pub(crate) struct ServerVerifier {
    anchor: Anchor,
    algorithms: WebPkiSupportedAlgorithms,
    refused: OnceLock<ServerCertificateProblem>,
}

enum Anchor {
    Pinned(Arc<WebPkiServerVerifier>),
    Fingerprint(CaFingerprint),
}

impl ServerVerifier {
    fn pinned(authority: &Certificate) -> Result<Self, TlsError> {
        Ok(Self::new(Anchor::Pinned(webpki(authority.der())?)))
    }

    fn fingerprint(fingerprint: CaFingerprint) -> Self {
        Self::new(Anchor::Fingerprint(fingerprint))
    }

    fn new(anchor: Anchor) -> Self {
        Self {
            anchor,
            algorithms: provider().signature_verification_algorithms,
            refused: OnceLock::new(),
        }
    }

    /// Why the server's certificate was refused, if it was.
    pub(crate) fn refusal(&self) -> Option<ServerCertificateProblem> {
        self.refused.get().cloned()
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // No intermediates in either case: the authority signs the server's certificate itself.
        match &self.anchor {
            Anchor::Pinned(webpki) => webpki.verify_server_cert(certificate, &[], name, &[], now),
            Anchor::Fingerprint(expected) => {
                let [authority] = rest else {
                    return Err(CertificateError::UnknownIssuer.into());
                };
                let found = CaFingerprint::of_der(authority);
                if found != *expected {
                    self.remember(ServerCertificateProblem::Fingerprint {
                        expected: *expected,
                        found,
                    });
                    return Err(CertificateError::UnknownIssuer.into());
                }
                webpki(&authority.clone().into_owned())
                    .map_err(|error| rustls::Error::General(error.to_string()))?
                    .verify_server_cert(certificate, &[], name, &[], now)
            }
        }
    }

    fn remember(&self, problem: ServerCertificateProblem) {
        // The first reason stands.
        let _ = self.refused.set(problem);
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, server_name, now)
            .inspect_err(|error| self.remember(ServerCertificateProblem::from_rustls(error)))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::PeerIncompatible(
            rustls::PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
            .inspect_err(|error| self.remember(ServerCertificateProblem::from_rustls(error)))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.anchor {
            Anchor::Pinned(_) => f.write_str("ServerVerifier(pinned)"),
            Anchor::Fingerprint(expected) => {
                write!(f, "ServerVerifier(authority {})", expected.0.short())
            }
        }
    }
}

fn root(authority: &CertificateDer<'static>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    Ok(roots)
}

fn webpki(authority: &CertificateDer<'static>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(root(authority)?), provider())
        .build()
        .map_err(|error| TlsError::Verifier(error.to_string()))
}

fn harden_server(mut config: ServerConfig, alpn: &[u8]) -> ServerConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.key_log = Arc::new(rustls::NoKeyLog);
    config
}

fn harden_client(mut config: ClientConfig, alpn: &[u8]) -> ClientConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.key_log = Arc::new(rustls::NoKeyLog);
    config
}

/// A TLS configuration that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// rustls refuses the authority, the certificate or the key.
    #[error("TLS cannot be configured: {0}")]
    Rustls(#[from] rustls::Error),
    /// The verifier refuses the authority or a revocation list.
    #[error("the certificate verifier cannot be configured: {0}")]
    Verifier(String),
}
