//! Work that takes long enough to keep a worker of the runtime from its other tasks.
//!
//! A runtime of one thread has no other worker: there it is done in its place, so that
//! everything on it happens in one order.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinError;

fn is_alone() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread
}

/// Does it here, while other tasks go to other workers.
pub fn in_place<T>(work: impl FnOnce() -> T) -> T {
    match is_alone() {
        true => work(),
        false => tokio::task::block_in_place(work),
    }
}

/// Does it where blocking is allowed.
///
/// # Errors
/// When it panicked, or the runtime ends.
pub async fn elsewhere<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    match is_alone() {
        true => Ok(work()),
        false => tokio::task::spawn_blocking(work).await,
    }
}
