//! A user, for people: each field with the reason why it has its value.

use super::{
    Contribution, Document, DocumentError, Hold, LinkState, Pin, Put, Rule, Standing, Undo,
    UserState,
};
use crate::attribute::{AttrId, AttrType, Attributes};
use crate::conflict::Fingerprint;
use crate::id::{RunId, SourceId, UserId};
use crate::mapped::{ListValue, Strength, key_columns, key_text};

/// A value that was given to a field, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The value (a list: its texts joined by commas).
    pub value: String,
    /// The name of the source; none when the value is Rollcall's own.
    pub source: Option<String>,
    /// The key of the record, for people.
    pub record: Option<String>,
    /// Of another user: the key that the record names, for people.
    pub names: Option<String>,
    /// The number of the rule in the source's mapping.
    pub rule: u16,
    /// How the rule's value is used.
    pub strength: Strength,
    /// Position of the change that brought the value.
    pub position: String,
    /// Its commit time, microseconds since the Unix epoch.
    pub commit_us: i64,
    /// The run that applied it.
    pub run: RunId,
    /// What is known of it when it is Rollcall's own.
    pub own: Option<OwnGiven>,
}

/// Beside a value that the identity side wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnGiven {
    /// Who wrote it.
    pub actor: String,
    /// Why; may be empty.
    pub reason: String,
    /// Whether it is pinned.
    pub pin: Option<Pin>,
    /// How it stands to the values of sources.
    pub standing: Standing,
}

/// A field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldView {
    /// The attribute's name; its number in brackets when the organization no longer has it.
    pub attribute: String,
    /// What the user shows (a list: the union, joined by commas).
    pub value: String,
    /// Who gave it; for a list the first of those who gave parts of it.
    pub winner: Given,
    /// Who would take over, in order; for a list the others who gave parts of it.
    pub others: Vec<Given>,
}

/// A field that is another user, of whom no record is known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingView {
    /// The attribute's name.
    pub attribute: String,
    /// The name of the source; none when it is Rollcall's own.
    pub source: Option<String>,
    /// The key of the record that says so, for people.
    pub record: Option<String>,
    /// The key that it names, for people; none when it is Rollcall's own.
    pub names: Option<String>,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkView {
    /// The name of the source.
    pub source: String,
    /// The key of the record, for people.
    pub record: String,
    /// Its columns, when they are several.
    pub key: Vec<String>,
    /// How it stands.
    pub state: LinkState,
    /// Since when it is suspected or gone, microseconds since the Unix epoch; 0 otherwise.
    pub since_us: i64,
    /// The rule that failed, if one did.
    pub failed_rule: Option<u16>,
    /// The conflicts that name it.
    pub conflicts: Vec<Fingerprint>,
    /// How often the key came into being.
    pub incarnation: u32,
    /// Position of the last change.
    pub position: String,
    /// Its commit time, microseconds since the Unix epoch.
    pub commit_us: i64,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Its id.
    pub id: UserId,
    /// Its version.
    pub version: u64,
    /// Whether it may work, and if not, why.
    pub state: UserState,
    /// Microseconds since the Unix epoch.
    pub created_us: i64,
    /// Microseconds since the Unix epoch.
    pub updated_us: i64,
    /// Its links.
    pub links: Vec<LinkView>,
    /// Its fields in the order of attributes.
    pub fields: Vec<FieldView>,
    /// What waits for another user.
    pub pending: Vec<PendingView>,
}

impl View {
    /// Reads a document for people. `source_name` names a source.
    pub fn of(
        bytes: &[u8],
        attributes: &Attributes,
        source_name: impl Fn(SourceId) -> String,
    ) -> Result<View, DocumentError> {
        let document = Document::decode(bytes)?;
        let links = document
            .links
            .iter()
            .map(|l| {
                let hold = Hold::decode(l.hold);
                LinkView {
                    source: source_name(l.source),
                    record: key_text(l.key),
                    key: key_columns(l.key),
                    state: l.state,
                    since_us: l.since_us,
                    failed_rule: hold.rule,
                    conflicts: hold.conflicts.to_vec(),
                    incarnation: l.incarnation,
                    position: l.position.to_owned(),
                    commit_us: l.commit_us,
                }
            })
            .collect();
        let name = |id: AttrId| {
            let known = attributes.get(id);
            known.map_or_else(|| format!("[{}]", id.0), |a| a.name.clone())
        };
        let mut fields = Vec::new();
        for (attribute, group) in document.fields() {
            let known = attributes.get(attribute);
            let kind = known.map_or(AttrType::Text, |a| a.kind);
            let put = document.undo(attribute).map(put);
            let said = group.iter().map(|c| give(&document, c, kind, &source_name));
            let mut given = put.into_iter().chain(said);
            let Some(winner) = given.next() else { continue };
            let value = if kind == AttrType::List {
                document.parts_in(attribute, group).join(", ")
            } else {
                winner.value.clone()
            };
            fields.push(FieldView {
                attribute: name(attribute),
                value,
                winner,
                others: given.collect(),
            });
        }
        let pending = document
            .references
            .iter()
            .filter(|r| document.is_pending(r));
        let pending = pending.map(|r| {
            let link = r.link.map(|i| document.links[usize::from(i)]);
            PendingView {
                attribute: name(r.attribute),
                source: link.map(|l| source_name(l.source)),
                record: link.map(|l| key_text(l.key)),
                names: r.link.map(|_| key_text(r.key)),
            }
        });
        Ok(View {
            pending: pending.collect(),
            id: document.id,
            version: document.version,
            state: document.state,
            created_us: document.created_us,
            updated_us: document.updated_us,
            links,
            fields,
        })
    }
}

fn give(
    document: &Document<'_>,
    c: &Contribution<'_>,
    kind: AttrType,
    source_name: &impl Fn(SourceId) -> String,
) -> Given {
    let link = c.link.map(|i| document.links[usize::from(i)]);
    let evidence = document.evidence[usize::from(c.evidence)];
    Given {
        value: if kind == AttrType::List {
            list_text(ListValue::texts(c.value))
        } else {
            String::from_utf8_lossy(c.value).into_owned()
        },
        source: link.map(|l| source_name(l.source)),
        record: link.map(|l| key_text(l.key)),
        names: document
            .reference(c.attribute, c.link)
            .filter(|r| r.link.is_some())
            .map(|r| key_text(r.key)),
        rule: c.rule,
        strength: c.strength,
        position: evidence.position.to_owned(),
        commit_us: evidence.commit_us,
        run: evidence.run,
        own: document
            .own(c.attribute)
            .filter(|_| c.link.is_none())
            .map(|own| OwnGiven {
                actor: own.actor.to_owned(),
                reason: own.reason.to_owned(),
                pin: own.pin,
                standing: own.standing,
            }),
    }
}

/// What an undo has put over what is said.
fn put(undo: &Undo<'_>) -> Given {
    let value = match &undo.put {
        Put::Value { value, .. } => String::from_utf8_lossy(value.unwrap_or_default()).into_owned(),
        Put::User { id, .. } => String::from_utf8_lossy(id).into_owned(),
        Put::State { active, .. } => active.to_string(),
        Put::Parts { without, with } => {
            let without = without.iter().map(|part| format!("-{part}"));
            let with = with.iter().map(|part| format!("+{part}"));
            without.chain(with).collect::<Vec<_>>().join(", ")
        }
    };
    Given {
        value,
        source: None,
        record: None,
        names: None,
        rule: 0,
        strength: Strength::Always,
        position: String::new(),
        commit_us: undo.at_us,
        run: undo.run,
        own: Some(OwnGiven {
            actor: undo.actor.to_owned(),
            reason: undo.reason.to_owned(),
            pin: None,
            standing: Standing {
                wins: true,
                by: Rule::Undone,
            },
        }),
    }
}

fn list_text<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut texts: Vec<&str> = texts.collect();
    texts.sort_unstable();
    texts.dedup();
    texts.join(", ")
}
