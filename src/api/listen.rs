//! Sockets: the Unix one beside the store, and TCP where configured.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use axum::Router;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

/// Serves on a Unix socket that only its owner may open. A socket that a killed daemon left
/// behind is replaced: the store's lock already proves that no other daemon lives.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve_unix(
    path: &Path,
    router: Router,
    stop: CancellationToken,
) -> io::Result<tokio::task::JoinHandle<()>> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let path = path.to_owned();
    Ok(tokio::spawn(async move {
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(async move { stop.cancelled().await })
            .await;
        if let Err(e) = served {
            tracing::error!("the socket stopped answering: {e}");
        }
        // A socket that stays behind is replaced at the next start.
        let _ = std::fs::remove_file(path);
    }))
}

/// Serves on TCP.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve_tcp(
    address: std::net::SocketAddr,
    router: Router,
    stop: CancellationToken,
) -> io::Result<tokio::task::JoinHandle<()>> {
    let listener = TcpListener::bind(address).await?;
    Ok(tokio::spawn(async move {
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(async move { stop.cancelled().await })
            .await;
        if let Err(e) = served {
            tracing::error!("{address} stopped answering: {e}");
        }
    }))
}
