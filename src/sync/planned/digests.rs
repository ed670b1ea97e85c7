//! What a plan knows of rows, events and holds without holding them: hashes of what they say, apart
//! from what no simulation can know.

use rollcall_contract::Key;
use rollcall_core::conflict::ConflictKind;
use rollcall_core::document::{Document, Hold};
use rollcall_core::event::{Event, EventKind};
use rollcall_core::id::UserId;
use rollcall_core::reason::SkipReason;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

/// A 64-bit hash, as hexadecimal digits in JSON: numbers there are not that long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest(pub u64);

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        format!("{:016x}", digest.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Digest, Self::Error> {
        let number = u64::from_str_radix(&text, 16);
        number.map(Digest).map_err(|_| "16 hexadecimal digits")
    }
}

/// A key, as hexadecimal digits in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct KeyText(pub Key);

impl From<KeyText> for String {
    fn from(key: KeyText) -> String {
        key.0
            .as_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    }
}

impl TryFrom<String> for KeyText {
    type Error = &'static str;

    fn try_from(text: String) -> Result<KeyText, Self::Error> {
        let byte = |i: usize| {
            let digits = text.get(i..i + 2)?;
            u8::from_str_radix(digits, 16).ok()
        };
        let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
        let key = bytes.and_then(|bytes| Key::from_bytes(&bytes));
        key.map(KeyText).ok_or("a record's key")
    }
}

/// Names a new user by the record that it was made for.
pub fn name_of_new(user: &Document<'_>) -> Option<u64> {
    let link = user.links.first()?;
    let mut said = link.source.0.to_le_bytes().to_vec();
    said.extend_from_slice(link.key);
    Some(xxh3_64(&said))
}

/// What an event says, apart from what no simulation can know: places, times, runs, and the
/// ids of users who are new, who are named otherwise ([`name_of_new`]). None for events that
/// are about no user and no conflict.
pub fn digest(event: &Event<'_>, new: impl Fn(UserId) -> Option<u64>) -> Option<Digest> {
    let mut said = vec![event.kind as u8];
    match event.kind {
        EventKind::UserCreated
        | EventKind::UserUpdated
        | EventKind::UserDeactivated
        | EventKind::UserActivated
        | EventKind::UserDeleted
        | EventKind::IdentifierChanged => {
            said.extend_from_slice(event.data);
            for at in 0..said.len().saturating_sub(ID_LEN - 1) {
                let place = &mut said[at..at + ID_LEN];
                if let Some(name) = id_at(place).and_then(&new) {
                    place.fill(b'0');
                    place[..8].copy_from_slice(&name.to_le_bytes());
                }
            }
            if let Some(user) = event.user.filter(|user| new(*user).is_none()) {
                said.extend_from_slice(&user.0);
            }
        }
        EventKind::ConflictOpened | EventKind::ConflictResolved => {
            let missing = ConflictKind::UnresolvedReference.as_str();
            if body_of(event).is_some_and(|body| body.kind == missing) {
                // That is told of a whole scan, which a plan is not.
                return None;
            }
            said.extend_from_slice(conflict_of(event).0.as_bytes());
        }
        _ => return None,
    }
    Some(Digest(xxh3_64(&said)))
}

/// What an event says of a conflict.
#[derive(Deserialize)]
struct Body {
    fingerprint: String,
    kind: String,
    records: Vec<Vec<String>>,
}

fn body_of(event: &Event<'_>) -> Option<Body> {
    serde_json::from_slice(event.data).ok()
}

/// The bytes of a user's id as text.
const ID_LEN: usize = 36;

/// The id that stands in a text of that length.
fn id_at(text: &[u8]) -> Option<UserId> {
    let is_like_one = [8, 13, 18, 23].iter().all(|at| text[*at] == b'-');
    let id = is_like_one
        .then(|| Uuid::try_parse_ascii(text).ok())
        .flatten()?;
    Some(UserId(*id.as_bytes()))
}

/// The fingerprint of the conflict that an event is about, and the keys of its records.
pub fn conflict_of(event: &Event<'_>) -> (String, Vec<Key>) {
    let Some(body) = body_of(event) else {
        return (String::new(), Vec::new());
    };
    let key = |parts: &Vec<String>| {
        let mut key = Key::new();
        parts.iter().for_each(|part| key.push(part.as_bytes()));
        key
    };
    (body.fingerprint, body.records.iter().map(key).collect())
}

/// Names why a record is held: the reason, and the conflicts that name it.
pub fn held_for(reason: SkipReason, hold: &[u8]) -> Digest {
    let mut said = reason.as_str().as_bytes().to_vec();
    let mut conflicts = Hold::decode(hold).conflicts;
    conflicts.sort_unstable();
    for conflict in &conflicts {
        said.extend_from_slice(&conflict.0.to_le_bytes());
    }
    Digest(xxh3_64(&said))
}

#[cfg(test)]
mod tests {
    use rollcall_core::id::RunId;

    use super::*;

    #[test]
    fn the_digest_of_an_event_knows_what_it_says_and_not_who_is_new() {
        let say = |id: u8, title: &str, new: bool| {
            let user = UserId([id; 16]);
            let data = format!("{{\"user\":{{\"id\":\"{user}\",\"title\":\"{title}\"}}}}");
            let event = Event {
                kind: EventKind::UserCreated,
                id: [id; 16],
                user: Some(user),
                source: None,
                time_us: i64::from(id),
                run: RunId(u64::from(id)),
                position: "",
                key: &[],
                data: data.as_bytes(),
            };
            digest(&event, |_| new.then_some(7))
        };
        assert_eq!(say(1, "Clerk", true), say(2, "Clerk", true));
        assert_ne!(say(1, "Clerk", true), say(1, "Chief", true));
        assert_ne!(say(1, "Clerk", false), say(2, "Clerk", false));
    }
}
