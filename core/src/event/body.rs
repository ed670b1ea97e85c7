//! The JSON bodies of events about users and conflicts.
//!
//! Bodies are written straight into the buffer, because one is made for every change. They
//! are valid JSON whatever the values are: texts are escaped (RFC 8259 section 7), numbers
//! and booleans are only written bare when they have that form, and bytes that are not
//! UTF-8 are replaced. Attributes come in the order of their numbers, so the same user is
//! the same bytes.

use crate::attribute::{ACTIVE, AttrId, AttrType, Attribute, Attributes};
use crate::conflict::{Choice, ConflictRow, Decision};
use crate::document::{Contribution, Document};
use crate::id::UserId;

/// An attribute whose value changed.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'d, 'a> {
    /// Which attribute.
    pub attribute: AttrId,
    /// The user before, and what was contributed: the winner first.
    pub before: (&'d Document<'a>, &'d [Contribution<'a>]),
    /// The user after, and what is contributed.
    pub after: (&'d Document<'a>, &'d [Contribution<'a>]),
}

/// `{"version":…,"user":{…}}`: a new user.
pub fn created(out: &mut Vec<u8>, attributes: &Attributes, user: &Document<'_>) {
    version(out, user);
    whole_user(out, attributes, user);
    out.push(b'}');
}

/// `{"version":…,"changed":{…},"user":{…}}`: attributes changed.
pub fn updated(
    out: &mut Vec<u8>,
    attributes: &Attributes,
    user: &Document<'_>,
    changed: &[Changed<'_, '_>],
) {
    version(out, user);
    changes(out, attributes, changed.iter());
    out.push(b',');
    whole_user(out, attributes, user);
    out.push(b'}');
}

/// `{"version":…,"reason":"…","user":{…}}`: deactivated or activated.
pub fn status(out: &mut Vec<u8>, attributes: &Attributes, user: &Document<'_>, reason: &str) {
    version(out, user);
    out.extend_from_slice(b"\"reason\":");
    string(out, reason);
    out.push(b',');
    whole_user(out, attributes, user);
    out.push(b'}');
}

/// `{"version":…,"id":"…","reason":"…"}`: deleted. `reason` says why it was not active.
pub fn deleted(out: &mut Vec<u8>, user: &Document<'_>, reason: &str) {
    version(out, user);
    out.extend_from_slice(b"\"id\":");
    user_id(out, user.id);
    out.extend_from_slice(b",\"reason\":");
    string(out, reason);
    out.push(b'}');
}

/// `{"version":…,"id":"…","changed":{…}}`: email or userName changed. `changed` may hold
/// other attributes too; they are left out.
pub fn identifier_changed(
    out: &mut Vec<u8>,
    attributes: &Attributes,
    user: &Document<'_>,
    changed: &[Changed<'_, '_>],
) {
    version(out, user);
    out.extend_from_slice(b"\"id\":");
    user_id(out, user.id);
    out.push(b',');
    changes(
        out,
        attributes,
        changed.iter().filter(|c| is_identifier(c.attribute)),
    );
    out.push(b'}');
}

/// Whether a change of the attribute is a change of the user's identifier.
pub fn is_identifier(attribute: AttrId) -> bool {
    attribute == crate::attribute::EMAIL || attribute == crate::attribute::USER_NAME
}

/// `{"fingerprint":"…","kind":"…","source":"…",…}`: opened or resolved.
pub fn conflict(out: &mut Vec<u8>, conflict: &ConflictRow, source_name: &str) {
    use std::io::Write as _;
    out.extend_from_slice(b"{\"fingerprint\":\"");
    let _ = write!(out, "{:016x}", conflict.fingerprint.0);
    out.extend_from_slice(b"\",\"kind\":");
    string(out, conflict.kind.as_str());
    out.extend_from_slice(b",\"source\":");
    string(out, source_name);
    if let Some(attribute) = &conflict.attribute {
        out.extend_from_slice(b",\"attribute\":");
        string(out, attribute);
    }
    out.extend_from_slice(b",\"records\":[");
    for (i, key) in conflict.records.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        record(out, key);
    }
    out.extend_from_slice(b"],\"users\":[");
    for (i, user) in conflict.users.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        user_id(out, *user);
    }
    out.push(b']');
    if let Some(decided) = &conflict.decision {
        decision(out, decided);
    }
    out.push(b'}');
}

fn decision(out: &mut Vec<u8>, decided: &Decision) {
    out.extend_from_slice(b",\"decision\":{\"took\":");
    match &decided.choice {
        Choice::New => string(out, "new"),
        Choice::Own => string(out, "own"),
        Choice::Source => string(out, "source"),
        Choice::User(user) => {
            out.extend_from_slice(b"\"user\",\"user\":");
            user_id(out, *user);
        }
        Choice::Record(key) => {
            out.extend_from_slice(b"\"record\",\"record\":");
            record(out, key);
        }
    }
    out.extend_from_slice(b",\"by\":");
    string(out, &decided.actor);
    if !decided.reason.is_empty() {
        out.extend_from_slice(b",\"reason\":");
        string(out, &decided.reason);
    }
    out.push(b'}');
}

/// A record's key: an array of its columns.
fn record(out: &mut Vec<u8>, key: &[u8]) {
    out.push(b'[');
    if let Some(key) = rollcall_contract::Key::from_bytes(key) {
        for (i, part) in key.columns().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            text(out, part);
        }
    }
    out.push(b']');
}

fn version(out: &mut Vec<u8>, user: &Document<'_>) {
    out.extend_from_slice(b"{\"version\":");
    out.extend_from_slice(itoa::Buffer::new().format(user.version).as_bytes());
    out.push(b',');
}

fn user_id(out: &mut Vec<u8>, id: UserId) {
    let mut buffer = uuid::Uuid::encode_buffer();
    out.push(b'"');
    out.extend_from_slice(
        uuid::Uuid::from_bytes(id.0)
            .hyphenated()
            .encode_lower(&mut buffer)
            .as_bytes(),
    );
    out.push(b'"');
}

fn changes<'d, 'a: 'd>(
    out: &mut Vec<u8>,
    attributes: &Attributes,
    changed: impl Iterator<Item = &'d Changed<'d, 'a>>,
) {
    out.extend_from_slice(b"\"changed\":{");
    let mut first = true;
    for c in changed {
        let Some(attribute) = attributes.get(c.attribute) else {
            continue;
        };
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        string(out, &attribute.name);
        out.extend_from_slice(b":{\"before\":");
        value(out, attribute, c.before);
        out.extend_from_slice(b",\"after\":");
        value(out, attribute, c.after);
        out.push(b'}');
    }
    out.push(b'}');
}

/// `"user":{"id":…,…}`. Names with a dot are nested; names that share a prefix stand
/// together in the order of attributes.
fn whole_user(out: &mut Vec<u8>, attributes: &Attributes, user: &Document<'_>) {
    out.extend_from_slice(b"\"user\":{\"id\":");
    user_id(out, user.id);
    let mut active_written = false;
    let mut open: Option<&str> = None;
    for (id, group) in user.fields() {
        if !active_written && id >= ACTIVE {
            close(out, &mut open);
            active(out, user);
            active_written = true;
        }
        if id == ACTIVE {
            continue;
        }
        let Some(attribute) = attributes.get(id) else {
            continue;
        };
        let is_empty = match attribute.kind {
            AttrType::List if user.undo(id).is_some() => user.parts_in(id, group).is_empty(),
            AttrType::List => group.iter().all(|c| c.value.is_empty()),
            _ => user.value_in(id, group).is_none(),
        };
        if is_empty {
            continue;
        }
        match attribute.json_opening() {
            Some(opening) if open != Some(opening) => {
                close(out, &mut open);
                out.extend_from_slice(opening.as_bytes());
                open = Some(opening);
            }
            Some(_) => out.push(b','),
            None => {
                close(out, &mut open);
                out.push(b',');
            }
        }
        out.extend_from_slice(attribute.json_member().as_bytes());
        value(out, attribute, (user, group));
    }
    close(out, &mut open);
    if !active_written {
        active(out, user);
    }
    out.push(b'}');
}

fn close(out: &mut Vec<u8>, open: &mut Option<&str>) {
    if open.take().is_some() {
        out.push(b'}');
    }
}

fn active(out: &mut Vec<u8>, user: &Document<'_>) {
    out.extend_from_slice(if user.is_active() {
        b",\"active\":true"
    } else {
        b",\"active\":false"
    });
}

fn value<'a>(
    out: &mut Vec<u8>,
    attribute: &Attribute,
    (user, group): (&Document<'a>, &[Contribution<'a>]),
) {
    if attribute.kind == AttrType::List {
        let parts = user.parts_in(attribute.id, group);
        if group.is_empty() && parts.is_empty() {
            out.extend_from_slice(b"null");
            return;
        }
        out.push(b'[');
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            string(out, part);
        }
        out.push(b']');
        return;
    }
    let Some(value) = user.value_in(attribute.id, group) else {
        out.extend_from_slice(b"null");
        return;
    };
    match attribute.kind {
        AttrType::Boolean if matches!(value, b"true" | b"false") => {
            out.extend_from_slice(value);
        }
        AttrType::Integer if is_json_integer(value) => out.extend_from_slice(value),
        _ => text(out, value),
    }
}

/// JSON allows no leading zeros and no plus sign.
fn is_json_integer(value: &[u8]) -> bool {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    match digits {
        [] => false,
        [b'0'] => true,
        [b'0', ..] => false,
        _ => digits.iter().all(u8::is_ascii_digit),
    }
}

fn text(out: &mut Vec<u8>, value: &[u8]) {
    match std::str::from_utf8(value) {
        Ok(s) => string(out, s),
        Err(_) => string(out, &String::from_utf8_lossy(value)),
    }
}

/// What stands behind the backslash for a byte that must be escaped; `u` for the six-byte
/// form; 0 for all others.
const ESCAPE: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 0x20 {
        table[i] = b'u';
        i += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Appends a JSON string.
pub fn string(out: &mut Vec<u8>, s: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = s.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut done = 0;
    for (i, &b) in bytes.iter().enumerate() {
        let escape = ESCAPE[usize::from(b)];
        if escape == 0 {
            continue;
        }
        out.extend_from_slice(&bytes[done..i]);
        done = i + 1;
        out.extend_from_slice(&[b'\\', escape]);
        if escape == b'u' {
            let hex = [HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]];
            out.extend_from_slice(&[b'0', b'0', hex[0], hex[1]]);
        }
    }
    out.extend_from_slice(&bytes[done..]);
    out.push(b'"');
}
