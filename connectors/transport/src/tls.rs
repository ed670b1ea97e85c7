//! The TLS configuration of a connection.
//!
//! `verify-ca` keeps every check of the ordinary verifier except for the name; `require`
//! keeps only the proof that the peer holds the key that it shows, which is what the mode
//! promises and no more. Signatures of the handshake are verified in every mode.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

/// What is encrypted, and what is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsMode {
    /// No encryption.
    Disable,
    /// Encrypted; the server is not verified.
    Require,
    /// Encrypted; the certificate must come from a trusted authority, whatever its name.
    VerifyCa,
    /// Encrypted; the certificate must come from a trusted authority and name the host.
    VerifyFull,
}

impl TlsMode {
    /// The strictest mode, except where no network is in between: on loopback and on a Unix
    /// socket there is nothing to protect against.
    pub fn default_for(host: &str) -> TlsMode {
        let local = host.starts_with('/')
            || host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if local {
            TlsMode::Disable
        } else {
            TlsMode::VerifyFull
        }
    }

    /// As the configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            TlsMode::Disable => "disable",
            TlsMode::Require => "require",
            TlsMode::VerifyCa => "verify-ca",
            TlsMode::VerifyFull => "verify-full",
        }
    }
}

impl std::str::FromStr for TlsMode {
    type Err = TlsError;

    fn from_str(s: &str) -> Result<TlsMode, TlsError> {
        [
            TlsMode::Disable,
            TlsMode::Require,
            TlsMode::VerifyCa,
            TlsMode::VerifyFull,
        ]
        .into_iter()
        .find(|mode| mode.as_str() == s)
        .ok_or_else(|| {
            TlsError::new(
                "tls_mode",
                format!("`{s}` is not a TLS mode."),
                "Use disable, require, verify-ca or verify-full.",
            )
        })
    }
}

/// A mode and the files that it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// What is verified.
    pub mode: TlsMode,
    /// PEM file of trusted authorities; none means those of the operating system.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client certificate, with its chain.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the client's private key.
    pub key_file: Option<PathBuf>,
}

impl TlsSettings {
    /// A mode without files.
    pub fn new(mode: TlsMode) -> TlsSettings {
        TlsSettings {
            mode,
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }

    /// What holds when the configuration says nothing.
    pub fn default_for(host: &str) -> TlsSettings {
        TlsSettings::new(TlsMode::default_for(host))
    }

    /// Reads the files and makes the client side; none when the mode is `disable`.
    ///
    /// # Errors
    /// A file that cannot be read or does not hold what it should, a certificate without
    /// its key, no trusted authority at all. Each names the file and the fix.
    pub fn client_config(&self) -> Result<Option<Arc<ClientConfig>>, TlsError> {
        if self.mode == TlsMode::Disable {
            return Ok(None);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| internal("protocol versions", &e))?;
        let builder = match self.mode {
            TlsMode::Disable | TlsMode::Require => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(NoCertificateCheck(provider))),
            TlsMode::VerifyCa => {
                let inner = WebPkiServerVerifier::builder_with_provider(
                    Arc::new(self.roots()?),
                    Arc::clone(&provider),
                )
                .build()
                .map_err(|e| internal("verifier", &e))?;
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(AnyName(inner)))
            }
            TlsMode::VerifyFull => builder.with_root_certificates(self.roots()?),
        };
        let config = match (&self.cert_file, &self.key_file) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let chain = certificates(cert, "client certificate")?;
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| {
                    pem_error(
                        "private key",
                        key,
                        &e,
                        "a PEM private key without a passphrase",
                    )
                })?;
                builder.with_client_auth_cert(chain, secret).map_err(|e| {
                    TlsError::new(
                        "tls_client_certificate",
                        format!(
                            "The private key {} does not go with the client certificate {}: {e}.",
                            key.display(),
                            cert.display()
                        ),
                        "Name the key that the certificate was made for.",
                    )
                })?
            }
            (Some(_), None) | (None, Some(_)) => {
                return Err(TlsError::new(
                    "tls_client_certificate",
                    "A client certificate needs both its certificate file and its key file; \
                     only one of them is named.",
                    "Name both, or none.",
                ));
            }
        };
        Ok(Some(Arc::new(config)))
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        if let Some(file) = &self.ca_file {
            for cert in certificates(file, "CA")? {
                roots.add(cert).map_err(|e| {
                    TlsError::new(
                        "tls_ca_file",
                        format!(
                            "A certificate in the CA file {} cannot be used: {e}.",
                            file.display()
                        ),
                        "Name a PEM file of CA certificates.",
                    )
                })?;
            }
        } else {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(TlsError::new(
                    "tls_no_authorities",
                    "This machine has no trusted certificate authorities.",
                    "Install them (package ca-certificates), or name a CA file.",
                ));
            }
        }
        Ok(roots)
    }
}

fn certificates(file: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wanted = "one or more PEM certificates";
    let list = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| pem_error(what, file, &e, wanted))?;
    if list.is_empty() {
        return Err(pem_error(
            what,
            file,
            &rustls_pki_types::pem::Error::NoItemsFound,
            wanted,
        ));
    }
    Ok(list)
}

fn pem_error(
    what: &str,
    file: &Path,
    error: &rustls_pki_types::pem::Error,
    wanted: &str,
) -> TlsError {
    let found = match error {
        rustls_pki_types::pem::Error::Io(e) => e.to_string(),
        rustls_pki_types::pem::Error::NoItemsFound => "it holds none".to_owned(),
        _ => "it is not valid PEM".to_owned(),
    };
    TlsError::new(
        "tls_file",
        format!(
            "The {what} file {} cannot be used: {found}.",
            file.display()
        ),
        format!("Name a file that holds {wanted} and that this process may read."),
    )
}

fn internal(what: &str, error: &dyn std::fmt::Display) -> TlsError {
    TlsError::new(
        "tls_setup",
        format!("TLS cannot be set up ({what}): {error}."),
        "",
    )
}

/// Why there is no TLS connection. The same settings and the same server fail again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence} {fix}")]
pub struct TlsError {
    /// A stable code.
    pub code: &'static str,
    /// What was found.
    pub sentence: String,
    /// What to do.
    pub fix: String,
}

impl TlsError {
    fn new(code: &'static str, sentence: impl Into<String>, fix: impl Into<String>) -> TlsError {
        TlsError {
            code,
            sentence: sentence.into(),
            fix: fix.into(),
        }
    }
}

/// Looks for a TLS failure in an error and its causes, and says it with its fix. None when
/// the failure was not one of TLS (then it may be one of the network, and pass).
pub fn explain(host: &str, error: &(dyn std::error::Error + 'static)) -> Option<TlsError> {
    let mut next = Some(error);
    while let Some(e) = next {
        if let Some(tls) = e.downcast_ref::<rustls::Error>() {
            return Some(sentence(host, tls));
        }
        // An `io::Error` hides the error inside of it from `source`.
        next = match e
            .downcast_ref::<std::io::Error>()
            .and_then(|io| io.get_ref())
        {
            Some(inner) => Some(inner),
            None => e.source(),
        };
    }
    None
}

fn sentence(host: &str, error: &rustls::Error) -> TlsError {
    use rustls::Error as E;
    match error {
        E::InvalidCertificate(reason) => {
            let (code, found, fix) = match reason {
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => (
                    "tls_wrong_name",
                    "is for another name".to_owned(),
                    "Connect by a name that the certificate holds, or use verify-ca to accept \
                     any name from the same authority.",
                ),
                CertificateError::UnknownIssuer => (
                    "tls_unknown_authority",
                    "was not issued by a trusted authority".to_owned(),
                    "Name the CA file that the server's certificate was issued by.",
                ),
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
                    "tls_expired",
                    "has expired".to_owned(),
                    "Renew the server's certificate, and check this machine's clock.",
                ),
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
                    "tls_not_yet_valid",
                    "is not valid yet".to_owned(),
                    "Check the clocks of both machines.",
                ),
                other => (
                    "tls_bad_certificate",
                    format!("is not acceptable: {other}"),
                    "Give the server a certificate from a trusted authority.",
                ),
            };
            TlsError::new(code, format!("The certificate of {host} {found}."), fix)
        }
        E::AlertReceived(alert) => TlsError::new(
            "tls_refused",
            format!("{host} refused the TLS handshake: {alert:?}."),
            "If the server asks for a client certificate, name the certificate and key files.",
        ),
        other => TlsError::new(
            "tls_failed",
            format!("The TLS handshake with {host} failed: {other}."),
            "Check that the server speaks TLS 1.2 or 1.3.",
        ),
    }
}

/// Everything except for the name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The verifier looks at the name last, after the chain, its dates and its uses.
        match self
            .0
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Whoever holds the key of the certificate that is shown.
#[derive(Debug)]
struct NoCertificateCheck(Arc<CryptoProvider>);

impl ServerCertVerifier for NoCertificateCheck {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_strictest_mode_holds_unless_no_network_is_in_between() {
        for host in [
            "localhost",
            "LocalHost",
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "/run/pg",
        ] {
            assert_eq!(TlsMode::default_for(host), TlsMode::Disable, "{host}");
        }
        for host in [
            "db.example.org",
            "10.0.0.1",
            "localhost.example.org",
            "::2",
            "",
        ] {
            assert_eq!(TlsMode::default_for(host), TlsMode::VerifyFull, "{host}");
        }
    }

    #[test]
    fn modes_are_spelled_as_in_the_configuration() {
        for mode in [
            TlsMode::Disable,
            TlsMode::Require,
            TlsMode::VerifyCa,
            TlsMode::VerifyFull,
        ] {
            assert_eq!(mode.as_str().parse::<TlsMode>().unwrap(), mode);
        }
        let error = "prefer".parse::<TlsMode>().unwrap_err();
        assert!(error.to_string().contains("verify-full"));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_its_fix() {
        let not_pem = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tls.rs");
        let missing = "/nowhere/a.pem";
        let file = |path: &str| Some(PathBuf::from(path));
        for (ca_file, cert_file, code, names) in [
            (file(missing), None, "tls_file", missing),
            (file(not_pem), None, "tls_file", not_pem),
            (None, file(missing), "tls_client_certificate", "both"),
        ] {
            let settings = TlsSettings {
                mode: if ca_file.is_some() {
                    TlsMode::VerifyFull
                } else {
                    TlsMode::Require
                },
                ca_file,
                cert_file,
                key_file: None,
            };
            let error = settings.client_config().unwrap_err();
            assert_eq!(error.code, code);
            assert!(error.sentence.contains(names), "{error}");
            assert!(!error.fix.is_empty());
        }
        assert!(
            TlsSettings::new(TlsMode::Disable)
                .client_config()
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_failure_is_found_below_other_errors() {
        let inner = rustls::Error::InvalidCertificate(CertificateError::Expired);
        let io = std::io::Error::new(std::io::ErrorKind::InvalidData, inner);
        let outer = std::io::Error::other(io);
        let found = explain("db.example.org", &outer).unwrap();
        assert_eq!(found.code, "tls_expired");
        assert!(found.sentence.contains("db.example.org"));
        assert_eq!(explain("x", &std::io::Error::other("reset")), None);
    }
}
