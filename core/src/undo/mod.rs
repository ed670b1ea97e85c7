//! What runs did to users, told by their events, and what of it can be taken back.
//!
//! Events hold each changed field before and after ([`crate::event::body`]), so a run's effect
//! on a field is what was there before its first change and after its last one. Of a list each
//! part is looked at for itself: whether it was there. Nothing is taken back of which somebody
//! else has had a word since: a later change by another run or by a person ends what the runs
//! are answerable for, and so does one in between. What is left then begins with the next change
//! of these runs, so what goes back goes back to what the other one had left.
//!
//! Events are given in the order of the outbox, from the first of these runs to the last there
//! is. Only of users that these runs have changed anything is kept.

mod identity;

pub use identity::{Returning, leave_erased, leave_taken};

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};
use serde_json::{Map, Value as Json};

use crate::attribute::{ACTIVE, AttrId, AttrType, Attribute, Attributes};
use crate::directory::Back;
use crate::document::{Document, UserState};
use crate::event::{Event, EventKind};
use crate::id::{RunId, UserId, UserRow};

/// An event's body is not what its kind says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event in the outbox is damaged")]
pub struct BodyError;

/// What runs did, by user.
#[derive(Debug)]
pub struct Effects<'a> {
    attributes: &'a Attributes,
    users: HashMap<UserId, Effect>,
    /// Users in the order in which they were first changed.
    order: Vec<UserId>,
    /// These runs.
    runs: HashSet<RunId>,
}

/// What runs did to one user.
#[derive(Clone, Debug, Default)]
struct Effect {
    /// Whether they made it.
    created: bool,
    changes: Vec<Change>,
    /// Attributes that the configuration does not have any more.
    unknown: Vec<Box<str>>,
}

/// What runs did to one field, or to one part of a list.
#[derive(Clone, Debug)]
struct Change {
    attribute: AttrId,
    /// Which part.
    part: Option<Box<str>>,
    /// The value before; of a part, that it was there.
    before: Option<Box<str>>,
    after: Option<Box<str>>,
    /// When the runs last changed it, microseconds since the Unix epoch.
    at_us: i64,
    /// Who has changed it since; run 0 is nobody's.
    since: Option<RunId>,
    /// Who changed it between two changes of these runs.
    between: Option<RunId>,
}

/// What is not taken back, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The attribute; none for all of the user.
    pub attribute: Option<String>,
    /// What is there now; of a list the part, if it is.
    pub now: Option<String>,
    /// What was there before the runs; of a list the part, if it was.
    pub then: Option<String>,
    /// Why.
    pub why: Why,
}

/// Why something is not taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Another run has changed it since.
    ChangedByRun(RunId),
    /// A person has changed it since.
    ChangedByPerson,
    /// It was changed while the events were read.
    ChangedJustNow,
    /// It was changed between two changes of these runs, by another run or (0) a person: only
    /// what came behind that is taken back.
    ChangedBetween(RunId),
    /// A person has pinned the field.
    Pinned,
    /// The userName or email is another user's now.
    Taken(UserId),
    /// The user was deleted; of a field, the one that it was.
    Erased,
    /// The configuration does not have the attribute any more.
    NotConfigured,
    /// It is so already.
    Nothing,
}

impl Why {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::ChangedByRun(_) | Why::ChangedByPerson | Why::ChangedJustNow => "changed_since",
            Why::ChangedBetween(_) => "changed_between",
            Why::Pinned => "pinned",
            Why::Taken(_) => "taken",
            Why::Erased => "erased",
            Why::NotConfigured => "not_configured",
            Why::Nothing => "nothing_to_do",
        }
    }

    /// A sentence for people.
    pub fn sentence(self) -> String {
        let by = |run: RunId| match run.0 {
            0 => "by a person".to_owned(),
            n => format!("by run {n}"),
        };
        match self {
            Why::ChangedByRun(run) => format!("changed since {}", by(run)),
            Why::ChangedByPerson => "changed since by a person".to_owned(),
            Why::ChangedJustNow => "changed a moment ago".to_owned(),
            Why::ChangedBetween(run) => {
                format!("goes back only to what was set in between {}", by(run))
            }
            Why::Pinned => "pinned by a person".to_owned(),
            Why::Taken(owner) => format!("the value is user {owner}'s now"),
            Why::Erased => "the user was deleted".to_owned(),
            Why::NotConfigured => "the attribute is not configured any more".to_owned(),
            Why::Nothing => "nothing to do: it is so already".to_owned(),
        }
    }

    fn since(run: RunId) -> Why {
        match run.0 {
            0 => Why::ChangedByPerson,
            _ => Why::ChangedByRun(run),
        }
    }
}

/// What a field goes back to, and what it shows now; of a list the parts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// A single value.
    Value {
        /// Now. Who applies it needs no more than what comes.
        #[serde(skip)]
        before: Option<String>,
        /// Then.
        after: Option<String>,
    },
    /// Another user.
    User {
        /// Its id now.
        #[serde(skip)]
        before: Option<String>,
        /// Its id then.
        after: String,
    },
    /// A list.
    Parts {
        /// Parts that go.
        without: Vec<String>,
        /// Parts that come.
        with: Vec<String>,
    },
}

impl Wanted {
    /// As the directory takes it. `place` says where a user is; none when that is nowhere.
    ///
    /// # Errors
    /// Those of `place`.
    pub fn back<E>(
        &self,
        place: impl FnOnce(&str) -> Result<Option<UserRow>, E>,
    ) -> Result<Option<Back<'_>>, E> {
        Ok(Some(match self {
            Wanted::Value { after, .. } => Back::Value(after.as_deref().map(str::as_bytes)),
            Wanted::User { after, .. } => return Ok(place(after)?.map(Back::User)),
            Wanted::Parts { without, with } => Back::Parts {
                without: without.iter().map(String::as_str).collect(),
                with: with.iter().map(String::as_str).collect(),
            },
        }))
    }
}

/// What can be taken back of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Its fields, in the order of attributes.
    pub fields: Vec<(AttrId, Wanted)>,
    /// Whether it is to work; none when that stays.
    pub active: Option<bool>,
    /// What stays as it is.
    pub left: Vec<LeftOut>,
}

impl Decision {
    /// Whether there is nothing to take back.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.active.is_none()
    }
}

/// That a part of a list was there.
const THERE: &str = "";

impl<'a> Effects<'a> {
    /// None yet.
    pub fn new(attributes: &'a Attributes) -> Effects<'a> {
        Effects {
            attributes,
            users: HashMap::new(),
            order: Vec::new(),
            runs: HashSet::new(),
        }
    }

    /// How many users these runs have changed.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether they have changed nobody.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The users, in the order in which they were first changed.
    pub fn users(&self) -> impl DoubleEndedIterator<Item = UserId> {
        self.order.iter().copied()
    }

    /// What can be taken back of one of them as it is now; none when it was deleted.
    pub fn decide(&self, id: UserId, user: Option<&Document<'_>>) -> Decision {
        let effect = self.users.get(&id);
        effect.map_or_else(Decision::default, |effect| effect.decide(user, self))
    }

    /// Takes in the next event, which was stored at this time. `is_of` says whether it is one
    /// of the runs that are looked at.
    ///
    /// # Errors
    /// When the event is damaged.
    pub fn take_in(&mut self, event: &Event<'_>, is_of: bool, at_us: i64) -> Result<(), BodyError> {
        let is_change = matches!(
            event.kind,
            EventKind::UserCreated
                | EventKind::UserUpdated
                | EventKind::UserDeactivated
                | EventKind::UserActivated
                | EventKind::UserDeleted
        );
        let (true, Some(id)) = (is_change, event.user) else {
            return Ok(());
        };
        let user = match (self.users.entry(id), is_of) {
            (Entry::Occupied(user), _) => user.into_mut(),
            (Entry::Vacant(_), false) => return Ok(()),
            (Entry::Vacant(place), true) => {
                self.order.push(id);
                place.insert(Effect::default())
            }
        };
        if is_of {
            self.runs.insert(event.run);
        }
        let by = By {
            run: event.run,
            is_of,
            at_us,
        };
        let body = || serde_json::from_slice::<Map<String, Json>>(event.data);
        match event.kind {
            EventKind::UserCreated => {
                let body = body().map_err(|_| BodyError)?;
                let active = body.get("user").and_then(|user| user.get("active"));
                let active = active.and_then(Json::as_bool).ok_or(BodyError)?;
                user.change(by, (ACTIVE, None), None, Some(worded(active)));
                user.created |= is_of;
            }
            EventKind::UserActivated => {
                user.change(by, (ACTIVE, None), Some("false"), Some("true"));
            }
            EventKind::UserDeactivated => {
                user.change(by, (ACTIVE, None), Some("true"), Some("false"));
            }
            EventKind::UserUpdated => {
                let body = body().map_err(|_| BodyError)?;
                let changed = body.get("changed").and_then(Json::as_object);
                for (name, values) in changed.ok_or(BodyError)? {
                    let before = values.get("before").ok_or(BodyError)?;
                    let after = values.get("after").ok_or(BodyError)?;
                    match self.attributes.by_name(name) {
                        Some(attribute) => user.update(by, attribute, before, after),
                        None if is_of => user.is_unknown(name),
                        None => {}
                    }
                }
            }
            // What comes back behind a deletion is somebody of whom nothing was known.
            EventKind::UserDeleted if is_of => user.changes.clear(),
            EventKind::UserDeleted => {
                let changes = user.changes.iter_mut();
                changes.for_each(|change| change.since = Some(by.run));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whose change an event tells.
#[derive(Clone, Copy)]
struct By {
    run: RunId,
    is_of: bool,
    at_us: i64,
}

impl Effect {
    fn update(&mut self, by: By, attribute: &Attribute, before: &Json, after: &Json) {
        let id = attribute.id;
        if attribute.kind != AttrType::List {
            let (before, after) = (text(before), text(after));
            self.change(by, (id, None), before.as_deref(), after.as_deref());
            return;
        }
        let parts = |value: &'_ Json| -> Vec<String> {
            let all = value.as_array().into_iter().flatten();
            all.filter_map(Json::as_str).map(str::to_owned).collect()
        };
        let (before, after) = (parts(before), parts(after));
        for part in before.iter().filter(|part| !after.contains(part)) {
            self.change(by, (id, Some(part)), Some(THERE), None);
        }
        for part in after.iter().filter(|part| !before.contains(part)) {
            self.change(by, (id, Some(part)), None, Some(THERE));
        }
    }

    fn change(
        &mut self,
        by: By,
        (attribute, part): (AttrId, Option<&str>),
        before: Option<&str>,
        after: Option<&str>,
    ) {
        let mut known = self.changes.iter_mut();
        let known = known.find(|c| c.attribute == attribute && c.part.as_deref() == part);
        match (known, by.is_of) {
            (None, false) => {}
            (Some(known), false) => known.since = Some(by.run),
            (Some(known), true) => {
                if let Some(other) = known.since.take() {
                    known.between = Some(other);
                    known.before = before.map(Box::from);
                }
                known.after = after.map(Box::from);
                known.at_us = by.at_us;
            }
            (None, true) => self.changes.push(Change {
                attribute,
                part: part.map(Box::from),
                before: before.map(Box::from),
                after: after.map(Box::from),
                at_us: by.at_us,
                since: None,
                between: None,
            }),
        }
    }

    fn is_unknown(&mut self, name: &str) {
        if !self.unknown.iter().any(|known| **known == *name) {
            self.unknown.push(Box::from(name));
        }
    }

    fn decide(&self, user: Option<&Document<'_>>, of: &Effects<'_>) -> Decision {
        let attributes = of.attributes;
        let mut decision = Decision::default();
        let Some(user) = user.filter(|user| user.state != UserState::Tombstone) else {
            decision.left.push(LeftOut {
                attribute: None,
                now: None,
                then: None,
                why: Why::Erased,
            });
            return decision;
        };
        for name in self.unknown.iter().filter(|_| !self.created) {
            decision.left.push(LeftOut {
                attribute: Some(name.to_string()),
                now: None,
                then: None,
                why: Why::NotConfigured,
            });
        }
        let mut changes: Vec<&Change> = self.changes.iter().collect();
        changes.sort_by(|a, b| (a.attribute, &a.part).cmp(&(b.attribute, &b.part)));
        // Who was made is deactivated, with what it has.
        changes.retain(|change| !self.created || change.attribute == ACTIVE);
        for change in changes {
            let known = attributes.get(change.attribute);
            let now = change.now(user);
            let told = |value: Option<&str>| match &change.part {
                Some(part) => value.map(|_| part.to_string()),
                None => value.map(str::to_owned),
            };
            let left = |why| LeftOut {
                attribute: known.map(|a| a.name.clone()),
                now: told(now),
                then: told(change.goes_to()),
                why,
            };
            if change.before == change.after {
                continue;
            }
            match change.objection(user, now, &of.runs) {
                Some(why) => decision.left.push(left(why)),
                None => {
                    if let Some(other) = change.between {
                        decision.left.push(left(Why::ChangedBetween(other)));
                    }
                    let is_user = known.is_some_and(|a| a.kind == AttrType::Reference);
                    decision.take(change, is_user);
                }
            }
        }
        decision
    }
}

impl Change {
    /// What was there before. Who was made cannot be unmade: it works no more.
    fn goes_to(&self) -> Option<&str> {
        match self.attribute {
            ACTIVE => Some(self.before.as_deref().unwrap_or("false")),
            _ => self.before.as_deref(),
        }
    }

    /// What is there now.
    fn now<'d>(&self, user: &Document<'d>) -> Option<&'d str> {
        match (&self.part, self.attribute) {
            (_, ACTIVE) => Some(worded(user.is_active())),
            (None, attribute) => {
                let value = user.value(attribute)?;
                Some(std::str::from_utf8(value).unwrap_or_default())
            }
            (Some(part), attribute) => user.parts(attribute).contains(&&**part).then_some(THERE),
        }
    }

    /// What speaks against taking it back.
    fn objection(
        &self,
        user: &Document<'_>,
        now: Option<&str>,
        runs: &HashSet<RunId>,
    ) -> Option<Why> {
        if now == self.goes_to() {
            return Some(Why::Nothing);
        }
        if let Some(since) = self.since {
            return Some(Why::since(since));
        }
        if let Some(own) = user.own(self.attribute)
            && own.standing.wins
        {
            if own.pin.is_some() {
                return Some(Why::Pinned);
            }
            let mut group = user.group(self.attribute).iter();
            let written = group.find(|c| c.link.is_none());
            let written = written.and_then(|c| user.evidence.get(usize::from(c.evidence)));
            // Who writes what is there already has had a word of it.
            if self.part.is_none() && written.is_some_and(|e| e.commit_us > self.at_us) {
                return Some(Why::ChangedByPerson);
            }
        }
        // A source may have come to say what an undo had put there, and nobody was told.
        let said = user.group(self.attribute).first();
        let said = said.and_then(|c| user.evidence.get(usize::from(c.evidence)));
        if let Some(said) = said.filter(|_| self.part.is_none() && self.attribute != ACTIVE)
            && user.undo(self.attribute).is_none()
            && said.run != RunId(0)
            && !runs.contains(&said.run)
            && said.commit_us > self.at_us
        {
            return Some(Why::since(said.run));
        }
        // What no event that was read has told of.
        (now != self.after.as_deref()).then_some(Why::ChangedJustNow)
    }
}

impl Decision {
    /// `is_user`: the field is another user.
    fn take(&mut self, change: &Change, is_user: bool) {
        let owned = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        let Some(part) = owned(&change.part) else {
            if change.attribute == ACTIVE {
                self.active = Some(change.before.as_deref() == Some("true"));
                return;
            }
            let before = owned(&change.after);
            let wanted = match owned(&change.before) {
                Some(after) if is_user => Wanted::User { before, after },
                after => Wanted::Value { before, after },
            };
            self.fields.push((change.attribute, wanted));
            return;
        };
        let comes = change.before.is_some();
        match self.fields.last_mut() {
            Some((attribute, Wanted::Parts { without, with }))
                if *attribute == change.attribute =>
            {
                if comes { with } else { without }.push(part);
            }
            _ => {
                let (mut without, mut with) = (Vec::new(), Vec::new());
                if comes { &mut with } else { &mut without }.push(part);
                let wanted = Wanted::Parts { without, with };
                self.fields.push((change.attribute, wanted));
            }
        }
    }
}

fn worded(active: bool) -> &'static str {
    if active { "true" } else { "false" }
}

/// A single value of an event's body in its canonical form; none when there was none.
fn text(value: &Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
