//! Positions that the daemon carries and only the connector understands.

use std::fmt;

use smallvec::SmallVec;

/// How far a source's log has been taken in.
///
/// `bytes` start with a version byte and may name a point inside of a transaction (after
/// its n-th row): opening at such a cursor delivers the rest of that transaction only.
/// What is acknowledged to the server never passes the last whole transaction.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Cursor {
    bytes: SmallVec<[u8; 48]>,
    text: SmallVec<[u8; 32]>,
}

impl Cursor {
    /// A cursor from the connector's encoding and its readable form.
    pub fn new(bytes: &[u8], text: &str) -> Self {
        Cursor {
            bytes: SmallVec::from_slice(bytes),
            text: SmallVec::from_slice(text.as_bytes()),
        }
    }

    /// No place in the log: it is not followed at present, the table is polled. `text` says
    /// for people how far that is.
    pub fn nowhere(text: &str) -> Self {
        Cursor::new(&[], text)
    }

    /// Whether it names no place in the log.
    pub fn is_nowhere(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The connector's encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The readable form, for example `0/16B3748`.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or("?")
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({})", self.text())
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Which server, in which history, a cursor belongs to. Cursors are comparable only within
/// one lineage.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lineage(pub String);

/// Identifies a transaction of the source, for visibility questions ([`crate::Window`]) and
/// nothing else. Empty for rows that were read by a scan.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct TxId(pub SmallVec<[u8; 24]>);
