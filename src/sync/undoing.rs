//! Applying a plan that takes back what a run did: exactly that, or nothing.
//!
//! The plan names each user with the version that it saw, so what it says of each is still what
//! would come of it exactly when the versions are the same. That is asked of all users first.
//! Then all of them go back in one commit, so a crash leaves all of it or nothing, and what was
//! applied before is found to be so already. It is a run of its own, and can be undone as any
//! other. No source has to be reached, and limits are not asked: whoever applies a plan has seen
//! it.

use rollcall_core::attribute::{AttrId, Attributes};
use rollcall_core::directory::{Author, Refused, TakeBack};
use rollcall_core::document::{Document, UserState};
use rollcall_core::id::{SourceId, UserId, UserRow};
use rollcall_core::state::State as _;
use rollcall_core::undo::{Decision, Wanted};
use rollcall_store::{Readers, StoreError};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::apply::failed;
use super::clock::now_us;
use super::engine::Engine;
use super::pending::Pending;
use super::planned::{Answered, Changed, MAX_APPLIED};
use super::track::TrackedRun;

/// What is to be taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undoing {
    /// The store that it was made for.
    pub store: Uuid,
    /// What is undone, in words: `undo of run 12`.
    pub reason: String,
    /// The source whose runs these are, if they are one's.
    pub source: Option<String>,
    /// The users.
    pub users: Vec<UndoneUser>,
}

/// A user that goes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UndoneUser {
    /// Its place.
    pub place: i64,
    /// Its id.
    pub id: Uuid,
    /// The version that the plan saw.
    pub version: u64,
    /// Whether it is to work; none when that stays.
    pub active: Option<bool>,
    /// Its fields.
    pub fields: Vec<UndoneField>,
}

/// A field that goes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UndoneField {
    /// The attribute.
    pub attribute: String,
    /// To what.
    pub to: Wanted,
}

impl UndoneUser {
    /// A user of which there is something to take back.
    pub fn new(user: (UserRow, &Document<'_>), decision: &Decision, names: &Attributes) -> Self {
        let (row, document) = user;
        let fields = decision.fields.iter().filter_map(|(attribute, to)| {
            Some(UndoneField {
                attribute: names.get(*attribute)?.name.clone(),
                to: to.clone(),
            })
        });
        UndoneUser {
            place: row.0,
            id: Uuid::from_bytes(document.id.0),
            version: document.version,
            active: decision.active,
            fields: fields.collect(),
        }
    }
}

/// See [`super::work::Work::Undo`].
#[derive(Debug)]
pub struct UndoWork {
    /// What is to be taken back.
    pub plan: Undoing,
    /// The source whose runs these are.
    pub source: Option<SourceId>,
    /// Who wants it.
    pub actor: String,
    /// Told what became of it, behind the commit.
    pub reply: oneshot::Sender<Answered>,
}

/// How a user stands to what a plan wants.
enum Standing {
    AsSeen,
    AsWanted,
    Changed(&'static str),
}

impl Engine {
    /// Takes back what a plan says, or refuses it. Nothing else is pending.
    pub(super) fn apply_undo(
        &mut self,
        work: UndoWork,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let answer = self.undo(&work, pending)?;
        pending.then(move || {
            // Whoever asked may be gone; it is applied or refused all the same.
            let _ = work.reply.send(answer);
        });
        Ok(())
    }

    fn undo(&mut self, work: &UndoWork, pending: &mut Pending) -> Result<Answered, StoreError> {
        if work.plan.users.len() > MAX_APPLIED {
            return Ok(Answered::refused(format!(
                "A plan of more than {MAX_APPLIED} users cannot be applied."
            )));
        }
        let mut changed = Vec::new();
        let mut wanted = Vec::new();
        let mut already = 0;
        for user in &work.plan.users {
            let fields = match self.fields_of(user) {
                Ok(fields) => fields,
                Err(name) => {
                    return Ok(Answered::refused(format!(
                        "The attribute {name:?} is not configured. Nothing was applied. Fix: make a new plan"
                    )));
                }
            };
            match self.standing_of(user, &fields)? {
                Standing::AsSeen => wanted.push((user, fields)),
                Standing::AsWanted => already += 1,
                Standing::Changed(what) => changed.push(Changed {
                    record: format!("user {}", user.id),
                    what: what.to_owned(),
                }),
            }
        }
        if !changed.is_empty() {
            return Ok(Answered::changed(changed));
        }
        if wanted.is_empty() {
            return Ok(Answered::Applied {
                run: None,
                records: 0,
                already,
            });
        }
        let now = now_us();
        let source = work.source.unwrap_or(SourceId::OWN);
        let mut row = self.new_run(source, "undo", "manual", now)?;
        row.from = None;
        row.detail = Some(work.plan.reason.clone());
        let mut back = Vec::with_capacity(wanted.len());
        for (user, fields) in &wanted {
            let mut taken = TakeBack {
                user: UserRow(user.place),
                fields: Vec::with_capacity(fields.len()),
                active: user.active,
            };
            for (attribute, to) in fields {
                match to.back(|id| place(&self.readers, id))? {
                    Some(to) => taken.fields.push((*attribute, to)),
                    None => changed.push(Changed {
                        record: format!("user {}", user.id),
                        what: "the user that a field goes back to was deleted".to_owned(),
                    }),
                }
            }
            back.push(taken);
        }
        if !changed.is_empty() {
            return Ok(Answered::changed(changed));
        }
        let author = Author {
            actor: &work.actor,
            reason: &work.plan.reason,
        };
        let directory = &mut self.directory;
        let mut resolver = directory.resolver(&mut self.writer, &mut pending.plan, now, row.id);
        let refused = resolver.undo(&back, author).map_err(failed)?;
        resolver.finish().map_err(failed)?;
        let mut changed: Vec<Changed> = refused.into_iter().map(refusal).collect();
        for (user, fields) in &wanted {
            let written = pending.plan.users.get(UserRow(user.place));
            let document = written.and_then(|write| Document::decode(write.document).ok());
            if !document.is_some_and(|document| is_wanted(&document, user, fields)) {
                changed.push(Changed {
                    record: format!("user {}", user.id),
                    what: "what the plan says does not follow any more".to_owned(),
                });
            }
        }
        if !changed.is_empty() {
            // Decided, and never stored.
            pending.plan.clear();
            return Ok(Answered::changed(changed));
        }
        let records = wanted.len() as u64;
        pending.plan.counters.processed += records;
        // Somebody has looked.
        pending.plan.counted.clear();
        let (id, detail) = (row.id, row.detail.clone());
        let mut run = TrackedRun::new(row);
        run.take_over(&self.directory, pending);
        self.end_run(run.row, "completed", detail, pending, now);
        tracing::info!(
            run = id.0,
            users = records,
            "{} is applied",
            work.plan.reason
        );
        Ok(Answered::Applied {
            run: Some(id.0),
            records,
            already,
        })
    }

    /// The fields of a user by number, or the name of one that there is not.
    fn fields_of<'u>(&self, user: &'u UndoneUser) -> Result<Vec<(AttrId, &'u Wanted)>, String> {
        let attributes = &self.directory.rules.attributes;
        let mut fields = Vec::with_capacity(user.fields.len());
        for field in &user.fields {
            let known = attributes.by_name(&field.attribute);
            let known = known.ok_or_else(|| field.attribute.clone())?;
            fields.push((known.id, &field.to));
        }
        Ok(fields)
    }

    /// Compares a user with what the plan saw and with what it wants.
    fn standing_of(
        &mut self,
        user: &UndoneUser,
        fields: &[(AttrId, &Wanted)],
    ) -> Result<Standing, StoreError> {
        let mut bytes = Vec::new();
        let found = self.writer.user(UserRow(user.place), &mut bytes);
        if !found.map_err(failed)? {
            return Ok(Standing::Changed("the user is gone"));
        }
        let document = Document::decode(&bytes).map_err(|e| StoreError::Refused(e.to_string()))?;
        Ok(if document.id != UserId(*user.id.as_bytes()) {
            Standing::Changed("the user is gone")
        } else if document.state == UserState::Tombstone {
            Standing::Changed("the user was deleted")
        } else if is_wanted(&document, user, fields) {
            Standing::AsWanted
        } else if document.version == user.version {
            Standing::AsSeen
        } else {
            Standing::Changed("the user changed")
        })
    }
}

/// Where a user is that a field goes back to; none when it was deleted.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn place(readers: &Readers, id: &str) -> Result<Option<UserRow>, StoreError> {
    let Ok(id) = Uuid::parse_str(id) else {
        return Ok(None);
    };
    let Some(user) = readers.user_by_id(UserId(id.into_bytes()))? else {
        return Ok(None);
    };
    let document = Document::decode(&user.document);
    let document = document.map_err(|e| StoreError::Refused(e.to_string()))?;
    Ok((document.state != UserState::Tombstone).then_some(user.row))
}

/// Whether a user shows what a plan wants of it.
fn is_wanted(document: &Document<'_>, user: &UndoneUser, fields: &[(AttrId, &Wanted)]) -> bool {
    let shows = |attribute: AttrId, to: &Wanted| match to {
        Wanted::Value { after, .. } => {
            document.value(attribute) == after.as_deref().map(str::as_bytes)
        }
        Wanted::User { after, .. } => document.value(attribute) == Some(after.as_bytes()),
        Wanted::Parts { without, with } => {
            let parts = document.parts(attribute);
            let has = |part: &String| parts.contains(&part.as_str());
            !without.iter().any(has) && with.iter().all(has)
        }
    };
    user.active
        .is_none_or(|active| document.is_active() == active)
        && fields.iter().all(|(attribute, to)| shows(*attribute, to))
}

fn refusal(refused: Refused) -> Changed {
    match refused {
        Refused::Gone(place) => Changed {
            record: format!("user at place {}", place.0),
            what: "the user was deleted".to_owned(),
        },
        Refused::Taken { user, owner, .. } => Changed {
            record: format!("user at place {}", user.0),
            what: format!("its userName or email is user {owner}'s now"),
        },
    }
}
