//! Undo: a plan that takes back what runs did to users.
//!
//! ```text
//! outbox ─events of the runs, and what came since─► effects ─► decisions ─► plan
//!                                     users as they are now ────┘
//! ```
//!
//! What a run did is read from its events, for as long as they are kept; applying a change costs
//! nothing for it. Why the plan is whole: either no event since the run began has been removed,
//! or the run's own count of what it did says that all of its events are there. Otherwise the
//! plan is refused. The store is only read, and no source is asked.
//!
//! Events that come while the users are read are read behind them, and the users once more, so
//! what the plan says is one state of the store; where one does not stand still for that long,
//! the versions of the users, which the plan names, tell when it is applied.

pub mod plan;

use rollcall_core::attribute::{ACTIVE, Attributes, EMAIL, ROLES, USER_NAME};
use rollcall_core::document::Document;
use rollcall_core::event::EventKind;
use rollcall_core::id::{RunId, SourceId, UserId, ValueHash};
use rollcall_core::mapping::fold;
use rollcall_core::plan::Counters;
use rollcall_core::staged::Counted;
use rollcall_core::undo::{
    Decision, Effects, LeftOut, Returning, Wanted, leave_erased, leave_taken,
};
use rollcall_store::{Position, Readers, RunRow, StoreError};

use crate::api::views::rfc3339;
use crate::cli::exit::{Exit, Failure};
use crate::simulation::changes::Changes;
use crate::simulation::folder::Folder;
use crate::simulation::plan::{Change, Field};
use crate::sync::planned::MAX_RECORDS;
use crate::sync::undoing::{self, UndoneUser};
use plan::UndoPlan;

/// Bytes of events that are read at once.
const EVENT_BYTES: usize = 8 << 20;

/// So often is looked whether anything came while users were read.
const ROUNDS: usize = 5;

/// Whose effects are taken back.
#[derive(Clone, Debug)]
pub enum Whose {
    /// Those of one run.
    Run(Box<RunRow>),
    /// Those of all runs within a time.
    Span {
        /// From then on, microseconds since the Unix epoch.
        since_us: i64,
        /// Up to then.
        until_us: i64,
        /// Only those of a source's runs.
        source: Option<SourceId>,
    },
}

impl Whose {
    fn has(&self, event: &rollcall_core::event::Event<'_>, stored_us: i64) -> bool {
        match self {
            Whose::Run(run) => event.run == run.id,
            Whose::Span {
                since_us,
                until_us,
                source,
            } => {
                event.run != RunId(0)
                    && (*since_us..=*until_us).contains(&stored_us)
                    && source.is_none_or(|source| event.source == Some(source))
            }
        }
    }

    fn since_us(&self) -> i64 {
        match self {
            Whose::Run(run) => run.started_us,
            Whose::Span { since_us, .. } => *since_us,
        }
    }

    /// In words, as whoever looks at a user reads it.
    pub fn reason(&self) -> String {
        match self {
            Whose::Run(run) => format!("undo of run {}", run.id.0),
            Whose::Span {
                since_us, until_us, ..
            } => format!(
                "undo of all runs from {} to {}",
                rfc3339(*since_us),
                rfc3339(*until_us)
            ),
        }
    }
}

/// What has been read of the outbox.
struct Read<'a> {
    readers: &'a Readers,
    whose: &'a Whose,
    only: Option<UserId>,
    effects: Effects<'a>,
    /// What the events of the run say that it did.
    told: Counters,
    /// Where to read on.
    next: Position,
}

impl Read<'_> {
    /// Reads on to the end.
    fn on(&mut self) -> Result<(), Failure> {
        loop {
            let blocks = self.readers.outbox_from(self.next, EVENT_BYTES)?;
            let Some(last) = blocks.last() else {
                return Ok(());
            };
            self.next = last.last_position().next();
            for block in &blocks {
                // The last update, which may come with a deactivation.
                let mut update = None;
                for placed in block.events() {
                    let event = placed.map_err(damaged)?.event;
                    let is_of = self.whose.has(&event, block.created_us);
                    if is_of {
                        count(&mut self.told, &event, &mut update);
                    }
                    if self.only.is_some_and(|only| event.user != Some(only)) {
                        continue;
                    }
                    self.effects
                        .take_in(&event, is_of, block.created_us)
                        .map_err(damaged)?;
                }
            }
            if self.effects.len() > MAX_RECORDS {
                let sentence = format!(
                    "more than {MAX_RECORDS} users were changed, and a plan holds no more. Fix: undo a shorter time, or one user with --user"
                );
                return Err(Failure::new(Exit::Failed, sentence));
            }
        }
    }
}

fn damaged(e: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged {
        detail: e.to_string(),
    }
}

/// Counts an event as its run has counted the change ([`Counters`]): an update that came with a
/// deactivation or an activation is that alone.
fn count(
    told: &mut Counters,
    event: &rollcall_core::event::Event<'_>,
    update: &mut Option<(UserId, Vec<u8>)>,
) {
    let version = || {
        let version = event.data.split(|b| *b == b',').next();
        Some((event.user?, version?.to_vec()))
    };
    match event.kind {
        EventKind::UserCreated => told.created += 1,
        EventKind::UserDeleted => told.deleted += 1,
        EventKind::UserUpdated => {
            told.updated += 1;
            *update = version();
            return;
        }
        EventKind::IdentifierChanged => return,
        EventKind::UserDeactivated => told.deactivated += 1,
        EventKind::UserActivated => told.activated += 1,
        _ => return,
    }
    if update.is_some() && *update == version() {
        told.updated -= 1;
    }
    *update = None;
}

fn says_as_much(told: &Counters, run: &Counters) -> bool {
    let of = |c: &Counters| (c.created, c.updated, c.deactivated, c.activated, c.deleted);
    of(told) == of(run)
}

/// Makes a plan that takes back what runs did, of everybody or of one user.
///
/// # Errors
/// When the store cannot be read, or events are no longer kept.
pub fn plan(
    readers: &Readers,
    organization: &str,
    whose: &Whose,
    only: Option<UserId>,
) -> Result<UndoPlan, Failure> {
    let attributes = Attributes::new(readers.custom_attributes()?);
    let oldest = readers.outbox_since(i64::MIN)?;
    let head = readers.counts()?.next_position;
    let first = readers.outbox_since(whose.since_us())?;
    let mut read = Read {
        readers,
        whose,
        only,
        effects: Effects::new(&attributes),
        told: Counters::default(),
        next: first.map_or(head, |(position, _)| position),
    };
    read.on()?;
    let is_trimmed = match oldest {
        Some((position, at_us)) => position != Position(1) && at_us > whose.since_us(),
        None => head > Position(1),
    };
    let is_whole = match whose {
        // A run that goes on counts with each commit.
        Whose::Run(run) => says_as_much(&read.told, &run.counters),
        Whose::Span { .. } => false,
    };
    if is_trimmed && !is_whole {
        return Err(no_longer(whose, oldest.map(|(_, at_us)| at_us)));
    }
    let mut users = Vec::new();
    for round in 0..ROUNDS {
        users = returning(&read)?;
        let before = read.next;
        read.on()?;
        if read.next == before || round + 1 == ROUNDS {
            break;
        }
    }
    leave_erased(&mut users, &attributes, |id| {
        Ok::<_, StoreError>(undoing::place(readers, id)?.is_some())
    })?;
    leave_taken(&mut users, &attributes, |attribute, folded| {
        let mut owners = Vec::new();
        for row in readers.users_by_value(ValueHash::of(folded))? {
            let document = Document::decode(&row.document).map_err(damaged)?;
            let mut own = Vec::new();
            fold(document.value(attribute).unwrap_or_default(), &mut own);
            if document.is_active() && own == folded {
                owners.push((row.row, document.id));
            }
        }
        Ok::<_, StoreError>(owners)
    })?;
    write(readers, organization, whose, &attributes, &read, &users)
}

fn no_longer(whose: &Whose, oldest_us: Option<i64>) -> Failure {
    let from = match oldest_us {
        Some(us) => format!("undo is possible for what was done since {}", rfc3339(us)),
        None => "no event is kept at present".to_owned(),
    };
    let what = match whose {
        Whose::Run(run) => format!("of what run {} did, not everything is kept", run.id.0),
        Whose::Span { since_us, .. } => {
            format!(
                "of what was done since {}, not everything is kept",
                rfc3339(*since_us)
            )
        }
    };
    let sentence = format!(
        "{what}, and nothing is undone by halves: {from}. `store.outbox_retention` and `store.outbox_max_bytes` say how long events are kept"
    );
    Failure::new(Exit::Failed, sentence)
}

/// What can be taken back of each user, the one that was changed last first.
fn returning(read: &Read<'_>) -> Result<Vec<Returning>, Failure> {
    let mut users = Vec::with_capacity(read.effects.len());
    for id in read.effects.users().rev() {
        let stored = read.readers.user_by_id(id)?;
        let document = match &stored {
            Some(row) => Some(Document::decode(&row.document).map_err(damaged)?),
            None => None,
        };
        let decision = read.effects.decide(id, document.as_ref());
        users.push(match (&stored, &document) {
            (Some(row), Some(document)) => Returning::new(row.row, document, decision),
            _ => Returning::gone(id, decision),
        });
    }
    Ok(users)
}

/// Writes what was decided into a plan.
fn write(
    readers: &Readers,
    organization: &str,
    whose: &Whose,
    attributes: &Attributes,
    read: &Read<'_>,
    users: &[Returning],
) -> Result<UndoPlan, Failure> {
    let folder = Folder::make()?;
    let mut plan = UndoPlan::new(organization, &whose.reason());
    plan.changes = Changes::in_folder(folder.path())?;
    plan.left_out = Changes::in_folder(folder.path())?;
    plan.apply.store = readers.identity()?.store;
    plan.users = read.effects.len() as u64;
    for (place, user) in users.iter().enumerate() {
        let stored = match user.row {
            Some(row) => readers.user(row)?,
            None => None,
        };
        let document = match &stored {
            Some(row) => Some(Document::decode(&row.document).map_err(damaged)?),
            None => None,
        };
        let place = (place as u32, 0);
        let shown = Shown {
            attributes,
            reason: &plan.of,
            user: user.id,
            document: document.as_ref(),
        };
        let lines: Vec<Change> = user.decision.left.iter().map(|l| shown.left(l)).collect();
        for line in lines {
            *plan.left_counts.entry(line.reason.clone()).or_default() += 1;
            plan.left_out.push(place, &line)?;
        }
        let (Some(row), Some(document)) = (user.row, &document) else {
            continue;
        };
        if user.decision.is_empty() {
            continue;
        }
        let counted = counted(document, &user.decision);
        let change = shown.change(&user.decision, counted);
        let actions = plan.counts.entry(change.action.clone()).or_default();
        *actions.entry(change.reason.clone()).or_default() += 1;
        if let Some(kind) = counted {
            let links = document.links.iter().filter(|l| l.state.is_present());
            let mut sources: Vec<SourceId> = links.map(|l| l.source).collect();
            sources.sort_unstable();
            sources.dedup();
            plan.count(kind, &sources);
        }
        plan.changes.push(place, &change)?;
        let undone = UndoneUser::new((row, document), &user.decision, attributes);
        plan.apply.users.push(undone);
    }
    plan.apply.reason.clone_from(&plan.of);
    if let Whose::Run(run) = whose {
        let sources = readers.sources()?;
        let source = sources.into_iter().find(|source| source.id == run.source);
        plan.apply.source = source.map(|source| source.name);
    }
    plan.changes.end()?;
    plan.left_out.end()?;
    Ok(plan)
}

/// What an undo takes from somebody who works, as the limits of sources count it.
fn counted(user: &Document<'_>, decision: &Decision) -> Option<Counted> {
    if !user.is_active() {
        return None;
    }
    if decision.active == Some(false) {
        return Some(Counted::Undone);
    }
    let is_identifier = |a| a == EMAIL || a == USER_NAME;
    let fields = &decision.fields;
    if fields
        .iter()
        .any(|(a, _)| is_identifier(*a) && user.value(*a).is_some())
    {
        return Some(Counted::Identifier);
    }
    let loses = |to: &Wanted| matches!(to, Wanted::Parts { without, .. } if !without.is_empty());
    let roles = fields.iter().any(|(a, to)| *a == ROLES && loses(to));
    roles.then_some(Counted::Roles)
}

/// A user, for the lines of a plan.
struct Shown<'s, 'd> {
    attributes: &'s Attributes,
    reason: &'s str,
    user: UserId,
    document: Option<&'s Document<'d>>,
}

impl Shown<'_, '_> {
    fn line(&self, action: &str, reason: &str) -> Change {
        let name = self.document.and_then(|d| d.value(USER_NAME));
        Change {
            records: Vec::new(),
            user: Some(self.user.to_string()),
            user_name: name.map(|name| String::from_utf8_lossy(name).into_owned()),
            action: action.to_owned(),
            reason: reason.to_owned(),
            counted: None,
            fields: Vec::new(),
        }
    }

    fn change(&self, decision: &Decision, counted: Option<Counted>) -> Change {
        let has = |id| decision.fields.iter().any(|(a, _)| *a == id);
        let action = match decision.active {
            Some(true) => "activated",
            Some(false) => "deactivated",
            None if has(EMAIL) || has(USER_NAME) => "identifier_changed",
            None => "updated",
        };
        let mut change = self.line(action, "undone");
        change.counted = counted.map(|kind| kind.as_str().to_owned());
        for (attribute, to) in &decision.fields {
            let (before, after) = match to {
                Wanted::Value { before, after } => (before.clone(), after.clone()),
                Wanted::User { before, after } => (before.clone(), Some(after.clone())),
                Wanted::Parts { without, with } => {
                    let parts = self.document.map(|d| d.parts(*attribute));
                    let now: Vec<String> = parts.into_iter().flatten().map(str::to_owned).collect();
                    let mut then = now.clone();
                    then.retain(|part| !without.contains(part));
                    then.extend(with.iter().filter(|p| !now.contains(p)).cloned());
                    then.sort_unstable();
                    (list(&now), list(&then))
                }
            };
            change
                .fields
                .push(self.field(Some(*attribute), before, after));
        }
        if let Some(active) = decision.active {
            let (before, after) = (Some((!active).to_string()), Some(active.to_string()));
            change.fields.push(self.field(Some(ACTIVE), before, after));
        }
        change
    }

    fn field(
        &self,
        attribute: Option<rollcall_core::attribute::AttrId>,
        before: Option<String>,
        after: Option<String>,
    ) -> Field {
        let known = attribute.and_then(|a| self.attributes.get(a));
        Field {
            attribute: known.map_or_else(String::new, |a| a.name.clone()),
            before,
            after,
            rule: self.reason.to_owned(),
        }
    }

    fn left(&self, left: &LeftOut) -> Change {
        let mut line = self.line("left_out", left.why.as_str());
        line.fields.push(Field {
            attribute: left.attribute.clone().unwrap_or_default(),
            before: left.now.clone(),
            after: left.then.clone(),
            rule: left.why.sentence(),
        });
        line
    }
}

fn list(parts: &[String]) -> Option<String> {
    (!parts.is_empty()).then(|| parts.join(", "))
}
