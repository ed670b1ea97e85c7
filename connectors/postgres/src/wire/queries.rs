//! The ordinary connection: tokio-postgres over the same sockets and the same TLS as
//! replication, with the session settings that make the server print values in the one
//! form that [`crate::types`] reads.

use std::time::Duration;

use rollcall_contract::ConnectorError;
use secrecy::ExposeSecret;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{PostgresConfig, SESSION_OPTIONS};
use crate::errors::{PgError, from_client, from_tls};

/// Opens an ordinary connection. Its task ends when the client is dropped.
///
/// # Errors
/// As the table in [`crate::errors`] says; `connect_timeout` is transient.
pub async fn connect_queries(config: &PostgresConfig) -> Result<Client, PgError> {
    let address = config.address();
    let tls = config.tls.client_config().map_err(from_tls)?;
    let mut pg = Config::new();
    pg.user(&config.user)
        .dbname(&config.database)
        .application_name(&config.application_name)
        .options(SESSION_OPTIONS)
        .port(config.port)
        .connect_timeout(config.connect_timeout)
        .keepalives_idle(Duration::from_secs(30));
    if let Some(password) = &config.password {
        pg.password(password.expose_secret());
    }
    if config.is_unix_socket() {
        pg.host_path(&config.host);
    } else {
        pg.host(&config.host);
    }
    let connecting = async {
        match tls {
            Some(tls) if !config.is_unix_socket() => {
                pg.ssl_mode(SslMode::Require);
                let connector = MakeRustlsConnect::new(tls.as_ref().clone());
                let (client, connection) = pg.connect(connector).await?;
                drive(connection);
                Ok(client)
            }
            _ => {
                pg.ssl_mode(SslMode::Disable);
                let (client, connection) = pg.connect(NoTls).await?;
                drive(connection);
                Ok(client)
            }
        }
    };
    match tokio::time::timeout(config.connect_timeout, connecting).await {
        Ok(done) => done.map_err(|e: tokio_postgres::Error| from_client(&address, &e)),
        Err(_) => Err(timed_out(config).into()),
    }
}

pub(crate) fn timed_out(config: &PostgresConfig) -> ConnectorError {
    ConnectorError::transient(
        "connect_timeout",
        format!(
            "{} did not answer within {} s.",
            config.address(),
            config.connect_timeout.as_secs()
        ),
    )
}

/// The error of the connection also reaches whoever waits for an answer on the client, and
/// is reported there.
fn drive<C>(connection: C)
where
    C: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "query connection ended");
        }
    });
}
