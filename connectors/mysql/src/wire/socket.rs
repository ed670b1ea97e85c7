//! The byte stream under a connection.
//!
//! The client is generic over it, so a tunnel can take the place of a socket. On TCP the
//! kernel gives up when the peer's kernel leaves our bytes unacknowledged, so a machine
//! that is gone is noticed within seconds also while nothing is expected from it.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::config::MySqlConfig;

/// Anything that carries bytes both ways.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static> ByteStream for T {}

const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Opens the socket that the configuration names.
pub(crate) async fn open(config: &MySqlConfig) -> io::Result<Box<dyn ByteStream>> {
    if config.is_unix_socket() {
        return Ok(Box::new(UnixStream::connect(&config.host).await?));
    }
    let socket = TcpStream::connect((config.host.as_str(), config.port)).await?;
    socket.set_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    rustix::net::sockopt::set_tcp_user_timeout(&socket, USER_TIMEOUT.as_millis() as u32)?;
    Ok(Box::new(socket))
}
