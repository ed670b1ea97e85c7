//! What an undo would do, as people and programs read it, and as `rollcall apply` takes it.

use std::collections::BTreeMap;

use rollcall_core::id::SourceId;
use rollcall_core::staged::Counted;
use rollcall_store::Readers;
use serde::{Deserialize, Serialize};

use crate::api::views::rfc3339;
use crate::cli::exit::Failure;
use crate::config::LimitConfig;
use crate::simulation::changes::Changes;
use crate::simulation::plan::{FORMAT, LimitView};
use crate::sync::clock::now_us;
use crate::sync::staging;
use crate::sync::undoing::Undoing;

/// What `kind` says in the file of such a plan.
pub const KIND: &str = "undo";

/// A plan that takes back what runs did to users.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UndoPlan {
    /// The form of this document.
    pub format: u32,
    /// Tells it from the plan of a reconciliation: [`KIND`].
    pub kind: String,
    /// That people's data is in it.
    pub note: String,
    /// When it was made, RFC 3339.
    pub made: String,
    /// The version of the program that made it.
    pub version: String,
    /// The organization.
    pub organization: String,
    /// What is undone, in words.
    pub of: String,
    /// Users that these runs have changed.
    pub users: u64,
    /// How many of each action, by reason.
    pub counts: BTreeMap<String, BTreeMap<String, u64>>,
    /// How much is left out, by reason.
    pub left_counts: BTreeMap<String, u64>,
    /// How the plan stands to the limit of each source that it takes users from.
    pub limits: BTreeMap<String, LimitView>,
    /// What changes, user by user.
    pub changes: Changes,
    /// What is left out, and why.
    pub left_out: Changes,
    /// What `rollcall apply` needs.
    pub apply: Undoing,
    /// What is counted, by source.
    #[serde(skip)]
    counted: BTreeMap<SourceId, BTreeMap<Counted, u64>>,
}

impl UndoPlan {
    /// A plan in which nothing is yet.
    pub(super) fn new(organization: &str, of: &str) -> UndoPlan {
        UndoPlan {
            format: FORMAT,
            kind: KIND.to_owned(),
            note: "This file holds personal data.".to_owned(),
            made: rfc3339(now_us()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            organization: organization.to_owned(),
            of: of.to_owned(),
            users: 0,
            counts: BTreeMap::new(),
            left_counts: BTreeMap::new(),
            limits: BTreeMap::new(),
            changes: Changes::default(),
            left_out: Changes::default(),
            apply: Undoing::default(),
            counted: BTreeMap::new(),
        }
    }

    /// One user more loses something, of whom records of these sources are there.
    pub(super) fn count(&mut self, kind: Counted, sources: &[SourceId]) {
        for source in sources {
            let kinds = self.counted.entry(*source).or_default();
            *kinds.entry(kind).or_default() += 1;
        }
    }

    /// Compares what is counted with the limits of the sources.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn judge(
        &mut self,
        readers: &Readers,
        limits: &BTreeMap<String, Option<LimitConfig>>,
    ) -> Result<(), Failure> {
        let counts = readers.counts()?;
        let open = readers.plans()?;
        for source in readers.sources()? {
            let Some(kinds) = self.counted.get(&source.id) else {
                continue;
            };
            let named = kinds.iter().map(|(k, n)| (k.as_str().to_owned(), *n));
            let mut view = LimitView {
                counted: named.collect(),
                changes: kinds.values().sum(),
                linked: counts.linked_of(source.id),
                is_open: open.iter().any(|plan| plan.source == source.id),
                ..LimitView::default()
            };
            if let Some(limit) = limits.get(&source.name).copied().flatten() {
                let window_us = i64::try_from(limit.window.as_micros()).unwrap_or(i64::MAX);
                let since = staging::minute(now_us()) - staging::window_minutes(window_us);
                let recent = readers.counted_since(source.id, since)?;
                view.recent = recent.iter().map(|(_, n)| n).sum();
                view.max_changes = Some(limit.max_changes);
                view.max_percent = Some(limit.max_percent);
                view.floor = Some(limit.floor);
            }
            view.judge();
            self.limits.insert(source.name, view);
        }
        Ok(())
    }
}
