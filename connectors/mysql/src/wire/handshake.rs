//! From a byte stream to a session: encryption, then authentication.
//!
//! What is asked for is what is had: when the mode wants TLS and the server has none, the
//! connection ends there, before the account's name is sent. The server's answers are
//! followed for a bounded number of steps.

use rollcall_contract::ConnectorError;
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::auth::{self, Plugin};
use super::fields::{Fields, put_lenenc_bytes};
use super::packets::Packets;
use super::socket::ByteStream;
use crate::config::{Flavour, MySqlConfig};
use crate::errors::{MySqlError, from_io, from_server, from_tls, protocol_violation};

/// Capability flags (MySQL documentation, "Capabilities Flags").
mod capability {
    pub(super) const LONG_PASSWORD: u32 = 1;
    pub(super) const LONG_FLAG: u32 = 1 << 2;
    pub(super) const PROTOCOL_41: u32 = 1 << 9;
    pub(super) const SSL: u32 = 1 << 11;
    pub(super) const TRANSACTIONS: u32 = 1 << 13;
    pub(super) const SECURE_CONNECTION: u32 = 1 << 15;
    pub(super) const PLUGIN_AUTH: u32 = 1 << 19;
    pub(super) const CONNECT_ATTRS: u32 = 1 << 20;
    pub(super) const LENENC_AUTH: u32 = 1 << 21;
}

const WANTED: u32 = capability::LONG_PASSWORD
    | capability::LONG_FLAG
    | capability::PROTOCOL_41
    | capability::TRANSACTIONS
    | capability::SECURE_CONNECTION
    | capability::PLUGIN_AUTH
    | capability::CONNECT_ATTRS
    | capability::LENENC_AUTH;
/// Without these there is no session with us.
const NEEDED: u32 =
    capability::PROTOCOL_41 | capability::SECURE_CONNECTION | capability::PLUGIN_AUTH;
/// `utf8mb4_general_ci`, which every version of both servers knows.
const UTF8MB4: u8 = 45;
const MAX_PACKET: u32 = 1 << 30;
/// Steps of authentication before we give up.
const MAX_STEPS: usize = 8;

/// Says what an error packet means; `body` begins behind its first byte.
pub(crate) fn server_error(body: &[u8]) -> MySqlError {
    let read = || -> Result<MySqlError, ConnectorError> {
        let mut f = Fields::new("error", body);
        let code = f.u16()?;
        let mut words = f.rest();
        // A marker and five characters of SQLSTATE; absent before authentication.
        if words.first() == Some(&b'#') && words.len() >= 6 {
            words = &words[6..];
        }
        Ok(from_server(code, &String::from_utf8_lossy(words)))
    };
    read().unwrap_or_else(MySqlError::from)
}

/// What the server says of itself first.
struct Greeting {
    version: String,
    capabilities: u32,
    challenge: Vec<u8>,
    plugin: Option<Plugin>,
}

/// Which server a version text belongs to, and the text without MariaDB's disguise.
pub(crate) fn flavour_of(version: &str) -> (Flavour, &str) {
    if version.contains("MariaDB") {
        // Versions 10 and 11.0 hide behind a MySQL version for old replicas.
        (
            Flavour::MariaDb,
            version.strip_prefix("5.5.5-").unwrap_or(version),
        )
    } else {
        (Flavour::MySql, version)
    }
}

fn greeting(payload: &[u8]) -> Result<Greeting, MySqlError> {
    let mut f = Fields::new("greeting", payload);
    match f.u8()? {
        10 => {}
        0xff => return Err(server_error(f.rest())),
        _ => return Err(protocol_violation("a greeting that is not version 10").into()),
    }
    let version = String::from_utf8_lossy(f.until_zero()).into_owned();
    let _thread = f.u32()?;
    let mut challenge = f.bytes(8)?.to_vec();
    let _filler = f.u8()?;
    let mut capabilities = u32::from(f.u16()?);
    let _charset = f.u8()?;
    let _status = f.u16()?;
    capabilities |= u32::from(f.u16()?) << 16;
    let challenge_len = usize::from(f.u8()?);
    let _reserved = f.bytes(10)?;
    if capabilities & NEEDED != NEEDED {
        return Err(protocol_violation("a server older than version 5.5").into());
    }
    let second = f.bytes(challenge_len.saturating_sub(8).max(13))?;
    challenge.extend_from_slice(second);
    // The last byte is a terminator.
    challenge.truncate(20);
    let plugin = Plugin::named(f.until_zero());
    Ok(Greeting {
        version,
        capabilities,
        challenge,
        plugin,
    })
}

/// A session that is ready for its first command.
pub(crate) struct Session {
    pub(crate) packets: Packets,
    /// The version as the server spells it.
    pub(crate) version: String,
}

/// Starts a session on a byte stream.
pub(crate) async fn start(
    stream: Box<dyn ByteStream>,
    config: &MySqlConfig,
) -> Result<Session, MySqlError> {
    let mut packets = Packets::new(stream, config.address());
    let hello = greeting(packets.next().await?)?;
    let mut is_private = config.is_unix_socket();
    let tls = if is_private {
        None
    } else {
        config.tls.client_config().map_err(from_tls)?
    };
    let mut capabilities = WANTED & hello.capabilities;
    if let Some(tls) = tls {
        if hello.capabilities & capability::SSL == 0 {
            return Err(ConnectorError::definite(
                "tls_not_offered",
                format!(
                    "{} offers no TLS, and the configuration asks for it.",
                    config.address()
                ),
                "Give the server a certificate (ssl_cert, ssl_key), or set `tls` of this source \
                 to disable when nobody can listen in between.",
            )
            .into());
        }
        capabilities |= capability::SSL;
        packets.send(&response_head(capabilities)).await?;
        packets = encrypt(packets, config, tls).await?;
        is_private = true;
    }
    let empty = Zeroizing::new(Vec::new());
    let password: &[u8] = match &config.password {
        Some(secret) => secret.expose_secret().as_bytes(),
        None => &empty,
    };
    // When the greeting's plugin is unknown here, the server is asked for another one by
    // answering for the one that both know.
    let plugin = hello.plugin.unwrap_or(match config.flavour {
        Flavour::MySql => Plugin::CachingSha2,
        Flavour::MariaDb => Plugin::Native,
    });
    let answer = match hello.plugin {
        // Clear text is never volunteered.
        Some(plugin) if plugin != Plugin::Clear => {
            plugin.answer(password, &hello.challenge, is_private)?
        }
        _ => Zeroizing::new(Vec::new()),
    };
    let mut out = Zeroizing::new(response_head(capabilities));
    out.extend_from_slice(config.user.as_bytes());
    out.push(0);
    put_lenenc_bytes(&mut out, &answer);
    out.extend_from_slice(plugin.name().as_bytes());
    out.push(0);
    if capabilities & capability::CONNECT_ATTRS != 0 {
        let mut attributes = Vec::new();
        for (name, value) in [
            ("_client_name", "rollcall"),
            ("_client_version", env!("CARGO_PKG_VERSION")),
            ("program_name", config.name.as_str()),
        ] {
            put_lenenc_bytes(&mut attributes, name.as_bytes());
            put_lenenc_bytes(&mut attributes, value.as_bytes());
        }
        put_lenenc_bytes(&mut out, &attributes);
    }
    packets.send(&out).await?;
    authenticate(&mut packets, plugin, hello.challenge, password, is_private).await?;
    Ok(Session {
        packets,
        version: flavour_of(&hello.version).1.to_owned(),
    })
}

/// What the handshake response and the request for TLS begin with.
fn response_head(capabilities: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&capabilities.to_le_bytes());
    out.extend_from_slice(&MAX_PACKET.to_le_bytes());
    out.push(UTF8MB4);
    out.extend_from_slice(&[0; 23]);
    out
}

async fn encrypt(
    packets: Packets,
    config: &MySqlConfig,
    tls: std::sync::Arc<rustls::ClientConfig>,
) -> Result<Packets, MySqlError> {
    let (stream, early, sequence) = packets.into_parts();
    // What came in clear before the encryption is not part of the session.
    if !early.is_empty() {
        return Err(protocol_violation("bytes between the greeting and TLS").into());
    }
    let name = ServerName::try_from(config.host.clone()).map_err(|_| {
        ConnectorError::definite(
            "tls_wrong_name",
            format!(
                "`{}` is not a name that a certificate can hold.",
                config.host
            ),
            "Connect by a host name or an IP address.",
        )
    })?;
    let encrypted = TlsConnector::from(tls)
        .connect(name, stream)
        .await
        .map_err(|e| from_io(&config.address(), "The TLS handshake with", &e))?;
    Ok(Packets::new(Box::new(encrypted), config.address()).continue_at(sequence))
}

async fn authenticate(
    packets: &mut Packets,
    mut plugin: Plugin,
    mut challenge: Vec<u8>,
    password: &[u8],
    is_private: bool,
) -> Result<(), MySqlError> {
    let mut switched = false;
    for _ in 0..MAX_STEPS {
        let payload = packets.next().await?;
        let mut f = Fields::new("authentication", payload);
        let reply: Zeroizing<Vec<u8>> = match f.u8()? {
            0x00 => return Ok(()),
            0xff => return Err(server_error(f.rest())),
            0xfe => {
                if switched {
                    return Err(protocol_violation("a second change of the plugin").into());
                }
                switched = true;
                let name = f.until_zero();
                plugin = Plugin::named(name).ok_or_else(|| unknown_plugin(name))?;
                challenge = f.rest().to_vec();
                if challenge.last() == Some(&0) {
                    challenge.pop();
                }
                plugin.answer(password, &challenge, is_private)?
            }
            0x01 if plugin == Plugin::CachingSha2 => match f.rest() {
                // The server has a proof in its cache; the verdict follows.
                [3] => continue,
                [4] if is_private => auth::clear(password),
                [4] => Zeroizing::new(vec![2]),
                pem => Zeroizing::new(auth::rsa(password, &challenge, pem)?),
            },
            _ => return Err(protocol_violation("an unknown step of authentication").into()),
        };
        packets.send(&reply).await?;
    }
    Err(protocol_violation("authentication without an end").into())
}

fn unknown_plugin(name: &[u8]) -> ConnectorError {
    ConnectorError::definite(
        "authentication_unsupported",
        format!(
            "The account uses the authentication plugin {}.",
            String::from_utf8_lossy(name).escape_default()
        ),
        "Give it caching_sha2_password (MySQL), mysql_native_password or ed25519 (MariaDB).",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mariadb_is_known_behind_its_disguise() {
        for (version, flavour, plain) in [
            (
                "5.5.5-10.11.6-MariaDB-log",
                Flavour::MariaDb,
                "10.11.6-MariaDB-log",
            ),
            ("11.4.2-MariaDB", Flavour::MariaDb, "11.4.2-MariaDB"),
            ("8.4.3", Flavour::MySql, "8.4.3"),
            ("8.0.36-28-Percona", Flavour::MySql, "8.0.36-28-Percona"),
        ] {
            assert_eq!(flavour_of(version), (flavour, plain));
        }
    }

    proptest! {
        #[test]
        fn a_damaged_greeting_is_an_error(bytes: Vec<u8>) {
            let _ = greeting(&bytes);
            let _ = server_error(&bytes);
        }
    }
}
