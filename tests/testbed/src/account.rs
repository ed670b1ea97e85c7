//! The account under which servers run when the tests run as root.
//!
//! PostgreSQL refuses to run as root. `tests/testbed/install` makes a system
//! account for that case; for any other user servers run as that user, and
//! nothing here has an effect.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use crate::error::{Result, TestbedError};

const NAME: &str = "rollcall-test";

/// Who a server runs as.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The unprivileged account when this process is root, else `None`: servers then
/// run as the caller.
pub(crate) fn unprivileged() -> Result<Option<Account>> {
    if !is_root() {
        return Ok(None);
    }
    let passwd =
        fs::read_to_string("/etc/passwd").map_err(TestbedError::io("reading /etc/passwd"))?;
    passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&NAME))
        .and_then(|fields| {
            Some(Account {
                uid: fields.get(2)?.parse().ok()?,
                gid: fields.get(3)?.parse().ok()?,
            })
        })
        .map(Some)
        .ok_or_else(|| TestbedError::Missing {
            what: format!("the system account {NAME}, under which servers run for root,"),
            looked: "not in /etc/passwd".to_owned(),
        })
}

/// Gives one file or folder to the account, when there is one.
pub(crate) fn give(path: &Path, account: Option<Account>) -> Result<()> {
    let Some(account) = account else {
        return Ok(());
    };
    chown(path, Some(account.uid), Some(account.gid)).map_err(TestbedError::io(format!(
        "giving {} to {NAME}",
        path.display()
    )))
}
