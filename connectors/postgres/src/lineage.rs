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
//! Whatever is not proved is a gap. While the table is polled there is no cursor: then the
//! first question is asked alone, of an ordinary connection.

use rollcall_contract::{ConnectorError, Gap, GapReason, Lineage, OTHER_SERVER};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::followed::Identities;
use crate::lsn::Lsn;
use crate::position::PgCursor;
use crate::query;
use crate::wire::{SystemIdentity, TimelineSwitch};

/// What the store keeps as the [`Lineage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// `IDENTIFY_SYSTEM`'s systemid.
    pub(crate) system: u64,
    pub(crate) timeline: u32,
    pub(crate) database: String,
    pub(crate) followed: Identities,
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
    /// Where the earlier timelines of this history ended.
    pub(crate) history: &'a [TimelineSwitch],
}

/// The server that an ordinary connection ends at.
pub(crate) async fn identify(client: &Client, database: &str) -> Result<Origin, ConnectorError> {
    let row = client
        .query_one(
            "SELECT s.system_identifier, c.timeline_id \
             FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c",
            &[],
        )
        .await
        .map_err(|e| query::failed(&e, "asking which server this is"))?;
    Ok(Origin {
        system: row.get::<_, i64>(0) as u64,
        timeline: row.get::<_, i32>(1) as u32,
        database: database.to_owned(),
        followed: Identities::default(),
    })
}

/// Refuses another server than the one that is known.
pub(crate) fn expect(known: &Origin, found: &Origin) -> Result<(), ConnectorError> {
    if known.database == found.database && known.system == found.system {
        return Ok(());
    }
    Err(ConnectorError::definite(
        OTHER_SERVER,
        format!(
            "This is database \"{}\" of cluster {}, and what is known was read from database \
             \"{}\" of cluster {}.",
            found.database, found.system, known.database, known.system
        ),
        "Correct host and database in the configuration. If this server has taken the other \
         one's place, make its log readable, or set mode = \"always\" in `poll`: then \
         everything is read again.",
    ))
}

/// The gap behind a time in which the table was polled.
pub(crate) fn not_followed(known: &Origin, now: &SystemIdentity, database: &str) -> Gap {
    let (reason, detail) = match known.system == now.system_id && known.database == database {
        true => (
            GapReason::NotFollowed,
            "The log was not followed for a while, and the table polled; everything is read \
             again."
                .to_owned(),
        ),
        false => (
            GapReason::OtherServer,
            format!(
                "The server is another cluster ({}) than the one that was polled ({}); \
                 everything is read again.",
                now.system_id, known.system
            ),
        ),
    };
    Gap {
        tables: Vec::new(),
        reason,
        from: None,
        to: None,
        detail,
    }
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
    // What was applied here reaches into the transaction that the cursor stands in.
    let applied = match &cursor.inside {
        Some(inside) => Lsn(inside.final_lsn.0 + 1),
        None => cursor.commit_end,
    };
    if cursor.timeline != now.timeline {
        let left = now
            .history
            .iter()
            .find(|switch| switch.timeline == cursor.timeline)
            .map(|switch| switch.at);
        return Ok(match left {
            Some(left) if left >= applied => None,
            Some(left) => Some(gap(
                GapReason::TimelineDiverged,
                cursor,
                format!(
                    "The server is on timeline {}, which left timeline {} at {left}, before the \
                     stored position {cursor}: transactions that were applied here no longer \
                     exist there.",
                    now.timeline, cursor.timeline
                ),
            )),
            None => Some(gap(
                GapReason::TimelineDiverged,
                cursor,
                format!(
                    "The server is on timeline {}, whose history does not contain timeline {} of \
                     the stored position {cursor}.",
                    now.timeline, cursor.timeline
                ),
            )),
        });
    }
    if applied > now.flushed {
        return Ok(Some(gap(
            GapReason::Restored,
            cursor,
            format!(
                "The server's log ends at {}, before the stored position {cursor}: it was \
                 restored to an earlier point.",
                now.flushed
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

    use super::*;

    fn left(timeline: u32, at: u64) -> TimelineSwitch {
        TimelineSwitch {
            timeline,
            at: Lsn(at),
        }
    }

    fn stored() -> (Origin, PgCursor) {
        let origin = Origin {
            system: 7,
            timeline: 1,
            database: "hr".to_owned(),
            followed: Identities::default(),
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
            history: &[],
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
        let promoted = |history: &[TimelineSwitch]| {
            reason(Present {
                timeline: 3,
                history,
                flushed: Lsn(0x600_0000),
                ..same()
            })
        };
        let diverged = Some(GapReason::TimelineDiverged);
        assert_eq!(promoted(&[left(1, 0x300_0000), left(2, 0x500_0000)]), None);
        assert_eq!(
            promoted(&[left(1, 0x2FF_FFF8), left(2, 0x500_0000)]),
            diverged
        );
        assert_eq!(promoted(&[left(2, 0x500_0000)]), diverged);
        let unknown = Present {
            timeline: 3,
            ..same()
        };
        assert_eq!(reason(unknown), Some(GapReason::TimelineDiverged));
    }

    #[test]
    fn a_transaction_that_was_half_applied_must_be_whole_on_the_new_timeline() {
        let (origin, mut cursor) = stored();
        cursor.inside = Some(crate::position::Inside {
            final_lsn: Lsn(0x400_0000),
            rows: 5,
        });
        let judged = |at| {
            let now = Present {
                timeline: 2,
                history: &[left(1, at)],
                flushed: Lsn(0x600_0000),
                ..same()
            };
            judge(&origin, &cursor, &now).unwrap().map(|gap| gap.reason)
        };
        assert_eq!(judged(0x400_0000), Some(GapReason::TimelineDiverged));
        assert_eq!(judged(0x400_0030), None);
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
