//! The byte stream under a connection.
//!
//! The replication client is generic over it, so a tunnel can take the place of a socket.
//! On TCP the kernel gives up when the peer's kernel leaves our bytes unacknowledged: a
//! walsender that works on a large transaction may be silent for long and is alive, a
//! machine that is gone is noticed within seconds, and the two are not confused.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::config::PostgresConfig;

/// Anything that carries bytes both ways.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Opens the socket that the configuration names.
pub(crate) async fn open(config: &PostgresConfig) -> io::Result<Box<dyn ByteStream>> {
    if let Some(path) = config.socket_path() {
        return Ok(Box::new(UnixStream::connect(path).await?));
    }
    let socket = TcpStream::connect((config.host.as_str(), config.port)).await?;
    socket.set_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    rustix::net::sockopt::set_tcp_user_timeout(&socket, USER_TIMEOUT.as_millis() as u32)?;
    Ok(Box::new(socket))
}
