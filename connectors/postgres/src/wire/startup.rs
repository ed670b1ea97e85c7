//! From a byte stream to a session: encryption, then authentication.
//!
//! What is asked for is what is had: when the mode wants TLS and the server has none, the
//! connection ends there. A clear-text password is given only under TLS or on a Unix
//! socket. With SCRAM the server proves that it knows the password too, and under TLS the
//! exchange is bound to the server's certificate when the server offers that.

use std::collections::HashMap;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::frontend;
use rollcall_contract::ConnectorError;
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::frames::Frames;
use super::socket::ByteStream;
use crate::config::{PostgresConfig, SESSION_OPTIONS};
use crate::decode::{Fields, error_fields};
use crate::errors::{PgError, from_io, from_sqlstate, from_tls, protocol_violation};

/// A session that is ready for its first command.
pub(crate) struct Session {
    pub(crate) frames: Frames,
    pub(crate) parameters: HashMap<String, String>,
}

/// Starts a replication session on a byte stream.
pub(crate) async fn start(
    mut stream: Box<dyn ByteStream>,
    config: &PostgresConfig,
) -> Result<Session, PgError> {
    let address = config.address();
    let mut binding = None;
    let mut is_private = config.is_unix_socket();
    // The server offers no TLS on a Unix socket.
    let tls = if is_private {
        None
    } else {
        config.tls.client_config().map_err(from_tls)?
    };
    if let Some(tls) = tls {
        ask_for_tls(&mut stream, &address).await?;
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
            .map_err(|e| from_io(&address, "The TLS handshake with", &e))?;
        binding = encrypted
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first())
            .and_then(|cert| rollcall_transport::server_end_point(cert));
        is_private = true;
        stream = Box::new(encrypted);
    }

    let mut frames = Frames::new(stream, address);
    let mut out = BytesMut::new();
    frontend::startup_message(
        [
            ("user", config.user.as_str()),
            ("database", &config.database),
            ("replication", "database"),
            ("application_name", &config.application_name),
            ("client_encoding", "UTF8"),
            ("options", SESSION_OPTIONS),
        ],
        &mut out,
    )
    .map_err(|_| unsendable("The user, database or application name"))?;
    frames.send(&out).await?;
    authenticate(&mut frames, config, binding, is_private).await?;

    let mut parameters = HashMap::new();
    loop {
        let frame = frames.next().await?;
        match frame.tag {
            b'S' => {
                let mut f = Fields::new("ParameterStatus", &frame.body);
                let name = f.text()?.to_owned();
                parameters.insert(name, f.lossy()?.into_owned());
            }
            b'K' | b'N' => {}
            b'Z' => return Ok(Session { frames, parameters }),
            b'E' => return Err(server_error(&frame.body)?),
            _ => {
                return Err(protocol_violation("an unknown message at the session's start").into());
            }
        }
    }
}

fn unsendable(what: &str) -> ConnectorError {
    ConnectorError::definite(
        "configuration",
        format!("{what} holds a zero byte."),
        "Correct it in the configuration.",
    )
}

pub(crate) fn server_error(body: &[u8]) -> Result<PgError, ConnectorError> {
    let (state, message) = error_fields(body)?;
    Ok(from_sqlstate(&state, &message))
}

async fn ask_for_tls(stream: &mut Box<dyn ByteStream>, address: &str) -> Result<(), PgError> {
    let lost = |e: std::io::Error| from_io(address, "The connection to", &e);
    let mut out = BytesMut::new();
    frontend::ssl_request(&mut out);
    stream.write_all(&out).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    // Exactly one byte: whatever follows it unencrypted reaches the TLS handshake and
    // fails there, so nobody can put plain text before the session.
    match stream.read_u8().await.map_err(lost)? {
        b'S' => Ok(()),
        b'N' => Err(ConnectorError::definite(
            "tls_not_offered",
            format!("{address} does not offer TLS."),
            "Set ssl = on with a certificate on the server, or tls.mode = \"disable\" where \
             the network is trusted.",
        )
        .into()),
        _ => Err(protocol_violation("an unknown answer to the request for TLS").into()),
    }
}

async fn authenticate(
    frames: &mut Frames,
    config: &PostgresConfig,
    binding: Option<Vec<u8>>,
    is_private: bool,
) -> Result<(), PgError> {
    let mut binding = binding;
    let mut scram: Option<ScramSha256> = None;
    let mut is_proved = false;
    loop {
        let frame = frames.next().await?;
        match frame.tag {
            b'R' => {}
            b'E' => return Err(server_error(&frame.body)?),
            b'N' | b'v' => continue,
            _ => {
                return Err(
                    protocol_violation("an unknown message instead of authentication").into(),
                );
            }
        }
        let mut f = Fields::new("Authentication", &frame.body);
        let mut out = BytesMut::new();
        match f.u32()? {
            0 if scram.is_some() && !is_proved => {
                return Err(protocol_violation("no proof that it knows the password").into());
            }
            0 => return Ok(()),
            3 => {
                if !is_private {
                    return Err(ConnectorError::definite(
                        "password_in_clear",
                        "The server asks for the password in clear text over an unencrypted \
                         connection.",
                        "Use TLS, or set scram-sha-256 for this role in pg_hba.conf.",
                    )
                    .into());
                }
                password_message(password(config)?.expose_secret().as_bytes(), &mut out)?;
            }
            5 => {
                let mut salt = [0; 4];
                salt.copy_from_slice(f.bytes(4)?);
                let secret = password(config)?.expose_secret().as_bytes();
                let hash = md5_hash(config.user.as_bytes(), secret, salt);
                password_message(hash.as_bytes(), &mut out)?;
            }
            10 => {
                let (mut plain, mut plus) = (false, false);
                loop {
                    match f.text()? {
                        "" => break,
                        SCRAM_SHA_256 => plain = true,
                        SCRAM_SHA_256_PLUS => plus = true,
                        _ => {}
                    }
                }
                let (mechanism, channel) = match (plus, plain, binding.take()) {
                    (true, _, Some(hash)) => (
                        SCRAM_SHA_256_PLUS,
                        ChannelBinding::tls_server_end_point(hash),
                    ),
                    // We could bind and the server does not offer it: saying so lets the
                    // server notice when somebody in between removed the offer.
                    (false, true, Some(_)) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
                    (_, true, None) => (SCRAM_SHA_256, ChannelBinding::unsupported()),
                    _ => return Err(unknown_method("SASL without SCRAM-SHA-256").into()),
                };
                let exchange =
                    ScramSha256::new(password(config)?.expose_secret().as_bytes(), channel);
                frontend::sasl_initial_response(mechanism, exchange.message(), &mut out)
                    .map_err(|_| scram_failed())?;
                scram = Some(exchange);
            }
            11 => {
                let exchange = scram.as_mut().ok_or_else(out_of_order)?;
                exchange.update(f.rest()).map_err(|_| scram_failed())?;
                frontend::sasl_response(exchange.message(), &mut out)
                    .map_err(|_| scram_failed())?;
            }
            12 => {
                let exchange = scram.as_mut().ok_or_else(out_of_order)?;
                exchange.finish(f.rest()).map_err(|_| scram_failed())?;
                is_proved = true;
                continue;
            }
            7..=9 => return Err(unknown_method("GSSAPI or SSPI").into()),
            _ => return Err(unknown_method("a method that is not known here").into()),
        }
        frames.send(&out).await?;
    }
}

fn password(config: &PostgresConfig) -> Result<&SecretString, ConnectorError> {
    config.password.as_ref().ok_or_else(|| {
        ConnectorError::definite(
            "password_missing",
            format!(
                "The server asks for a password of the role {}.",
                config.user
            ),
            "Set `password` in the configuration to a secret.",
        )
    })
}

fn password_message(secret: &[u8], out: &mut BytesMut) -> Result<(), ConnectorError> {
    frontend::password_message(secret, out).map_err(|_| unsendable("The password"))
}

fn out_of_order() -> ConnectorError {
    protocol_violation("a step of SASL that was not begun")
}

fn scram_failed() -> ConnectorError {
    ConnectorError::definite(
        "server_not_proved",
        "The server could not prove that it knows the role's password.",
        "Check that this is the right server, and that nothing in between ends TLS.",
    )
}

fn unknown_method(found: &str) -> ConnectorError {
    ConnectorError::definite(
        "authentication_unsupported",
        format!("The server asks for {found}."),
        "Allow scram-sha-256 (or a client certificate) for this role in pg_hba.conf.",
    )
}
