//! What a process has used, from proc(5).
//!
//! CPU time is of all its threads, dead ones too; peak memory is `VmHWM`, the
//! highest resident set the kernel has seen, so no sampling can miss the peak.

use std::collections::HashMap;
use std::fs;

use crate::error::{Result, TestbedError};

/// `USER_HZ`: the unit of times in /proc/PID/stat, 100 on every Linux that Rust
/// supports (proc(5), `sysconf(_SC_CLK_TCK)`).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time and memory of one process, or of several added up.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ProcStat {
    /// User and system CPU time so far, in seconds, in steps of 10 ms.
    pub cpu_seconds: f64,
    /// Highest resident memory so far, in KiB.
    pub peak_rss_kib: u64,
    /// Resident memory now, in KiB.
    pub rss_kib: u64,
}

impl ProcStat {
    /// Reads the figures of a running process.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> Result<ProcStat> {
        let stat = read(pid, "stat")?;
        let status = read(pid, "status")?;
        let malformed = || TestbedError::State(format!("/proc/{pid}/stat is not as proc(5) says"));
        let (_, cpu_seconds) = parse_stat(&stat).ok_or_else(malformed)?;
        Ok(ProcStat {
            cpu_seconds,
            peak_rss_kib: status_kib(&status, "VmHWM:"),
            rss_kib: status_kib(&status, "VmRSS:"),
        })
    }

    /// The figures of a process and of all its descendants that run now, added
    /// up (memory that they share is counted in each). A PostgreSQL server's
    /// work is in the children of its first process.
    ///
    /// # Errors
    /// When there is no process `pid`.
    pub fn of_tree(pid: u32) -> Result<ProcStat> {
        let mut sum = ProcStat::of(pid)?;
        // A child may end between the listing and the look at it.
        for stat in descendants(pid)
            .into_iter()
            .filter_map(|p| ProcStat::of(p).ok())
        {
            sum.cpu_seconds += stat.cpu_seconds;
            sum.peak_rss_kib += stat.peak_rss_kib;
            sum.rss_kib += stat.rss_kib;
        }
        Ok(sum)
    }
}

/// All running descendants of a process.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        if let Some((parent, _)) = read(child, "stat").ok().as_deref().and_then(parse_stat) {
            children.entry(parent).or_default().push(child);
        }
    }
    let mut found = Vec::new();
    let mut open = vec![pid];
    while let Some(parent) = open.pop() {
        if let Some(mut of_parent) = children.remove(&parent) {
            open.extend(&of_parent);
            found.append(&mut of_parent);
        }
    }
    found
}

/// Whether a process has ended; one that nobody has waited for yet counts too, as
/// it holds nothing any more.
pub(crate) fn has_ended(pid: u32) -> bool {
    let state = read(pid, "stat").ok().and_then(|stat| {
        stat.rsplit_once(')')
            .map(|(_, rest)| rest.trim().to_owned())
    });
    state.is_none_or(|state| state.starts_with(['Z', 'X']))
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read(&path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .map_err(TestbedError::io(format!("reading {path}")))
}

/// Parent id and CPU seconds. The program's name stands in parentheses and may
/// hold blanks and parentheses itself, so fields are counted from the last one.
fn parse_stat(stat: &str) -> Option<(u32, f64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    // Field 14 (utime) of proc(5) is the 12th after the name, stime follows.
    let user: f64 = fields.nth(9)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((parent, (user + system) / TICKS_PER_SECOND))
}

/// 0 when the line is missing: a process that has ended but was not waited for
/// has no memory.
fn status_kib(status: &str, key: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a test ends at the first thing that is not as expected"
    )]

    use super::*;

    #[test]
    fn a_program_name_with_blanks_and_parentheses_shifts_no_field() {
        let stat = "42 (a ) (b) S 7 42 42 0 -1 4194304 1 2 3 4 250 50 9 9 20 0 1 0 5 6 7";
        assert_eq!(parse_stat(stat), Some((7, 3.0)));
    }

    #[test]
    fn work_and_memory_of_this_process_are_seen() {
        let before = ProcStat::of(std::process::id()).unwrap();
        let mut held = vec![1_u8; 32 << 20];
        let mut sum = 0_u64;
        while ProcStat::of(std::process::id()).unwrap().cpu_seconds < before.cpu_seconds + 0.05 {
            held.iter_mut().for_each(|b| *b = b.wrapping_add(3));
            sum += u64::from(held[sum as usize % held.len()]);
        }
        let after = ProcStat::of(std::process::id()).unwrap();
        assert!(after.peak_rss_kib >= 32 << 10 && after.peak_rss_kib >= after.rss_kib);
    }
}
