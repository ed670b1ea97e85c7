//! What should be stored: the whole effect of one batch.
//!
//! A plan is applied in one transaction together with the cursor. It holds final states
//! only (a user that changed three times in a batch is written once), while its events
//! hold every change in order.

use hashbrown::HashMap;

use crate::conflict::{ConflictRow, Fingerprint};
use crate::event::EventBlock;
use crate::id::{MatchHash, SourceId, UserRow};
use crate::state::{KeyBytes, LinkTarget};

/// A user to be written.
#[derive(Clone, Debug, Default)]
pub struct UserWrite {
    /// The whole document; see [`crate::document`].
    pub document: Vec<u8>,
    /// For lists and search. Only filled in when `columns_changed`.
    pub user_name: Option<String>,
    /// For lists and search. Only filled in when `columns_changed`.
    pub display_name: Option<String>,
    /// For lists and search.
    pub active: bool,
    /// Microseconds since the Unix epoch.
    pub updated_us: i64,
    /// Whether the user is new in this plan (an insert, ascending).
    pub is_new: bool,
    /// Whether the columns beside the document changed.
    pub columns_changed: bool,
}

/// What happened, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Records looked at.
    pub processed: u64,
    /// Users created.
    pub created: u64,
    /// Users whose attributes changed.
    pub updated: u64,
    /// Users deactivated.
    pub deactivated: u64,
    /// Users activated again.
    pub activated: u64,
    /// Records that changed nothing about their user.
    pub unchanged: u64,
    /// Records left out or held, by reason number.
    pub skipped: u64,
    /// Records that failed.
    pub errored: u64,
}

impl Counters {
    /// Adds another count.
    pub fn add(&mut self, other: &Counters) {
        self.processed += other.processed;
        self.created += other.created;
        self.updated += other.updated;
        self.deactivated += other.deactivated;
        self.activated += other.activated;
        self.unchanged += other.unchanged;
        self.skipped += other.skipped;
        self.errored += other.errored;
    }
}

/// The effects of one batch on the directory.
#[derive(Debug, Default)]
pub struct Plan {
    /// Users by their place.
    pub users: HashMap<UserRow, UserWrite>,
    /// Links made or moved (`Some`) and broken (`None`).
    pub links: HashMap<(SourceId, KeyBytes), Option<LinkTarget>>,
    /// Records without a user: written (`Some`) and removed (`None`).
    pub records: HashMap<(SourceId, KeyBytes), Option<Vec<u8>>>,
    /// Match keys gained (`true`) and lost (`false`); the last word counts.
    pub match_keys: HashMap<(MatchHash, UserRow), bool>,
    /// Records that begin (`true`) or cease (`false`) to wait for a match key.
    pub waiting: HashMap<(MatchHash, SourceId, KeyBytes), bool>,
    /// Conflicts opened, changed or closed.
    pub conflicts: HashMap<Fingerprint, ConflictRow>,
    /// Every event, in order.
    pub events: EventBlock,
    /// What happened.
    pub counters: Counters,
    /// Records to be read again, because a value was neither in the image nor in the store.
    /// One may be named several times.
    pub reread: Vec<(SourceId, KeyBytes)>,
}
