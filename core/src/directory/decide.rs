//! A person's word on a conflict.
//!
//! A decision is kept with its conflict, which is closed by it, and is asked for wherever the
//! same question comes up again: the fingerprint of the conflict is the question, so another
//! value is another question. Where the question does not name the value (a key that came
//! back), the decision does. Nothing else changes by a decision: the records that the
//! conflict held are considered again, and what they read has an answer now.

use smallvec::SmallVec;

use super::correlate::Other;
use super::own::{Author, Edit, Edited};
use super::rules::SourceRules;
use super::{Cause, Origin, Resolver};
use crate::conflict::{Choice, ConflictKind, ConflictRow, Decision, Fingerprint};
use crate::id::{UserId, UserRow};
use crate::mapped::{Assigned, MappedRow};
use crate::mapping::fold;
use crate::state::{LinkTarget, StateError};

/// What came of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The conflict is decided.
    Taken,
    /// No such conflict is open.
    NotOpen,
    /// That is no answer to this conflict.
    NoAnswer,
    /// Another record of the conflict has the user already: only that one can be taken.
    OtherHasUser,
    /// What is stored of the record cannot be applied; only the source can tell.
    Mixed,
}

impl Resolver<'_> {
    /// Decides a conflict. `user` is where the user of a conflict of two values is.
    ///
    /// # Errors
    /// As [`Resolver::apply`].
    pub fn decide(
        &mut self,
        fp: Fingerprint,
        choice: &Choice,
        user: Option<UserRow>,
        author: Author<'_>,
    ) -> Result<Word, StateError> {
        let Some(row) = self.open_conflict(fp)? else {
            return Ok(Word::NotOpen);
        };
        let word = match row.kind {
            ConflictKind::Value => self.decide_value(&row, choice, user, author)?,
            _ => self.is_answer(&row, choice)?,
        };
        if word != Word::Taken {
            return Ok(word);
        }
        let Some(rules) = self.rules.source(row.source) else {
            return Ok(Word::Mixed);
        };
        let of = match (row.kind, row.records.first()) {
            (ConflictKind::KeyReuse, Some(key)) => self.stored_identity(rules, key)?,
            _ => 0,
        };
        let name = fp.0.to_le_bytes();
        let cause = Cause {
            rules,
            source: row.source,
            key: &name,
            tx: &[],
            position: "",
            ordinal: 0,
            commit_us: self.now_us,
            origin: Origin::Own,
            hash: self.now_us as u64,
            recorded: None,
        };
        self.close_conflict(&cause, fp)?;
        if let Some(planned) = self.plan.conflicts.get_mut(&fp) {
            planned.decision = Some(Decision {
                choice: choice.clone(),
                of,
                actor: author.actor.to_owned(),
                reason: author.reason.to_owned(),
                at_us: self.now_us,
            });
        }
        match choice {
            Choice::Record(key) => self.wake(row.source, key),
            _ => row
                .records
                .iter()
                .for_each(|key| self.wake(row.source, key)),
        }
        self.heal()?;
        Ok(Word::Taken)
    }

    fn decide_value(
        &mut self,
        row: &ConflictRow,
        choice: &Choice,
        user: Option<UserRow>,
        author: Author<'_>,
    ) -> Result<Word, StateError> {
        let name = row.attribute.as_deref().unwrap_or_default();
        let (Some(attribute), Some(user)) = (self.rules.attributes.by_name(name), user) else {
            return Ok(Word::NotOpen);
        };
        let own = match choice {
            Choice::Own => true,
            Choice::Source => false,
            _ => return Ok(Word::NoAnswer),
        };
        let attribute = attribute.id;
        let edited = self.edit(user, &[Edit::Decide { attribute, own }], author)?;
        Ok(match edited {
            Edited::Done(_) => Word::Taken,
            Edited::Taken { .. } | Edited::NoUser(_) | Edited::Gone | Edited::Nothing(_) => {
                Word::NotOpen
            }
        })
    }

    /// Whether a choice answers the question of a conflict that holds records.
    fn is_answer(&mut self, row: &ConflictRow, choice: &Choice) -> Result<Word, StateError> {
        let names = |user: &UserId| row.users.contains(user);
        let answers = match (row.kind, choice) {
            (ConflictKind::DisputedMatch, Choice::User(user)) => names(user),
            (ConflictKind::DisputedMatch | ConflictKind::KeyReuse, Choice::New) => true,
            (ConflictKind::KeyReuse | ConflictKind::Uniqueness, Choice::User(user)) => names(user),
            (ConflictKind::DuplicateInSource, Choice::Record(key)) => row.records.contains(key),
            _ => false,
        };
        if !answers {
            return Ok(Word::NoAnswer);
        }
        if let Choice::Record(chosen) = choice {
            let has_user = |target| matches!(target, Some(LinkTarget::User(_)));
            if has_user(self.target(row.source, chosen)?) {
                return Ok(Word::Taken);
            }
            for key in &row.records {
                if has_user(self.target(row.source, key)?) {
                    return Ok(Word::OtherHasUser);
                }
            }
            return Ok(Word::Taken);
        }
        for key in &row.records {
            if self.target(row.source, key)? != Some(LinkTarget::Record) {
                return Ok(Word::Mixed);
            }
        }
        Ok(Word::Taken)
    }

    /// What was decided of a question, whether it was asked in this plan or before.
    fn decided(&mut self, fp: Fingerprint) -> Result<Option<ConflictRow>, StateError> {
        let row = match self.plan.conflicts.get(&fp) {
            Some(row) => Some(row.clone()),
            None => self.state.decided(fp)?,
        };
        Ok(row.filter(|row| row.decision.is_some() && row.closed_us.is_some()))
    }

    /// The answer to a question about who somebody is.
    pub(super) fn answer(&mut self, fp: Fingerprint) -> Result<Option<Choice>, StateError> {
        let row = self.decided(fp)?;
        Ok(row.and_then(|row| row.decision).map(|d| d.choice))
    }

    /// The answer to whether a key that came back is somebody else's: of this row.
    pub(super) fn answer_for(
        &mut self,
        cause: &Cause<'_>,
        fp: Fingerprint,
        row: &MappedRow<'_>,
    ) -> Result<Option<Choice>, StateError> {
        let decision = self.decided(fp)?.and_then(|row| row.decision);
        let of = identity(cause.rules, row);
        Ok(decision.filter(|d| d.of == of).map(|d| d.choice))
    }

    /// Whether a record was chosen among those with its match key, or another one; none when
    /// nobody has chosen, or what was chosen is no longer there.
    pub(super) fn is_chosen(
        &mut self,
        cause: &Cause<'_>,
        fp: Fingerprint,
        others: &[Other],
    ) -> Result<Option<bool>, StateError> {
        let Some(row) = self.decided(fp)? else {
            return Ok(None);
        };
        let Some(Choice::Record(chosen)) = row.decision.map(|d| d.choice) else {
            return Ok(None);
        };
        if chosen[..] == *cause.key {
            return Ok(Some(true));
        }
        let was_there = row.records.iter().any(|key| key[..] == *cause.key);
        let is_there = others.iter().any(|(key, ..)| *key == chosen);
        Ok((was_there && is_there).then_some(false))
    }

    fn stored_identity(&mut self, rules: &SourceRules, key: &[u8]) -> Result<u64, StateError> {
        let mut bytes = self.ws.buffer();
        let mut rows = self.ws.rows();
        if let Some(stored) = self.stored(rules.id, key, &mut bytes)? {
            self.rules.remap.remap(rules.id, stored.shadow, &mut rows);
        }
        let of = match rows.is_empty() {
            true => 0,
            false => identity(rules, &rows.row(0)),
        };
        self.ws.give_back_rows(rows);
        self.ws.give_back(bytes);
        Ok(of)
    }
}

/// Names the person that a row is about, by its source's fingerprint.
fn identity(rules: &SourceRules, row: &MappedRow<'_>) -> u64 {
    let mut made_of: SmallVec<[u8; 128]> = SmallVec::new();
    for field in row.fields() {
        if let Assigned::Value(value) = field.assigned
            && rules.fingerprint.contains(&field.attribute)
        {
            made_of.extend_from_slice(&field.attribute.0.to_le_bytes());
            fold(value, &mut made_of);
            made_of.push(0);
        }
    }
    xxhash_rust::xxh3::xxh3_64(&made_of)
}
