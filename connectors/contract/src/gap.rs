//! What might have been lost.

use crate::TableName;

/// Everything that could have lost data is one of these. It is closed only by a completed
/// scan of the source.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Gap {
    /// The tables concerned; empty means all tables of the source.
    pub tables: Vec<TableName>,
    /// Why continuity cannot be proved.
    pub reason: GapReason,
    /// Readable position up to which everything is known to be applied.
    pub from: Option<String>,
    /// Readable position from which the log is whole again.
    pub to: Option<String>,
    /// One sentence for the operator: what was found, and what follows.
    pub detail: String,
}

/// The closed list of reasons. `as_str` is what metrics, the store and events carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The first load: nothing of this source has been read yet.
    InitialLoad,
    /// The server is another one than the one that the cursor belongs to.
    OtherServer,
    /// A fail-over lost transactions that were already applied.
    TimelineDiverged,
    /// The slot, or the log at the cursor, no longer exists.
    PositionLost,
    /// The slot exists and was invalidated by the server.
    SlotInvalidated,
    /// Someone else moved or recreated the slot past the cursor.
    SlotAdvanced,
    /// The server's log ends before the cursor: it was restored to an earlier point.
    Restored,
    /// The publication was dropped, recreated, or no longer lists the table.
    PublicationChanged,
    /// Changes were made that the log does not carry as rows: statements in place of them,
    /// or what the server itself could not write.
    NotInLog,
    /// The table was dropped and created again.
    TableRecreated,
    /// The table was emptied at once: everybody is absent, and that needs a look.
    Truncated,
    /// Partitions were attached or detached.
    PartitionsChanged,
    /// Columns changed in a way that the log does not carry to old rows.
    SchemaChanged,
    /// The log was not followed for a while: the table was polled in its place.
    NotFollowed,
    /// The mapping in the configuration is another one than the one that was applied, or
    /// names other related tables.
    MappingChanged,
    /// The store was restored and a sink is ahead of it.
    StoreRestored,
}

impl GapReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [GapReason; 16] = [
        GapReason::InitialLoad,
        GapReason::OtherServer,
        GapReason::TimelineDiverged,
        GapReason::PositionLost,
        GapReason::SlotInvalidated,
        GapReason::SlotAdvanced,
        GapReason::Restored,
        GapReason::PublicationChanged,
        GapReason::NotInLog,
        GapReason::TableRecreated,
        GapReason::Truncated,
        GapReason::PartitionsChanged,
        GapReason::SchemaChanged,
        GapReason::NotFollowed,
        GapReason::MappingChanged,
        GapReason::StoreRestored,
    ];

    /// Whether the source's history is another one from here on: what was applied may never
    /// have happened there, and its transaction ids say nothing about the new ones.
    pub fn is_other_history(self) -> bool {
        matches!(
            self,
            GapReason::OtherServer
                | GapReason::TimelineDiverged
                | GapReason::Restored
                // Nobody saw what became of the server meanwhile.
                | GapReason::NotFollowed
        )
    }

    /// The stable name used in metrics, events and the store.
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::InitialLoad => "initial_load",
            GapReason::OtherServer => "other_server",
            GapReason::TimelineDiverged => "timeline_diverged",
            GapReason::PositionLost => "position_lost",
            GapReason::SlotInvalidated => "slot_invalidated",
            GapReason::SlotAdvanced => "slot_advanced",
            GapReason::Restored => "restored",
            GapReason::PublicationChanged => "publication_changed",
            GapReason::NotInLog => "not_in_log",
            GapReason::TableRecreated => "table_recreated",
            GapReason::Truncated => "truncated",
            GapReason::PartitionsChanged => "partitions_changed",
            GapReason::SchemaChanged => "schema_changed",
            GapReason::NotFollowed => "not_followed",
            GapReason::MappingChanged => "mapping_changed",
            GapReason::StoreRestored => "store_restored",
        }
    }
}
