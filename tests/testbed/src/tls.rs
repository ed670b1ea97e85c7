//! A certificate authority that lives as long as a test.
//!
//! Everything is made anew for each [`Tls`]: two of them never trust each other,
//! which is how a test gets a server certificate from the wrong authority. Keys
//! are readable by their owner only, as libpq and the server demand.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::error::{Result, TestbedError};
use crate::scratch::Scratch;

/// A certificate authority with one server and one client certificate, as PEM
/// files (PKCS #8 keys) that vanish with this value.
#[derive(Debug)]
pub struct Tls {
    scratch: Scratch,
}

impl Tls {
    /// A server certificate for `localhost`, `127.0.0.1` and `::1`, and a client
    /// certificate whose common name is `client_name` (PostgreSQL's `cert`
    /// method compares it with the role).
    ///
    /// # Errors
    /// When a file cannot be written or a key cannot be made.
    pub fn for_localhost(client_name: &str) -> Result<Tls> {
        Tls::for_names(&["localhost", "127.0.0.1", "::1"], client_name)
    }

    /// As [`Tls::for_localhost`], with a server certificate for these names and
    /// addresses: a wrong one makes a server that must be refused.
    ///
    /// # Errors
    /// When a name is not ASCII, a file cannot be written or a key cannot be made.
    pub fn for_names(names: &[&str], client_name: &str) -> Result<Tls> {
        let scratch = Scratch::new()?;
        let tls = Tls { scratch };

        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        // The folder's name is unique, and two authorities of one name would be
        // taken for one with a broken signature.
        ca.distinguished_name.push(
            DnType::CommonName,
            format!("testbed authority {}", tls.dir().display()),
        );
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        tls.write("ca.pem", &ca.self_signed(&ca_key)?.pem())?;
        let issuer = Issuer::new(ca, ca_key);

        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let common_name = names.first().cloned().unwrap_or_default();
        tls.issue(
            "server",
            names,
            &common_name,
            ExtendedKeyUsagePurpose::ServerAuth,
            &issuer,
        )?;
        tls.issue(
            "client",
            Vec::new(),
            client_name,
            ExtendedKeyUsagePurpose::ClientAuth,
            &issuer,
        )?;
        Ok(tls)
    }

    fn issue(
        &self,
        file: &str,
        names: Vec<String>,
        common_name: &str,
        usage: ExtendedKeyUsagePurpose,
        issuer: &Issuer<'_, KeyPair>,
    ) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, issuer)?;
        self.write(&format!("{file}.pem"), &certificate.pem())?;
        self.write(&format!("{file}.key"), &key.serialize_pem())
    }

    fn write(&self, name: &str, pem: &str) -> Result<()> {
        let path = self.path(name);
        let mode = if name.ends_with(".key") { 0o600 } else { 0o644 };
        fs::write(&path, pem)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .map_err(TestbedError::io(format!("writing {}", path.display())))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The folder of the files.
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// The authority's certificate: what a client trusts (`sslrootcert`).
    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The server's certificate.
    pub fn server_cert(&self) -> PathBuf {
        self.path("server.pem")
    }

    /// The server's key.
    pub fn server_key(&self) -> PathBuf {
        self.path("server.key")
    }

    /// The client's certificate (`sslcert`).
    pub fn client_cert(&self) -> PathBuf {
        self.path("client.pem")
    }

    /// The client's key (`sslkey`).
    pub fn client_key(&self) -> PathBuf {
        self.path("client.key")
    }
}
