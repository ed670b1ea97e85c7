//! The cursor of PostgreSQL.
//!
//! A cursor names the end of the last whole transaction and, when a large transaction was
//! split, how many of its row messages were handed over. Replication always restarts at
//! the former, since the server sends whole transactions only; the latter says what to
//! leave out of the first one that comes. The system identifier and the timeline travel
//! with it, so that a cursor can never be taken for one of another server's history.

use rollcall_contract::{ConnectorError, Cursor, Lineage};
use smallvec::SmallVec;

use crate::lsn::Lsn;

const VERSION: u8 = 1;
const WHOLE: usize = 1 + 8 + 4 + 8;
const INSIDE: usize = WHOLE + 8 + 4;

/// A position between two row messages of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PgCursor {
    /// The cluster, as `IDENTIFY_SYSTEM` names it.
    pub system_id: u64,
    /// The timeline on which the position was reached.
    pub timeline: u32,
    /// The end of the last whole transaction (or an idle position behind it): what may be
    /// confirmed to the server.
    pub commit_end: Lsn,
    /// How far into the next transaction.
    pub inside: Option<Inside>,
}

/// A place inside of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The position of the transaction's commit record: its name in the log.
    pub final_lsn: Lsn,
    /// Row messages of it (of all tables) that lie before this place.
    pub rows: u32,
}

impl PgCursor {
    /// The contract's form.
    pub fn encode(&self) -> Cursor {
        let mut bytes = SmallVec::<[u8; 48]>::new();
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.system_id.to_be_bytes());
        bytes.extend_from_slice(&self.timeline.to_be_bytes());
        bytes.extend_from_slice(&self.commit_end.0.to_be_bytes());
        if let Some(inside) = &self.inside {
            bytes.extend_from_slice(&inside.final_lsn.0.to_be_bytes());
            bytes.extend_from_slice(&inside.rows.to_be_bytes());
        }
        Cursor::new(&bytes, &self.to_string())
    }

    /// Takes a cursor back.
    ///
    /// # Errors
    /// Definite, when the bytes are not of this version of this connector.
    pub fn decode(cursor: &Cursor) -> Result<PgCursor, ConnectorError> {
        let bytes = cursor.as_bytes();
        let field = |at: usize, len: usize| {
            bytes[at..at + len]
                .iter()
                .fold(0u64, |n, &b| n << 8 | u64::from(b))
        };
        if bytes.first() != Some(&VERSION) || (bytes.len() != WHOLE && bytes.len() != INSIDE) {
            return Err(ConnectorError::definite(
                "cursor_unreadable",
                format!(
                    "The stored position ({} bytes, version {}) was not written by this version \
                     of the PostgreSQL source.",
                    bytes.len(),
                    bytes.first().map_or("none".to_owned(), u8::to_string),
                ),
                "Start the version of Rollcall that wrote the store, or a newer one.",
            ));
        }
        Ok(PgCursor {
            system_id: field(1, 8),
            timeline: field(9, 4) as u32,
            commit_end: Lsn(field(13, 8)),
            inside: (bytes.len() == INSIDE).then(|| Inside {
                final_lsn: Lsn(field(WHOLE, 8)),
                rows: field(WHOLE + 8, 4) as u32,
            }),
        })
    }

    /// The history that this cursor belongs to: the cluster, as text.
    pub fn lineage(&self) -> Lineage {
        Lineage(self.system_id.to_string())
    }
}

impl std::fmt::Display for PgCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.commit_end)?;
        if let Some(inside) = &self.inside {
            write!(f, "+{}#{}", inside.final_lsn, inside.rows)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn cursor(inside: Option<Inside>) -> PgCursor {
        PgCursor {
            system_id: 7_000_000_000_000_000_001,
            timeline: 3,
            commit_end: Lsn(0x16_B374_D848),
            inside,
        }
    }

    #[test]
    fn a_cursor_survives_the_store() {
        let inside = Some(Inside {
            final_lsn: Lsn(0x16_B374_E000),
            rows: 40_000,
        });
        for (cursor, text) in [
            (cursor(None), "16/B374D848"),
            (cursor(inside), "16/B374D848+16/B374E000#40000"),
        ] {
            let stored = cursor.encode();
            assert_eq!(stored.text(), text);
            assert_eq!(PgCursor::decode(&stored).unwrap(), cursor);
        }
    }

    #[test]
    fn a_foreign_cursor_is_refused() {
        let whole = cursor(None).encode();
        let mut other = whole.as_bytes().to_vec();
        other[0] = 9;
        for bytes in [&[][..], &other, &whole.as_bytes()[..20]] {
            let error = PgCursor::decode(&Cursor::new(bytes, "?")).unwrap_err();
            assert_eq!(error.code(), "cursor_unreadable");
            assert!(!error.is_transient());
        }
    }
}
