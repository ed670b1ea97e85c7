//! What a simulation found, as people and programs read it, and as `rollcall apply` takes it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use rollcall_core::staged::Limit;
use serde::{Deserialize, Serialize};

use super::changes::Changes;
use crate::cli::exit::{Exit, Failure};
use crate::sync::planned::Planned;
use crate::sync::track::SourceTrack;
use crate::undo;
use crate::undo::plan::UndoPlan;

/// The form of plan files that this program writes and reads.
pub(crate) const FORMAT: u32 = 2;

/// A plan: what a reconciliation of a source would do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The form of this document.
    pub format: u32,
    /// That people's data is in it.
    pub note: String,
    /// When it was made, RFC 3339.
    pub made: String,
    /// The version of the program that made it.
    pub version: String,
    /// The organization.
    pub organization: String,
    /// The source.
    pub source: String,
    /// Readable position of the source when it was read.
    pub position: String,
    /// Rows that were read.
    pub rows: u64,
    /// How many of each action, by reason.
    pub counts: BTreeMap<String, BTreeMap<String, u64>>,
    /// How the plan stands to the source's limit.
    pub limit: LimitView,
    /// What changes, record by record, in the order in which it would be applied.
    pub changes: Changes,
    /// Changes that are counted and not listed.
    pub unlisted: u64,
    /// What `rollcall apply` needs.
    pub apply: Planned,
}

/// How a plan stands to its source's limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitView {
    /// Changes that count against the limit, by kind.
    pub counted: BTreeMap<String, u64>,
    /// All of them.
    pub changes: u64,
    /// Active users that records of the source lead to.
    pub linked: u64,
    /// Changes that were applied within the limit's window before.
    pub recent: u64,
    /// Whether changes of the source wait for approval: whatever counts joins them.
    pub is_open: bool,
    /// Whether a plan of people who are gone was discarded, and nobody has agreed to a like one since:
    /// whatever counts waits.
    #[serde(default)]
    pub is_given_up: bool,
    /// The most changes; none, here and below, when the source has no limit.
    pub max_changes: Option<u64>,
    /// The largest share of the linked users, in percent.
    pub max_percent: Option<f64>,
    /// So few never trip it.
    pub floor: Option<u64>,
    /// Whether a reconciliation would hold these changes back.
    pub trips: bool,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The keys of the records of this source that it comes from.
    pub records: Vec<String>,
    /// The user's id; none for one who would be new, and for records that lead to nobody.
    pub user: Option<String>,
    /// The user's name now, or the one it would have.
    pub user_name: Option<String>,
    /// What happens: `created`, `updated`, `identifier_changed`, `deactivated`, `activated`,
    /// `held`, `applied_again`, `left_out`, `unlinked`, `forgotten`.
    pub action: String,
    /// Why.
    pub reason: String,
    /// What it counts as against the source's limit.
    pub counted: Option<String>,
    /// The fields that change.
    pub fields: Vec<Field>,
}

/// A field before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// The attribute.
    pub attribute: String,
    /// Its value now.
    pub before: Option<String>,
    /// The value that it would have.
    pub after: Option<String>,
    /// The rule that it comes from.
    pub rule: String,
}

impl LimitView {
    /// The limit of a source as it is before anything is done; none when there is none.
    pub(super) fn of(track: &mut SourceTrack, linked: u64, now: i64) -> LimitView {
        let mut view = LimitView {
            linked,
            is_open: track.plan_open,
            is_given_up: track.given_up,
            ..LimitView::default()
        };
        if let Some(limit) = &mut track.limit {
            view.recent = limit.recent(now);
            let limit = limit.limit();
            view.max_changes = Some(limit.max_changes);
            view.max_percent = Some(limit.max_percent);
            view.floor = Some(limit.floor);
        }
        view
    }

    /// Compares what was counted with the limit.
    pub(crate) fn judge(&mut self) {
        let limit = self.max_changes.zip(self.max_percent).zip(self.floor);
        self.trips = limit.is_some_and(|((max_changes, max_percent), floor)| {
            let limit = Limit {
                max_changes,
                max_percent,
                floor,
            };
            let trips = limit.trips(self.changes + self.recent, self.linked);
            self.changes > 0 && (trips || self.is_open || self.is_given_up)
        });
    }
}

impl Plan {
    /// A plan of which nothing is found yet.
    pub(crate) fn new(organization: &str, source: &str) -> Plan {
        Plan {
            format: FORMAT,
            note: "This file holds personal data.".to_owned(),
            made: crate::api::views::rfc3339(crate::sync::clock::now_us()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            organization: organization.to_owned(),
            source: source.to_owned(),
            position: String::new(),
            rows: 0,
            counts: BTreeMap::new(),
            limit: LimitView::default(),
            changes: Changes::default(),
            unlisted: 0,
            apply: Planned::default(),
        }
    }

    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(super) fn count(&mut self, action: &str, reason: &str) {
        let reasons = self.counts.entry(action.to_owned()).or_default();
        *reasons.entry(reason.to_owned()).or_default() += 1;
    }
}

/// What is in a plan file.
#[derive(Debug)]
pub enum AnyPlan {
    /// What a reconciliation would do.
    Reconciliation(Box<Plan>),
    /// What an undo would do.
    Undo(Box<UndoPlan>),
}

impl AnyPlan {
    /// Reads what `rollcall apply` needs of a plan file, of any length.
    ///
    /// # Errors
    /// When it is none, or one that this program cannot apply.
    pub fn read(file: &Path) -> Result<AnyPlan, Failure> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
            #[serde(default)]
            kind: String,
            version: String,
        }
        let refuse = |sentence: String| Failure::new(Exit::Usage, sentence);
        let open = || {
            let opened = File::open(file);
            let opened =
                opened.map_err(|e| refuse(format!("{} cannot be read: {e}", file.display())));
            opened.map(BufReader::new)
        };
        let head: Head = serde_json::from_reader(open()?).map_err(|_| {
            refuse("this is no plan. Fix: make one with `rollcall plan SOURCE --out FILE` or `rollcall undo RUN --out FILE`".into())
        })?;
        let own = env!("CARGO_PKG_VERSION");
        if head.format != FORMAT || head.version != own {
            return Err(refuse(format!(
                "the plan was made by version {} of Rollcall, this is {own}. Fix: make a new plan",
                head.version
            )));
        }
        // What serde says of a fault quotes what it found.
        let damaged = |e: serde_json::Error| {
            refuse(format!(
                "the plan is damaged at line {}, column {}. Fix: make a new plan",
                e.line(),
                e.column()
            ))
        };
        let file = open()?;
        Ok(match head.kind.as_str() {
            undo::plan::KIND => AnyPlan::Undo(serde_json::from_reader(file).map_err(damaged)?),
            _ => AnyPlan::Reconciliation(serde_json::from_reader(file).map_err(damaged)?),
        })
    }
}
