//! Users as people and programs read them: lists, and everything that is known of one, with where
//! each value is from.

use rollcall_core::attribute::Attributes;
use rollcall_core::document::{
    Document, Given, LinkState, LinkView, OwnGiven, Pin, UserState, View,
};
use rollcall_core::id::{SourceId, UserRow};
use rollcall_core::reason::LeaverReason;
use rollcall_store::{Readers, StoreError, UserFilter, UserRowView};
use serde::{Deserialize, Serialize};

use super::named::{NoUser, find};
use super::views::rfc3339;

/// What to list of the users.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserQuery {
    /// Only those whose userName or displayName holds this text.
    pub search: Option<String>,
    /// Only active or only inactive ones.
    pub active: Option<bool>,
    /// Only those fed by this source.
    pub source: Option<String>,
    /// Behind this place.
    pub after: Option<i64>,
    /// At most so many (100).
    pub limit: Option<usize>,
}

/// A user in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UserLine {
    /// Its id.
    pub id: String,
    /// Its place, for the next page.
    pub place: i64,
    /// Whether it is active.
    pub active: bool,
    /// Its userName.
    pub user_name: Option<String>,
    /// Its displayName.
    pub display_name: Option<String>,
    /// RFC 3339.
    pub updated: String,
}

/// Users in the order in which they were made.
///
/// # Errors
/// When the store cannot be read.
pub fn users(readers: &Readers, query: &UserQuery) -> Result<Vec<UserLine>, StoreError> {
    let mut filter = UserFilter {
        active: query.active,
        text: query.search.clone(),
        source: None,
    };
    if let Some(name) = &query.source {
        match readers.source(name)? {
            Some(row) => filter.source = Some(row.id),
            None => return Ok(Vec::new()),
        }
    }
    let rows = readers.users(
        &filter,
        query.after.map(UserRow),
        query.limit.unwrap_or(100).min(10_000),
    )?;
    Ok(rows
        .into_iter()
        .map(|row| UserLine {
            id: id_of(&row),
            place: row.row.0,
            active: row.active,
            user_name: row.user_name,
            display_name: row.display_name,
            updated: rfc3339(row.updated_us),
        })
        .collect())
}

fn id_of(row: &UserRowView) -> String {
    Document::decode(&row.document).map_or_else(|_| String::new(), |d| d.id.to_string())
}

/// A user with the reason of each value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UserView {
    /// Its id.
    pub id: String,
    /// One more with each change that others can see.
    pub version: u64,
    /// `active`, `suspected` (active, and all its records are gone), `deactivated`,
    /// `suspended`, `tombstone`.
    pub state: String,
    /// Why it is not active, or suspected.
    pub reason: Option<String>,
    /// RFC 3339.
    pub created: String,
    /// RFC 3339.
    pub updated: String,
    /// The records that lead to it.
    pub links: Vec<LinkLine>,
    /// Its values.
    pub fields: Vec<FieldLine>,
    /// Fields that are another user, of whom no record is known yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<PendingLine>,
}

/// A field that waits for another user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PendingLine {
    /// The attribute.
    pub attribute: String,
    /// The source whose record says so; none when it is Rollcall's own.
    pub source: Option<String>,
    /// The key of that record.
    pub record: Option<String>,
    /// The key that it names; none when a user was written who is deleted.
    pub names: Option<String>,
}

/// A record of a user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkLine {
    /// The source.
    pub source: String,
    /// The key.
    pub record: String,
    /// Its columns, when they are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// `live`, `held: …`, `suspected: …`, `gone: …`; `erasing: …` while it waits for approval
    /// that the user is deleted.
    pub state: String,
    /// Since when it is suspected or gone, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// How often the key came into being.
    pub incarnation: u32,
    /// Position of its last change.
    pub position: String,
    /// Commit time of its last change, RFC 3339.
    pub committed: String,
}

/// A value and why it is so.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FieldLine {
    /// The attribute.
    pub attribute: String,
    /// The value.
    pub value: String,
    /// Who gave it.
    pub winner: GivenLine,
    /// Who would take over.
    pub others: Vec<GivenLine>,
}

/// Where a value comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GivenLine {
    /// The value.
    pub value: String,
    /// The source; none when it is Rollcall's own.
    pub source: Option<String>,
    /// The record's key.
    pub record: Option<String>,
    /// Of another user: the key that the record names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<String>,
    /// Number of the rule in the source's mapping, from 0.
    pub rule: u16,
    /// Position of the change.
    pub position: String,
    /// Commit time of the change, RFC 3339.
    pub committed: String,
    /// The run that applied it.
    pub run: u64,
    /// What is known of a value that is Rollcall's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnLine>,
}

/// Beside a value that the identity side wrote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OwnLine {
    /// Who wrote it.
    pub actor: String,
    /// Why; may be empty.
    pub reason: String,
    /// Whether it is pinned.
    pub pinned: bool,
    /// Until when, RFC 3339; none when for good.
    pub until: Option<String>,
    /// Whether it counts before the sources' values.
    pub wins: bool,
    /// The rule that says so.
    pub decided_by: String,
}

impl From<OwnGiven> for OwnLine {
    fn from(own: OwnGiven) -> OwnLine {
        OwnLine {
            actor: own.actor,
            reason: own.reason,
            pinned: own.pin.is_some(),
            until: own.pin.and_then(Pin::until_us).map(rfc3339),
            wins: own.standing.wins,
            decided_by: own.standing.by.as_str().to_owned(),
        }
    }
}

impl From<Given> for GivenLine {
    fn from(g: Given) -> GivenLine {
        GivenLine {
            value: g.value,
            source: g.source,
            record: g.record,
            names: g.names,
            rule: g.rule,
            position: g.position,
            committed: rfc3339(g.commit_us),
            run: g.run.0,
            own: g.own.map(OwnLine::from),
        }
    }
}

/// A user by its id, userName, email, or `source:key`.
///
/// # Errors
/// When the store cannot be read.
pub fn user(readers: &Readers, name: &str) -> Result<Result<UserView, NoUser>, StoreError> {
    let attributes = Attributes::new(readers.custom_attributes()?);
    let row = match find(readers, name)? {
        Ok(row) => row,
        Err(none) => return Ok(Err(none)),
    };
    let sources: Vec<(SourceId, String)> = readers
        .sources()?
        .into_iter()
        .map(|s| (s.id, s.name))
        .collect();
    let source_name = |id: SourceId| {
        sources
            .iter()
            .find(|(s, _)| *s == id)
            .map_or_else(|| format!("#{}", id.0), |(_, n)| n.clone())
    };
    let view =
        View::of(&row.document, &attributes, source_name).map_err(|e| StoreError::Damaged {
            detail: e.to_string(),
        })?;
    let (state, reason) = match view.state {
        UserState::Active => match suspected(&view.links) {
            Some(reason) => ("suspected", Some(reason.as_str().to_owned())),
            None => ("active", None),
        },
        UserState::Deactivated(reason) => ("deactivated", Some(reason.as_str().to_owned())),
        UserState::Suspended => ("suspended", None),
        UserState::Tombstone => ("tombstone", None),
    };
    Ok(Ok(UserView {
        id: view.id.to_string(),
        version: view.version,
        state: state.to_owned(),
        reason,
        created: rfc3339(view.created_us),
        updated: rfc3339(view.updated_us),
        links: view
            .links
            .into_iter()
            .map(|l| LinkLine {
                source: l.source,
                record: l.record,
                key: l.key,
                state: match l.state {
                    LinkState::Live => "live".to_owned(),
                    LinkState::Held(reason) => format!("held: {}", reason.as_str()),
                    LinkState::Gone(reason) => format!("gone: {}", reason.as_str()),
                    LinkState::Suspected(reason) => format!("suspected: {}", reason.as_str()),
                    LinkState::Erasing(reason) => format!("erasing: {}", reason.as_str()),
                },
                since: (l.since_us != 0).then(|| rfc3339(l.since_us)),
                incarnation: l.incarnation,
                position: l.position,
                committed: rfc3339(l.commit_us),
            })
            .collect(),
        fields: view
            .fields
            .into_iter()
            .map(|f| FieldLine {
                attribute: f.attribute,
                value: f.value,
                winner: f.winner.into(),
                others: f.others.into_iter().map(GivenLine::from).collect(),
            })
            .collect(),
        pending: view
            .pending
            .into_iter()
            .map(|p| PendingLine {
                attribute: p.attribute,
                source: p.source,
                record: p.record,
                names: p.names,
            })
            .collect(),
    }))
}

/// Why a user is about to become inactive: a record of it is gone, and none is there.
fn suspected(links: &[LinkView]) -> Option<LeaverReason> {
    let is_there = links.iter().any(|l| l.state.is_present());
    let gone = links.iter().filter(|l| l.state.feeds());
    gone.filter(|_| !is_there).find_map(|l| l.state.gone())
}
