//! One record: what its row says, beside what the directory has of it.

use rollcall_contract::{Key, TxId};
use rollcall_core::attribute::{ACTIVE, AttrId, AttrType};
use rollcall_core::document::{Document, LinkState, Record, UserState};
use rollcall_core::mapped::{
    Assigned, MappedField, MappedRow, Outcome, Strength, key_text, value_text,
};
use rollcall_core::reason::SkipReason;
use rollcall_store::StoreError;

use super::{FieldDrift, Prover};
use crate::sync::track::TxMark;

/// What one record turned out to be.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Its values are in the directory.
    Applied,
    /// It is outside of the scope.
    OutOfScope,
    /// It is held for a person.
    Held(SkipReason),
    /// It cannot be mapped.
    Failed(SkipReason),
    /// Its change waits in a plan.
    Staged(SkipReason),
    /// It differs, in which way and in which fields.
    Differs(&'static str, Vec<FieldDrift>),
}

impl Prover<'_> {
    /// What a row of the source is to the directory.
    pub(super) fn compare(
        &mut self,
        key: &Key,
        row: &MappedRow<'_>,
    ) -> Result<Verdict, StoreError> {
        let outcome = row.outcome();
        let differs = |what| Ok(Verdict::Differs(what, Vec::new()));
        let user = match self.readers.user_by_record(self.id, key.as_bytes())? {
            None if outcome == Outcome::OutOfScope => return Ok(Verdict::OutOfScope),
            None => return differs("not in the directory"),
            Some(None) => {
                let stored = self.readers.record(self.id, key.as_bytes())?;
                let stored = stored.unwrap_or_default();
                let record = Record::decode(&stored).map_err(damaged)?;
                return Ok(self.compare_held(record.reason, record.shadow, row));
            }
            Some(Some(user)) => user,
        };
        let document = Document::decode(&user.document).map_err(damaged)?;
        let Some(at) = document.find_link(self.id, key.as_bytes()) else {
            return differs("linked to a user that does not know it");
        };
        let link = document.links[at];
        Ok(match (link.state, outcome) {
            (LinkState::Held(reason), _) => self.compare_held(reason, link.shadow, row),
            // Whatever it went for: where it is now it would not count either.
            (state, Outcome::OutOfScope) if state.gone().is_some() => Verdict::OutOfScope,
            (LinkState::Live, Outcome::Mapped) => {
                let fields = self.differing(&document, at, row)?;
                if fields.is_empty() {
                    Verdict::Applied
                } else {
                    Verdict::Differs("values differ", fields)
                }
            }
            (LinkState::Live, Outcome::OutOfScope) => {
                return differs("out of scope, and still applied");
            }
            (LinkState::Live, _) => return differs("cannot be mapped, and still applied"),
            (LinkState::Gone(_) | LinkState::Suspected(_) | LinkState::Erasing(_), _) => {
                return differs("taken for gone");
            }
        })
    }

    /// A record that is not applied: it is so by rule as long as the row that was held is
    /// the row that the source has.
    fn compare_held(&mut self, reason: SkipReason, shadow: &[u8], row: &MappedRow<'_>) -> Verdict {
        let differs = |what| Verdict::Differs(what, Vec::new());
        match (reason, row.outcome()) {
            (SkipReason::OutOfScope, Outcome::OutOfScope) => Verdict::OutOfScope,
            (SkipReason::OutOfScope, _) => differs("taken for out of scope"),
            (SkipReason::StagedLeaver, _) => differs("waits as a leaver, and is in the source"),
            (reason @ SkipReason::Staged, outcome) => {
                let fields = self.differing_from_shadow(shadow, row);
                let same = self.remapped.row(0).outcome() == outcome;
                match same && fields.is_empty() {
                    true => Verdict::Staged(reason),
                    false => Verdict::Differs("staged with other values", fields),
                }
            }
            (reason, Outcome::Failed { .. }) if reason.is_error() => Verdict::Failed(reason),
            (reason, _) if reason.is_error() => differs("failed, and can be mapped now"),
            (_, Outcome::Failed { .. }) => differs("held, and cannot be mapped now"),
            (_, Outcome::OutOfScope) => differs("held, and out of scope now"),
            (reason, Outcome::Mapped | Outcome::Deferred) => {
                let fields = self.differing_from_shadow(shadow, row);
                if fields.is_empty() {
                    Verdict::Held(reason)
                } else {
                    Verdict::Differs("held with other values", fields)
                }
            }
        }
    }

    /// The fields of a row that a stored row does not give.
    fn differing_from_shadow(&mut self, shadow: &[u8], row: &MappedRow<'_>) -> Vec<FieldDrift> {
        self.remapped.clear();
        self.mapper.map_shadow(shadow, &mut self.remapped);
        let stored = self.remapped.row(0);
        let mut fields = Vec::new();
        for field in row.fields() {
            let own = stored.fields().find(|f| f.attribute == field.attribute);
            let own = own.map_or(Assigned::Clear, |f| f.assigned);
            if let (Some(wanted), Some(own)) = (said(field.assigned), said(own))
                && wanted != own
            {
                let text = |value: Option<&[u8]>| match field.assigned {
                    Assigned::Reference(_) => value.map(key_text),
                    _ => value.map(|value| self.text(field.attribute, value)),
                };
                fields.push(self.field(field.attribute, text(wanted), text(own)));
            }
        }
        fields
    }

    /// The fields whose mapped value is not what this record gives to its user, and whether
    /// the user may work.
    fn differing(
        &self,
        document: &Document<'_>,
        at: usize,
        row: &MappedRow<'_>,
    ) -> Result<Vec<FieldDrift>, StoreError> {
        let mut fields = Vec::new();
        for field in row.fields() {
            if field.strength != Strength::Always {
                continue;
            }
            if let Some(drift) = self.differing_reference(document, at, &field)? {
                fields.extend(drift);
                continue;
            }
            let mut group = document.group(field.attribute).iter();
            let own = group.find(|c| c.link == Some(at as u16));
            // The field's own rule may make the source's value weaker.
            if own.is_some_and(|c| c.strength != Strength::Always) {
                continue;
            }
            let own = own.map(|c| c.value);
            let Some(wanted) = said(field.assigned) else {
                continue;
            };
            // An empty list is no value.
            let wanted = wanted.filter(|v| !(v.is_empty() && self.is_list(field.attribute)));
            if own != wanted {
                let text = |value: Option<&[u8]>| value.map(|v| self.text(field.attribute, v));
                fields.push(self.field(field.attribute, text(wanted), text(own)));
            }
        }
        let decided = !matches!(document.state, UserState::Suspended | UserState::Tombstone);
        let may_work = document.value(ACTIVE) != Some(b"false");
        let is_told = fields.iter().any(|f| f.attribute == "active");
        if decided && !is_told && may_work != document.is_active() {
            let text = |b: bool| Some(b.to_string());
            fields.push(self.field(ACTIVE, text(may_work), text(document.is_active())));
        }
        Ok(fields)
    }

    /// Whether a field that names a record differs: in which record it names, or in whom that
    /// leads to. None when neither the row nor the directory names one.
    fn differing_reference(
        &self,
        document: &Document<'_>,
        at: usize,
        field: &MappedField<'_>,
    ) -> Result<Option<Option<FieldDrift>>, StoreError> {
        let named = document.reference(field.attribute, Some(at as u16));
        let wanted = match (field.assigned, named) {
            (Assigned::Reference(key), _) => Some(key),
            (Assigned::Clear, Some(_)) => None,
            (Assigned::Keep, Some(_)) => return Ok(Some(None)),
            _ => return Ok(None),
        };
        // The field's own rule may make the source's value weaker.
        if named.is_some_and(|r| r.strength != Strength::Always) {
            return Ok(Some(None));
        }
        let own = named.map(|r| r.key);
        if own != wanted {
            let drift = self.field(field.attribute, wanted.map(key_text), own.map(key_text));
            return Ok(Some(Some(drift)));
        }
        let mut group = document.group(field.attribute).iter();
        let shown = group.find(|c| c.link == Some(at as u16)).map(|c| c.value);
        let shown = shown.map(|id| String::from_utf8_lossy(id).into_owned());
        let behind = match wanted {
            Some(key) => self.user_behind(key)?,
            None => None,
        };
        // Those who name a key are told one after the other when it leads to somebody else.
        let differs = shown != behind && !self.readers.is_relinking()?;
        Ok(Some(
            differs.then(|| self.field(field.attribute, behind, shown)),
        ))
    }

    /// The id of the user that a key leads to.
    fn user_behind(&self, key: &[u8]) -> Result<Option<String>, StoreError> {
        let Some(user) = self.readers.user_by_record(self.id, key)?.flatten() else {
            return Ok(None);
        };
        let who = Document::who(&user.document);
        let is_there = who.filter(|(_, state)| *state != UserState::Tombstone);
        Ok(is_there.map(|(id, _)| id.to_string()))
    }

    fn is_list(&self, attribute: AttrId) -> bool {
        let known = self.attributes.get(attribute);
        known.is_some_and(|a| a.kind == AttrType::List)
    }

    fn field(
        &self,
        attribute: AttrId,
        source: Option<String>,
        directory: Option<String>,
    ) -> FieldDrift {
        let known = self.attributes.get(attribute);
        FieldDrift {
            attribute: known.map_or_else(String::new, |a| a.name.clone()),
            source: source.filter(|_| self.show_values),
            directory: directory.filter(|_| self.show_values),
        }
    }

    fn text(&self, attribute: AttrId, value: &[u8]) -> String {
        let known = self.attributes.get(attribute);
        value_text(value, known.map_or(AttrType::Text, |a| a.kind))
    }

    /// What the directory knows of a record.
    pub(super) fn known(&self, key: &[u8]) -> Result<Known, StoreError> {
        let tx = |bytes: &[u8]| {
            let stored = TxId(bytes.iter().copied().collect());
            (!bytes.is_empty())
                .then(|| TxMark::of_history(stored, self.history))
                .flatten()
        };
        Ok(match self.readers.user_by_record(self.id, key)? {
            None => Known::default(),
            Some(None) => {
                let stored = self.readers.record(self.id, key)?.unwrap_or_default();
                let record = Record::decode(&stored).map_err(damaged)?;
                Known {
                    present: Some(LinkState::Held(record.reason)),
                    tx: tx(record.tx),
                }
            }
            Some(Some(user)) => {
                let document = Document::decode(&user.document).map_err(damaged)?;
                let link = document.find_link(self.id, key).map(|i| document.links[i]);
                Known {
                    present: link.map(|l| l.state).filter(|s| s.is_present()),
                    tx: link.and_then(|l| tx(l.tx)),
                }
            }
        })
    }
}

/// What the directory knows of a record.
#[derive(Default)]
pub(super) struct Known {
    /// Its state, if it is taken for present.
    pub(super) present: Option<LinkState>,
    /// The last transaction of the log that was taken in for it, in this history.
    pub(super) tx: Option<TxId>,
}

/// What a field says: a value, that there is none, or (none) nothing.
fn said(assigned: Assigned<'_>) -> Option<Option<&[u8]>> {
    match assigned {
        Assigned::Value(value) | Assigned::Reference(value) => Some(Some(value)),
        Assigned::Clear => Some(None),
        Assigned::Keep => None,
    }
}

fn damaged(e: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged {
        detail: e.to_string(),
    }
}
