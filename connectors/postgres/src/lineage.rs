//! Whether a cursor still belongs to the history that the server goes on with.
//!
//! A position alone proves nothing: another cluster, a copy restored to an earlier point
//! and a standby that was promoted before it had received everything all have a log with
//! room for the same number. So beside the cursor the store keeps an [`Origin`]: cluster,
//! timeline and database, and what was followed there. At every connect the two questions
//! of this module are asked before a byte is read:
//!
//! 1. Is it the same cluster and database? If not, the cursor means nothing.
//! 2. Does this history contain the cursor? On another timeline it does exactly when the
//!    history of the server's timeline leaves the cursor's own at or behind the cursor; on
//!    the same timeline, when the log reaches at least that far.
//!
//! Whatever is not proved is a gap.

use rollcall_contract::{ConnectorError, Gap, GapReason, Lineage};
use serde::{Deserialize, Serialize};

use crate::followed::Followed;
use crate::lsn::Lsn;
use crate::position::PgCursor;

/// What the store keeps as the [`Lineage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// `IDENTIFY_SYSTEM`'s systemid.
    pub(crate) system: u64,
    pub(crate) timeline: u32,
    pub(crate) database: String,
    pub(crate) followed: Followed,
}

impl Origin {
    pub(crate) fn encode(&self) -> Lineage {
        // Cannot fail: plain numbers and strings.
        Lineage(serde_json::to_string(self).unwrap_or_default())
    }

    /// # Errors
    /// Definite, when the text was not written by [`Origin::encode`].
    pub(crate) fn decode(lineage: &Lineage) -> Result<Origin, ConnectorError> {
        serde_json::from_str(&lineage.0).map_err(|_| {
            ConnectorError::definite(
                "lineage_unreadable",
                "What the store holds about the server of this source was not written by this \
                 version of the PostgreSQL source.",
                "Start the version of Rollcall that wrote the store, or a newer one.",
            )
        })
    }
}

/// The server as it is now.
#[derive(Clone, Debug)]
pub(crate) struct Present<'a> {
    pub(crate) system: u64,
    pub(crate) timeline: u32,
    pub(crate) database: &'a str,
    /// How far the server's own log is on disk.
    pub(crate) flushed: Lsn,
    /// The timeline's history file, when it is another timeline than the cursor's.
    pub(crate) history: Option<&'a str>,
}

/// Compares a stored position with the server as it is. `None`: the server's history
/// contains it.
///
/// # Errors
/// Definite, when cluster and database are both others (most likely a wrong address), or
/// when the database alone is.
pub(crate) fn judge(
    stored: &Origin,
    cursor: &PgCursor,
    now: &Present<'_>,
) -> Result<Option<Gap>, ConnectorError> {
    if stored.database != now.database {
        return Err(ConnectorError::definite(
            "other_database",
            format!(
                "The stored position belongs to database \"{}\" of cluster {}, and this is \
                 database \"{}\" of cluster {}.",
                stored.database, stored.system, now.database, now.system
            ),
            "Correct host and database in the configuration, or give the new database a source \
             of its own.",
        ));
    }
    if stored.system != now.system {
        return Ok(Some(gap(
            GapReason::OtherServer,
            cursor,
            format!(
                "The server is another cluster ({}) than the one that was followed ({}); \
                 everything is read again.",
                now.system, stored.system
            ),
        )));
    }
    if cursor.timeline != now.timeline {
        let left = now
            .history
            .and_then(|text| switch_point(text, cursor.timeline));
        return Ok(match left {
            Some(left) if left >= cursor.commit_end => None,
            Some(left) => Some(gap(
                GapReason::TimelineDiverged,
                cursor,
                format!(
                    "The server is on timeline {}, which left timeline {} at {left}, before the \
                     stored position {}: transactions that were applied here no longer exist \
                     there.",
                    now.timeline, cursor.timeline, cursor.commit_end
                ),
            )),
            None => Some(gap(
                GapReason::TimelineDiverged,
                cursor,
                format!(
                    "The server is on timeline {}, whose history does not contain timeline {} of \
                     the stored position {}.",
                    now.timeline, cursor.timeline, cursor.commit_end
                ),
            )),
        });
    }
    if cursor.commit_end > now.flushed {
        return Ok(Some(gap(
            GapReason::Restored,
            cursor,
            format!(
                "The server's log ends at {}, before the stored position {}: it was restored to \
                 an earlier point.",
                now.flushed, cursor.commit_end
            ),
        )));
    }
    Ok(None)
}

/// A gap behind a cursor, for all tables of the source; `to` is filled in when it is known.
pub(crate) fn gap(reason: GapReason, cursor: &PgCursor, detail: String) -> Gap {
    Gap {
        tables: Vec::new(),
        reason,
        from: Some(cursor.to_string()),
        to: None,
        detail,
    }
}

/// Where a history file says that `timeline` was left: lines of timeline, position, reason
/// (`readTimeLineHistory` in the server's timeline.c).
pub(crate) fn switch_point(history: &str, timeline: u32) -> Option<Lsn> {
    history
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .find_map(|line| {
            let mut fields = line.split_whitespace();
            let id: u32 = fields.next()?.parse().ok()?;
            let at: Lsn = fields.next()?.parse().ok()?;
            (id == timeline).then_some(at)
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

    use super::*;

    const HISTORY: &str = "1\t0/3000000\tno recovery target specified\n\n2\t0/5000000\tbefore x\n";

    fn stored() -> (Origin, PgCursor) {
        let origin = Origin {
            system: 7,
            timeline: 1,
            database: "hr".to_owned(),
            followed: Followed::default(),
        };
        let cursor = PgCursor {
            system_id: 7,
            timeline: 1,
            commit_end: Lsn(0x300_0000),
            inside: None,
        };
        (origin, cursor)
    }

    fn reason(present: Present<'_>) -> Option<GapReason> {
        let (origin, cursor) = stored();
        judge(&origin, &cursor, &present)
            .unwrap()
            .map(|gap| gap.reason)
    }

    fn same() -> Present<'static> {
        Present {
            system: 7,
            timeline: 1,
            database: "hr",
            flushed: Lsn(0x300_0000),
            history: None,
        }
    }

    #[test]
    fn the_same_history_goes_on_and_every_other_is_a_gap() {
        assert_eq!(reason(same()), None);
        let behind = Present {
            flushed: Lsn(0x2FF_FFF8),
            ..same()
        };
        assert_eq!(reason(behind), Some(GapReason::Restored));
        let other = Present {
            system: 8,
            ..same()
        };
        assert_eq!(reason(other), Some(GapReason::OtherServer));
    }

    #[test]
    fn a_new_timeline_goes_on_only_when_it_left_ours_behind_the_cursor() {
        let promoted = |history| Present {
            timeline: 3,
            history: Some(history),
            flushed: Lsn(0x600_0000),
            ..same()
        };
        assert_eq!(reason(promoted(HISTORY)), None);
        assert_eq!(
            reason(promoted("1\t0/2FFFFF8\tx\n")),
            Some(GapReason::TimelineDiverged)
        );
        assert_eq!(
            reason(promoted("2\t0/5000000\tx\n")),
            Some(GapReason::TimelineDiverged)
        );
        let unknown = Present {
            timeline: 3,
            ..same()
        };
        assert_eq!(reason(unknown), Some(GapReason::TimelineDiverged));
    }

    #[test]
    fn another_database_needs_an_operator() {
        let (origin, cursor) = stored();
        let elsewhere = Present {
            database: "crm",
            system: 8,
            ..same()
        };
        let error = judge(&origin, &cursor, &elsewhere).unwrap_err();
        assert_eq!(error.code(), "other_database");
        assert!(!error.is_transient());
    }

    #[test]
    fn what_the_store_keeps_is_read_back() {
        let (origin, _) = stored();
        assert_eq!(Origin::decode(&origin.encode()).unwrap(), origin);
        let foreign = Lineage("7123".to_owned());
        assert_eq!(
            Origin::decode(&foreign).unwrap_err().code(),
            "lineage_unreadable"
        );
    }
}
