//! Files of servers: copied whole, and added to.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::error::{Result, TestbedError};
use crate::process::run;

/// Adds a text and a line end to a file that is there.
pub(crate) fn append(path: &Path, text: &str) -> Result<()> {
    let what = format!("writing {}", path.display());
    let mut file = File::options()
        .append(true)
        .open(path)
        .map_err(TestbedError::io(what.clone()))?;
    file.write_all(format!("{text}\n").as_bytes())
        .map_err(TestbedError::io(what))
}

/// Copies a folder with owners and modes; `to` is missing or an empty folder.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    command.args(["-a", "--reflink=auto", "-T"]);
    command.args([from.as_os_str(), OsStr::new(to)]);
    run(command).map(drop)
}
