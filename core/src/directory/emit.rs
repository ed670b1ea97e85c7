//! Events of a plan.
//!
//! An event's id is a hash of what made it: organization, source, position, ordinal and key
//! of the change (for a scan: run, key and row hash), the kind of event, and the version of
//! the user or the fingerprint of the conflict. Nothing in it depends on when or how often
//! the change is read, so a batch that is repeated after a crash makes the same ids. What a
//! stored row makes of a conflict has no change of its own: the same row may open and close it
//! several times in one run, so that names the moment besides. What becomes of a user without a
//! change of its own names the user besides: a key may have led to several within one run.

use smallvec::SmallVec;

use super::{Cause, Origin, Resolver};
use crate::conflict::Fingerprint;
use crate::document::{Document, UserState};
use crate::event::body::{self, Changed};
use crate::event::{Event, EventKind};
use crate::id::UserId;
use crate::reason::LeaverReason;

/// The id of an event of one moment: when it was decided, and the how manieth of its plan it is.
fn of_moment(id: [u8; 16], now_us: i64, nth: usize) -> [u8; 16] {
    let seed = (now_us as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ nth as u64;
    xxhash_rust::xxh3::xxh3_128_with_seed(&id, seed).to_be_bytes()
}

impl Resolver<'_> {
    fn event_id(&self, cause: &Cause<'_>, kind: u8, discriminator: u64) -> [u8; 16] {
        let mut made_of: SmallVec<[u8; 192]> = SmallVec::new();
        let mut part = |bytes: &[u8]| {
            made_of.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            made_of.extend_from_slice(bytes);
        };
        part(self.rules.organization.as_bytes());
        part(cause.rules.name.as_bytes());
        part(cause.key);
        match cause.origin {
            Origin::Log => {
                part(cause.position.as_bytes());
                part(&cause.ordinal.to_le_bytes());
            }
            Origin::Scan | Origin::Stored | Origin::Own => {
                part(&[cause.origin as u8]);
                part(&self.run.0.to_le_bytes());
                part(&cause.hash.to_le_bytes());
            }
        }
        part(&[kind]);
        part(&discriminator.to_le_bytes());
        xxhash_rust::xxh3::xxh3_128(&made_of).to_be_bytes()
    }

    pub(super) fn conflict_event_id(&self, cause: &Cause<'_>, fp: Fingerprint) -> [u8; 16] {
        self.event_id(cause, 0, fp.0)
    }

    pub(super) fn emit_user(
        &mut self,
        cause: &Cause<'_>,
        kind: EventKind,
        user: UserId,
        version: u64,
        data: &[u8],
    ) {
        let discriminator = match (cause.origin, kind) {
            (Origin::Log, _) | (_, EventKind::UserCreated) => version,
            _ => xxhash_rust::xxh3::xxh3_64_with_seed(&user.0, version),
        };
        let id = self.event_id(cause, kind as u8, discriminator);
        self.plan.events.push(&Event {
            kind,
            id,
            user: Some(user),
            source: cause.source.named(),
            time_us: cause.commit_us,
            run: self.run,
            position: cause.position,
            key: &[],
            data,
        });
    }

    pub(super) fn emit_created(&mut self, cause: &Cause<'_>, user: &Document<'_>) {
        let mut data = std::mem::take(&mut self.ws.body);
        data.clear();
        body::created(&mut data, &self.rules.attributes, user);
        self.emit_user(cause, EventKind::UserCreated, user.id, user.version, &data);
        self.ws.body = data;
    }

    pub(super) fn emit_updated(
        &mut self,
        cause: &Cause<'_>,
        user: &Document<'_>,
        changed: &[Changed<'_, '_>],
    ) {
        let mut data = std::mem::take(&mut self.ws.body);
        data.clear();
        body::updated(&mut data, &self.rules.attributes, user, changed);
        self.emit_user(cause, EventKind::UserUpdated, user.id, user.version, &data);
        if changed.iter().any(|c| body::is_identifier(c.attribute)) {
            data.clear();
            body::identifier_changed(&mut data, &self.rules.attributes, user, changed);
            let kind = EventKind::IdentifierChanged;
            self.emit_user(cause, kind, user.id, user.version, &data);
        }
        self.ws.body = data;
    }

    /// The user was activated or deactivated.
    pub(super) fn emit_status(
        &mut self,
        cause: &Cause<'_>,
        before: &Document<'_>,
        after: &Document<'_>,
    ) {
        let (kind, reason) = match after.state {
            UserState::Active if cause.origin == Origin::Own => {
                (EventKind::UserActivated, LeaverReason::Undone.as_str())
            }
            UserState::Active => (EventKind::UserActivated, Self::activation_reason(before)),
            UserState::Deactivated(reason) => (EventKind::UserDeactivated, reason.as_str()),
            UserState::Suspended | UserState::Tombstone => return,
        };
        let mut data = std::mem::take(&mut self.ws.body);
        data.clear();
        body::status(&mut data, &self.rules.attributes, after, reason);
        self.emit_user(cause, kind, after.id, after.version, &data);
        self.ws.body = data;
    }

    /// Tells which conflicts the batch opened and which it resolved.
    pub(super) fn emit_conflicts(&mut self) {
        let touched = std::mem::take(&mut self.ws.conflicts);
        let mut data = std::mem::take(&mut self.ws.body);
        for touch in &touched {
            let Some(row) = self.plan.conflicts.get(&touch.fingerprint) else {
                continue;
            };
            let kind = match (touch.was_open, row.closed_us.is_none()) {
                (false, true) => EventKind::ConflictOpened,
                (true, false) => EventKind::ConflictResolved,
                (true, true) => continue,
                (false, false) => {
                    if !touch.was_planned {
                        self.plan.conflicts.remove(&touch.fingerprint);
                    }
                    continue;
                }
            };
            let name = self.rules.source(row.source).map_or("", |s| &s.name);
            data.clear();
            body::conflict(&mut data, row, name);
            let mut id = match touch.is_of_log {
                true => touch.id,
                false => of_moment(touch.id, self.now_us, self.plan.events.len()),
            };
            id[15] ^= kind as u8;
            self.plan.events.push(&Event {
                kind,
                id,
                user: None,
                source: touch.source.named(),
                time_us: touch.time_us,
                run: self.run,
                position: &touch.position,
                key: &[],
                data: &data,
            });
        }
        self.ws.body = data;
    }
}
