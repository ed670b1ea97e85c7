//! What the identity side writes: from names and texts to edits, and what came of them.

use std::collections::BTreeMap;

use rollcall_core::attribute::{ACTIVE, AttrId, AttrType, Attribute, Attributes};
use rollcall_core::directory::Edited;
use rollcall_core::document::{Pin, Standing};
use rollcall_core::id::UserRow;
use rollcall_core::mapping::push_written;
use serde::{Deserialize, Serialize};

use crate::sync::fields::FieldEdit;

/// What somebody wants of a user's fields.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditQuery {
    /// Who wants it.
    pub actor: String,
    /// Why; may be empty.
    #[serde(default)]
    pub reason: String,
    /// Values by attribute, as text; the parts of a list are separated by commas, another user
    /// is its id, userName, email, or SOURCE:KEY.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Whether these values are pinned.
    #[serde(default)]
    pub pin: bool,
    /// Until when, microseconds since the Unix epoch; for good when none.
    #[serde(default)]
    pub until_us: Option<i64>,
    /// Attributes whose own value is taken back.
    #[serde(default)]
    pub unset: Vec<String>,
    /// Attributes that are pinned no longer.
    #[serde(default)]
    pub unpin: Vec<String>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum EditView {
    /// It is done.
    Done {
        /// The user's id.
        user: String,
        /// How each field's own value stands now.
        fields: Vec<StandingLine>,
    },
    /// It cannot be done, for all of these reasons, and nothing was.
    Refused {
        /// Sentences; none holds a value.
        reasons: Vec<String>,
    },
    /// A userName or email is another user's, and nothing was done.
    Taken {
        /// Which of the two.
        attribute: String,
        /// Whose it is, by id.
        owner: String,
    },
}

/// How an own value stands to those of sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingLine {
    /// The attribute.
    pub attribute: String,
    /// Whether the user shows it; none when there is no own value any more.
    pub wins: Option<bool>,
    /// The rule that says so.
    pub rule: Option<String>,
}

/// The edits that are asked for, or everything that speaks against them. `user` finds a user
/// by what names one.
///
/// # Errors
/// A sentence for each fault.
pub fn edits(
    query: &EditQuery,
    attributes: &Attributes,
    now_us: i64,
    user: impl Fn(&str) -> Option<UserRow>,
) -> Result<Vec<FieldEdit>, Vec<String>> {
    let mut edits = Vec::new();
    let mut reasons = Vec::new();
    let pin = match (query.pin, query.until_us) {
        (false, _) => None,
        (true, None) => Some(Pin::ForGood),
        (true, Some(until)) => {
            if until <= now_us {
                reasons.push("the pin would have ended already".to_owned());
            }
            Some(Pin::Until(until))
        }
    };
    let known = |name: &String, reasons: &mut Vec<String>| -> Option<Attribute> {
        match attributes.by_name(name) {
            Some(a) if a.id == ACTIVE => {
                reasons.push("active follows from records and cannot be written".to_owned());
                None
            }
            Some(a) => Some(a.clone()),
            None => {
                reasons.push(format!("no attribute is named {name:?}"));
                None
            }
        }
    };
    for (name, text) in &query.set {
        let Some(attribute) = known(name, &mut reasons) else {
            continue;
        };
        if attribute.kind == AttrType::Reference {
            match user(text) {
                Some(user) => edits.push(FieldEdit::Refer {
                    attribute: attribute.id,
                    user,
                    pin,
                }),
                None => reasons.push(format!("{name} names a user that there is not")),
            }
            continue;
        }
        let mut value = Vec::new();
        match push_written(&attribute, text, &mut value) {
            Ok(true) => edits.push(FieldEdit::Set {
                attribute: attribute.id,
                value,
                pin,
            }),
            Ok(false) => reasons.push(format!(
                "{name} has no value; `rollcall users unset` takes one back"
            )),
            Err(reason) => reasons.push(format!(
                "the value is none of {name}, which is {} ({})",
                kind(attribute.kind),
                reason.as_str()
            )),
        }
    }
    for (names, edit) in [
        (&query.unset, FieldEdit::Unset as fn(AttrId) -> FieldEdit),
        (&query.unpin, FieldEdit::Unpin),
    ] {
        for name in names {
            // Nobody writes it, but an undo may have put it.
            let is_active = |name: &String| attributes.by_name(name).map(|a| a.id) == Some(ACTIVE);
            if is_active(name) && edit(ACTIVE) == FieldEdit::Unset(ACTIVE) {
                edits.push(FieldEdit::Unset(ACTIVE));
                continue;
            }
            edits.extend(known(name, &mut reasons).map(|a| edit(a.id)));
        }
    }
    if edits.is_empty() && reasons.is_empty() {
        reasons.push("nothing is asked for".to_owned());
    }
    if reasons.is_empty() {
        Ok(edits)
    } else {
        Err(reasons)
    }
}

fn kind(kind: AttrType) -> &'static str {
    match kind {
        AttrType::Text => "a text",
        AttrType::Boolean => "true or false",
        AttrType::Integer => "a whole number",
        AttrType::Decimal => "a number",
        AttrType::Date => "a day (YYYY-MM-DD)",
        AttrType::Timestamp => "a time stamp (YYYY-MM-DDTHH:MM:SS)",
        AttrType::List => "a list",
        AttrType::Reference => "another user",
    }
}

/// What came of edits, for people and programs.
pub fn told(edited: Edited, user: String, attributes: &Attributes) -> EditView {
    let name = |id: AttrId| {
        let known = attributes.get(id);
        known.map_or_else(|| format!("[{}]", id.0), |a| a.name.clone())
    };
    let refused = |reason: String| EditView::Refused {
        reasons: vec![reason],
    };
    match edited {
        Edited::Done(fields) => EditView::Done {
            user,
            fields: fields
                .into_iter()
                .map(|(id, standing)| standing_line(name(id), standing))
                .collect(),
        },
        Edited::Taken { attribute, owner } => EditView::Taken {
            attribute: name(attribute),
            owner: owner.to_string(),
        },
        Edited::NoUser(id) => refused(format!("{} names a user that there is not", name(id))),
        Edited::Gone => refused("the user has been purged".to_owned()),
        Edited::Nothing(id) => refused(format!(
            "{} has no own value of which that could be said",
            name(id)
        )),
    }
}

fn standing_line(attribute: String, standing: Option<Standing>) -> StandingLine {
    StandingLine {
        attribute,
        wins: standing.map(|s| s.wins),
        rule: standing.map(|s| s.by.as_str().to_owned()),
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
mod tests {
    use super::*;

    fn attributes() -> Attributes {
        Attributes::new([(AttrId(1000), "badge".to_owned(), AttrType::Integer)])
    }

    fn query(set: &[(&str, &str)]) -> EditQuery {
        EditQuery {
            set: set
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            ..EditQuery::default()
        }
    }

    #[test]
    fn a_written_value_gets_the_form_that_a_source_would_give_it() {
        let cases = [
            ("email", " ana@example.com ", "ana@example.com"),
            ("title", "Cafe\u{301}", "Caf\u{e9}"),
            ("custom.badge", "0042", "42"),
            ("roles", "ops, dev,ops", "\u{3}dev\u{3}ops"),
        ];
        for (name, text, expected) in cases {
            let edits = edits(&query(&[(name, text)]), &attributes(), 0, |_| None).unwrap();
            let [FieldEdit::Set { value, pin, .. }] = &edits[..] else {
                panic!("{edits:?}")
            };
            assert_eq!(value, expected.as_bytes(), "{name}");
            assert_eq!(*pin, None);
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_and_no_value_is_repeated() {
        let query = EditQuery {
            pin: true,
            until_us: Some(10),
            unset: vec!["nosuch".to_owned()],
            ..query(&[
                ("custom.badge", "secret"),
                ("title", ""),
                ("active", "false"),
                ("manager", "secret"),
            ])
        };
        let reasons = edits(&query, &attributes(), 10, |_| None).unwrap_err();
        assert_eq!(reasons.len(), 6, "{reasons:?}");
        assert!(!reasons.join(" ").contains("secret"));
        assert!(edits(&EditQuery::default(), &attributes(), 0, |_| None).is_err());
    }
}
