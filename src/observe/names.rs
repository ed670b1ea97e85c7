//! The names of all metrics, in one place. Units stand last, as Prometheus asks.

/// Changes taken in, by `source`, `outcome` and, for those not applied, `reason`.
pub const CHANGES: &str = "rollcall_changes_total";
/// Seconds from the commit at the source to the commit in the store, by `source`.
pub const COMMIT_TO_STORE: &str = "rollcall_commit_to_store_seconds";
/// Seconds from the commit at the source to certain delivery, by `sink`.
pub const COMMIT_TO_DELIVERED: &str = "rollcall_commit_to_delivered_seconds";
/// Seconds that one commit of the store took.
pub const STORE_COMMIT: &str = "rollcall_store_commit_seconds";
/// Records delivered, by `sink`.
pub const DELIVERED: &str = "rollcall_delivered_total";
/// Records that a sink refused and that are parked, by `sink`.
pub const PARKED: &str = "rollcall_parked_records";
/// Bytes of log between what is confirmed and the server's head, by `source`.
pub const LAG_BYTES: &str = "rollcall_source_lag_bytes";
/// Seconds since the commit of the last change taken in, while the source is behind, by
/// `source`.
pub const LAG_SECONDS: &str = "rollcall_source_lag_seconds";
/// Bytes of log that the server keeps because of us, by `source`.
pub const RETAINED_BYTES: &str = "rollcall_source_retained_wal_bytes";
/// Bytes that may be written before the server gives up on us, by `source`.
pub const SAFE_BYTES: &str = "rollcall_source_safe_wal_size_bytes";
/// 1 for the state that a source is in, by `source` and `state`.
pub const SOURCE_STATE: &str = "rollcall_source_state";
/// Gaps that are open, by `source`.
pub const GAPS_OPEN: &str = "rollcall_source_gaps_open";
/// Gaps opened, by `source` and `reason`.
pub const GAPS: &str = "rollcall_source_gaps_total";
/// Records of which a change waits for approval, by `source`.
pub const PLAN_RECORDS: &str = "rollcall_plan_records";
/// Bytes of batches between reader and store, by `source`.
pub const QUEUED_BYTES: &str = "rollcall_queued_bytes";
/// Rows read by the scan that is under way, by `source`.
pub const SCAN_ROWS: &str = "rollcall_scan_rows";
/// The server's estimate of the rows of the table that is scanned, by `source`.
pub const SCAN_TOTAL_ROWS: &str = "rollcall_scan_total_rows";
/// Rows that the scan which is under way reads each second, by `source`.
pub const SCAN_ROWS_PER_SECOND: &str = "rollcall_scan_rows_per_second";
/// Seconds until the scan which is under way has read everything, by `source`.
pub const SCAN_LEFT: &str = "rollcall_scan_left_seconds";
/// Rows that a whole poll found changed without a change of their change column, by
/// `source`.
pub const POLL_UNMARKED: &str = "rollcall_poll_unmarked_changes_total";
/// Seconds since the last rolling proof that was whole ended, or since the first one was begun
/// when none has ended, by `source`.
pub const PROOF_AGE: &str = "rollcall_proof_age_seconds";
/// Records of which a rolling proof is certain that they differ, by `source`.
pub const DRIFTED: &str = "rollcall_drifted_records";
/// The last position of the outbox.
pub const OUTBOX_HEAD: &str = "rollcall_outbox_head_position";
/// The last position that a sink certainly has, by `sink`.
pub const SINK_POSITION: &str = "rollcall_sink_position";
/// Users, by `active` (`true`, `false`).
pub const USERS: &str = "rollcall_users";
/// Conflicts that are open.
pub const CONFLICTS_OPEN: &str = "rollcall_conflicts_open";
