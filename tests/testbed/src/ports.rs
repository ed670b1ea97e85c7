//! Ports that no one else is about to take.
//!
//! Test threads start servers side by side, and a port found free by binding to
//! it is free again the moment the probe closes. Two things keep them apart: a
//! port is handed out once per process, and it comes from below the range from
//! which Linux takes the ports of outgoing connections (32768 and up, see
//! `ip_local_port_range` in ip(7)), so no client's socket lands on the port of
//! a server that is stopped just now. What remains is another process that
//! tries the same number; the first start of a server therefore moves on to a
//! new port when its own is in use.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use crate::error::{Result, TestbedError};

const FIRST: u16 = 15_000;
const LAST: u16 = 31_999;
const TRIES: u32 = 2_000;

static HANDED_OUT: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A TCP port on 127.0.0.1 that is free now and that this process has not handed
/// out before.
///
/// # Errors
/// When no port was free in 2,000 tries.
pub fn free_port() -> Result<u16> {
    let mut guard = HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner);
    let handed_out = guard.get_or_insert_with(HashSet::new);
    for _ in 0..TRIES {
        let span = u64::from(LAST - FIRST) + 1;
        let port = FIRST + u16::try_from(random() % span).unwrap_or_default();
        if handed_out.contains(&port) || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
            continue;
        }
        handed_out.insert(port);
        return Ok(port);
    }
    Err(TestbedError::State(format!(
        "no free port between {FIRST} and {LAST} on 127.0.0.1 in {TRIES} tries"
    )))
}

/// A number that differs between calls and between processes: `RandomState` is
/// seeded by the system. Good for names and ports, not for secrets.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
