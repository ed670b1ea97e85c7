//! From contributions to values: pure functions over a document.
//!
//! Each link owns its contributions and nothing else, so whatever order sources speak in,
//! the sorted contributions (and with them the winners) depend only on what each source
//! said last, not on when. That is also why a value that one source contributed to a list
//! can never be removed by another.

use smallvec::SmallVec;

use super::rules::{LeaverAction, Rules};
use crate::attribute::{ACTIVE, AttrId, AttrType};
use crate::document::{Contribution, Document, Evidence, Link, UserState};
use crate::event::body::Changed;
use crate::mapped::{Assigned, ListValue, MappedField, MappedRow, Strength};
use crate::reason::LeaverReason;

enum Next<'a> {
    Nothing,
    Previous,
    Value(&'a [u8]),
}

/// What a field of a mapped row makes of the link's previous contribution. `first` when the
/// record is linked by this change.
fn next<'a>(
    rules: &Rules,
    field: &MappedField<'a>,
    previous: Option<&Contribution<'_>>,
    first: bool,
) -> Next<'a> {
    match (field.strength, field.assigned) {
        (_, Assigned::Keep) => Next::Previous,
        (Strength::Always, Assigned::Clear) => Next::Nothing,
        (_, Assigned::Clear) => Next::Previous,
        (_, Assigned::Value([])) if rules.is_list(field.attribute) => match field.strength {
            Strength::Always => Next::Nothing,
            _ => Next::Previous,
        },
        (Strength::Always, Assigned::Value(v)) => Next::Value(v),
        (Strength::OnCreate | Strength::IfEmpty, Assigned::Value(_)) if previous.is_some() => {
            Next::Previous
        }
        (Strength::OnCreate, Assigned::Value(_)) if !first => Next::Nothing,
        (_, Assigned::Value(v)) => Next::Value(v),
    }
}

/// Whether a mapped row says what its link says already.
pub(super) fn says_the_same(
    rules: &Rules,
    document: &Document<'_>,
    link: u16,
    row: &MappedRow<'_>,
) -> bool {
    let mut own = document
        .contributions
        .iter()
        .filter(|c| c.link == Some(link))
        .peekable();
    for field in row.fields() {
        if own.peek().is_some_and(|c| c.attribute < field.attribute) {
            return false;
        }
        let previous = own.next_if(|c| c.attribute == field.attribute);
        let same = match next(rules, &field, previous, false) {
            Next::Nothing => previous.is_none(),
            Next::Previous => true,
            Next::Value(v) => previous.is_some_and(|c| {
                c.value == v && c.rule == field.rule && c.strength == field.strength
            }),
        };
        if !same {
            return false;
        }
    }
    own.next().is_none()
}

/// Replaces the contributions of a link by what its mapped row says now.
pub(super) fn contribute<'a>(
    rules: &Rules,
    document: &mut Document<'a>,
    link: u16,
    row: &MappedRow<'a>,
    evidence: Evidence<'a>,
    first: bool,
) {
    let previous: SmallVec<[Contribution<'a>; 24]> = document
        .contributions
        .iter()
        .filter(|c| c.link == Some(link))
        .copied()
        .collect();
    document.contributions.retain(|c| c.link != Some(link));
    let fresh = document.evidence.len() as u16;
    document.evidence.push(evidence);
    for field in row.fields() {
        let before = previous.iter().find(|c| c.attribute == field.attribute);
        match (next(rules, &field, before, first), before) {
            (Next::Nothing, _) | (Next::Previous, None) => {}
            (Next::Previous, Some(c)) => document.contributions.push(*c),
            (Next::Value(value), before) => document.contributions.push(Contribution {
                attribute: field.attribute,
                link: Some(link),
                rule: field.rule,
                strength: field.strength,
                evidence: before
                    .filter(|c| c.value == value)
                    .map_or(fresh, |c| c.evidence),
                value,
            }),
        }
    }
    order(rules, document);
}

/// Sorts the contributions by attribute and rank.
pub(super) fn order(rules: &Rules, document: &mut Document<'_>) {
    let links = &document.links;
    if links.len() < 2 {
        document
            .contributions
            .sort_by_key(|c| (c.attribute, c.link));
        return;
    }
    document
        .contributions
        .sort_by_cached_key(|c| place(rules, links, c));
}

/// Whether the contributions are as [`order`] leaves them: a change of the authority changes
/// what that is.
pub(super) fn is_in_order(rules: &Rules, document: &Document<'_>) -> bool {
    let links = &document.links;
    links.len() < 2
        || document
            .contributions
            .is_sorted_by_key(|c| place(rules, links, c))
}

fn place(rules: &Rules, links: &[Link<'_>], c: &Contribution<'_>) -> (AttrId, u32, Option<u16>) {
    let source = c.link.map(|l| links[usize::from(l)].source);
    (
        c.attribute,
        rules.rank(c.attribute, source, c.strength),
        c.link,
    )
}

/// Drops what former links gave, once a present one feeds the user. While there is none,
/// the attributes stay as they were; and what a source that ignores leavers gave stays.
pub(super) fn drop_former(rules: &Rules, document: &mut Document<'_>) {
    let links = &document.links;
    if !links.iter().any(|l| l.state.feeds()) {
        return;
    }
    document.contributions.retain(|c| {
        c.link.is_none_or(|l| {
            let link = &links[usize::from(l)];
            link.state.feeds()
                || rules
                    .source(link.source)
                    .is_some_and(|s| s.leaver.action == LeaverAction::Ignore)
        })
    });
}

/// Whether the user may work. `leaving` when a link has just gone and its source does not
/// ignore that.
pub(super) fn decide(document: &Document<'_>, leaving: Option<LeaverReason>) -> UserState {
    if document.state == UserState::Suspended {
        return document.state;
    }
    if document.links.iter().any(|l| l.state.feeds()) {
        return match document.value(ACTIVE) {
            Some(b"false") => UserState::Deactivated(LeaverReason::Status),
            _ => UserState::Active,
        };
    }
    match (leaving, document.state) {
        (Some(reason), UserState::Active) => UserState::Deactivated(reason),
        (_, state) => state,
    }
}

fn same_value(rules: &Rules, a: &[Contribution<'_>], b: &[Contribution<'_>]) -> bool {
    let (Some(first_a), Some(first_b)) = (a.first(), b.first()) else {
        return a.is_empty() && b.is_empty();
    };
    if !rules
        .attributes
        .get(first_a.attribute)
        .is_some_and(|a| a.kind == AttrType::List)
    {
        return first_a.value == first_b.value;
    }
    if a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.value == y.value) {
        return true;
    }
    union(a) == union(b)
}

fn union<'a>(group: &[Contribution<'a>]) -> SmallVec<[&'a str; 16]> {
    let mut texts: SmallVec<[&str; 16]> = group
        .iter()
        .flat_map(|c| ListValue::texts(c.value))
        .collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

/// The attributes that others see changed, in their order. [`ACTIVE`] is not among them: it
/// is a state, not a value.
pub(super) fn diff<'d, 'a>(
    rules: &Rules,
    before: &'d Document<'a>,
    after: &'d Document<'a>,
) -> SmallVec<[Changed<'d, 'a>; 8]> {
    let mut changed = SmallVec::new();
    let mut old = before.groups().peekable();
    let mut new = after.groups().peekable();
    loop {
        let attribute = match (old.peek(), new.peek()) {
            (None, None) => return changed,
            (Some(g), None) | (None, Some(g)) => g[0].attribute,
            (Some(a), Some(b)) => a[0].attribute.min(b[0].attribute),
        };
        let before = old
            .next_if(|g| g[0].attribute == attribute)
            .unwrap_or_default();
        let after = new
            .next_if(|g| g[0].attribute == attribute)
            .unwrap_or_default();
        if attribute != ACTIVE && !same_value(rules, before, after) {
            changed.push(Changed {
                attribute,
                before,
                after,
            });
        }
    }
}
