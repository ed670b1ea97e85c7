//! From contributions to values: pure functions over a document.
//!
//! Each link owns its contributions and nothing else, so whatever order sources speak in,
//! the sorted contributions (and with them the winners) depend only on what each source
//! said last, not on when. That is also why a value that one source contributed to a list
//! can never be removed by another.
//!
//! A value that the identity side wrote is one more contribution, without a link. Where it
//! stands among those of the sources is computed the same way ([`order`]): from what each
//! said last, from when that was changed, and from one bit beside each source's value that
//! says whether it was changed since the own value was written. So a field's value does not
//! depend on the order in which two sources arrive either.

use smallvec::SmallVec;

use super::refer::IdText;
use super::rules::{LeaverAction, Mode, Rules};
use crate::attribute::{ACTIVE, AttrId, AttrType};
use crate::document::{
    Contribution, Document, Evidence, Link, Moment, Own, Put, Reference, Rule, Standing, UserState,
    shown,
};
use crate::event::body::Changed;
use crate::id::SourceId;
use crate::mapped::{Assigned, MappedField, MappedRow, Strength};
use crate::reason::LeaverReason;

enum Next<'a> {
    Nothing,
    Previous,
    Value(&'a [u8]),
}

/// What a field of a mapped row makes of what the link said before: `known` when it said
/// anything, `first` when the record is linked by this change.
fn next<'a>(rules: &Rules, field: &MappedField<'a>, known: bool, first: bool) -> Next<'a> {
    let strength = rules.strength(field.attribute, field.strength);
    match (strength, field.assigned) {
        (_, Assigned::Keep) => Next::Previous,
        (Strength::Always, Assigned::Clear) => Next::Nothing,
        (_, Assigned::Clear) => Next::Previous,
        (_, Assigned::Value([])) if rules.is_list(field.attribute) => match strength {
            Strength::Always => Next::Nothing,
            _ => Next::Previous,
        },
        (strength, Assigned::Value(v) | Assigned::Reference(v)) => match strength {
            Strength::Always => Next::Value(v),
            Strength::OnCreate | Strength::IfEmpty if known => Next::Previous,
            Strength::OnCreate if !first => Next::Nothing,
            Strength::OnCreate | Strength::IfEmpty => Next::Value(v),
        },
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
    let of_link = document.references.iter();
    let mut references = of_link.filter(|r| r.link == Some(link)).count();
    for field in row.fields() {
        if own.peek().is_some_and(|c| c.attribute < field.attribute) {
            return false;
        }
        let previous = own.next_if(|c| c.attribute == field.attribute);
        let named = match references {
            0 => None,
            _ => document.reference(field.attribute, Some(link)),
        };
        references -= usize::from(named.is_some());
        let known = previous.is_some() || named.is_some();
        let strength = rules.strength(field.attribute, field.strength);
        let same = match (next(rules, &field, known, false), field.assigned) {
            (Next::Nothing, _) => !known,
            (Next::Previous, _) => true,
            (Next::Value(key), Assigned::Reference(_)) => {
                named.is_some_and(|r| (r.key, r.rule, r.strength) == (key, field.rule, strength))
            }
            (Next::Value(v), _) => {
                named.is_none()
                    && previous
                        .is_some_and(|c| (c.value, c.rule, c.strength) == (v, field.rule, strength))
            }
        };
        if !same {
            return false;
        }
    }
    references == 0 && own.next().is_none()
}

/// A mapped row, and what is known of the change that brought it.
#[derive(Clone, Copy)]
pub(super) struct Said<'r, 'a> {
    pub(super) source: SourceId,
    pub(super) row: &'r MappedRow<'a>,
    /// The users whose records the row names and its link did not.
    pub(super) named: &'a [(AttrId, IdText)],
    pub(super) evidence: Evidence<'a>,
    /// When the row was changed, if the log told.
    pub(super) changed: Option<Moment>,
    /// Whether the record is linked by this change.
    pub(super) first: bool,
}

/// Replaces the contributions of a link by what its mapped row says now.
pub(super) fn contribute<'a>(
    rules: &Rules,
    document: &mut Document<'a>,
    link: u16,
    said: &Said<'_, 'a>,
) {
    let previous: SmallVec<[Contribution<'a>; 24]> = document
        .contributions
        .iter()
        .filter(|c| c.link == Some(link))
        .copied()
        .collect();
    document.contributions.retain(|c| c.link != Some(link));
    let of_link = document.references.iter();
    let named: SmallVec<[Reference<'a>; 1]> =
        of_link.filter(|r| r.link == Some(link)).copied().collect();
    document.references.retain(|r| r.link != Some(link));
    let fresh = document.evidence.len() as u16;
    document.evidence.push(said.evidence);
    for field in said.row.fields() {
        let attribute = field.attribute;
        let before = previous.iter().find(|c| c.attribute == attribute);
        let was = named.iter().find(|r| r.attribute == attribute);
        let known = before.is_some() || was.is_some();
        let value = match next(rules, &field, known, said.first) {
            Next::Nothing => continue,
            Next::Previous => {
                document.contributions.extend(before);
                document.references.extend(was);
                continue;
            }
            Next::Value(value) => value,
        };
        let is_reference = matches!(field.assigned, Assigned::Reference(_));
        // What is said already keeps its evidence.
        let same = match is_reference {
            true => was
                .filter(|r| r.key == value)
                .map(|r| (r.evidence, r.fresh)),
            false => before
                .filter(|c| c.value == value)
                .map(|c| (c.evidence, c.fresh)),
        };
        let (evidence, is_fresh) = match same {
            Some(same) => same,
            None => {
                let is_owned = document.own(attribute).is_some();
                let evidence = match rules.is_timed(attribute) {
                    true => timed_evidence(rules, document, said, attribute),
                    false => fresh,
                };
                (evidence, is_owned)
            }
        };
        let shown = match (is_reference, same) {
            (false, _) => Some(value),
            // The user behind a key is brought along when the key leads to another one.
            (true, Some(_)) => before.map(|c| c.value),
            (true, None) => {
                let mut ids = said.named.iter();
                ids.find(|(a, _)| *a == attribute).map(|(_, id)| &id[..])
            }
        };
        let strength = rules.strength(attribute, field.strength);
        if is_reference {
            document.references.push(Reference {
                attribute,
                link: Some(link),
                rule: field.rule,
                strength,
                evidence,
                fresh: is_fresh,
                key: value,
            });
        }
        document
            .contributions
            .extend(shown.map(|value| Contribution {
                attribute,
                link: Some(link),
                rule: field.rule,
                strength,
                evidence,
                fresh: is_fresh,
                sole: false,
                value,
            }));
    }
    document.references.sort_by_key(|r| (r.link, r.attribute));
    order(rules, document);
}

/// From here on a reference of a document leads to this user, or to nobody. The contributions
/// are to be put in order behind it.
pub(super) fn refer<'a>(document: &mut Document<'a>, at: usize, user: Option<&'a [u8]>) {
    let Reference {
        attribute,
        link,
        rule,
        strength,
        evidence,
        fresh,
        key: _,
    } = document.references[at];
    document
        .contributions
        .retain(|c| (c.attribute, c.link) != (attribute, link));
    document
        .contributions
        .extend(user.map(|value| Contribution {
            attribute,
            link,
            rule,
            strength,
            evidence,
            fresh,
            sole: false,
            value,
        }));
}

/// Evidence of when a value was changed: what the row itself says, else what the log says.
fn timed_evidence<'a>(
    rules: &Rules,
    document: &mut Document<'a>,
    said: &Said<'_, 'a>,
    attribute: AttrId,
) -> u16 {
    let trusted = rules
        .remap
        .changed(said.source, attribute, said.row.shadow());
    document.evidence.push(Evidence {
        changed: trusted.unwrap_or(said.changed),
        ..said.evidence
    });
    (document.evidence.len() - 1) as u16
}

/// Sorts the contributions by attribute and, within one, the winner first. What an undo has put
/// over an outcome that is another one now is taken off. The clock has no say: what a user is
/// changes when somebody does something, or a pin is ended ([`end_pins`]), and then everybody
/// who is concerned is looked at.
pub(super) fn order(rules: &Rules, document: &mut Document<'_>) {
    sort(rules, document);
    document.end_undos();
}

fn sort(rules: &Rules, document: &mut Document<'_>) {
    let links = &document.links;
    if document.owns.is_empty() {
        if links.len() < 2 {
            document
                .contributions
                .sort_by_key(|c| (c.attribute, c.link));
            return;
        }
        document
            .contributions
            .sort_by_cached_key(|c| place(rules, links, c));
        if !rules.has_timed() {
            return;
        }
    } else {
        document
            .contributions
            .sort_by_cached_key(|c| place(rules, links, c));
    }
    arrange(rules, document);
}

/// Takes off the pins whose time is over.
pub(super) fn end_pins(document: &mut Document<'_>, now_us: i64) {
    let ended = |own: &Own<'_>| {
        let until = own.pin.and_then(|pin| pin.until_us());
        until.is_some_and(|until| until <= now_us)
    };
    for own in document.owns.iter_mut().filter(|own| ended(own)) {
        own.pin = None;
    }
}

/// Whether the contributions are as [`order`] leaves them: other rules of a field change what
/// that is.
pub(super) fn is_in_order(rules: &Rules, document: &Document<'_>) -> bool {
    let links = &document.links;
    if document.owns.is_empty() && (links.len() < 2 || !rules.has_timed()) {
        return links.len() < 2
            || document
                .contributions
                .is_sorted_by_key(|c| place(rules, links, c));
    }
    let mut ordered = document.clone();
    order(rules, &mut ordered);
    ordered.contributions == document.contributions
        && ordered.owns == document.owns
        && ordered.undos == document.undos
}

/// Brings the winner of each sorted group to its front, where that is not its rank alone.
fn arrange(rules: &Rules, document: &mut Document<'_>) {
    let Document {
        links,
        evidence,
        contributions,
        owns,
        ..
    } = document;
    for own in owns.iter_mut() {
        let mut all = contributions.iter();
        if !all.any(|c| c.link.is_none() && c.attribute == own.attribute) {
            // The user that was written is not there.
            own.standing = Standing {
                wins: false,
                by: Rule::Alone,
            };
        }
    }
    let mut rest = &mut contributions[..];
    while let Some(first) = rest.first() {
        let attribute = first.attribute;
        let has_own = first.link.is_none();
        let len = rest.partition_point(|c| c.attribute == attribute);
        let (group, behind) = rest.split_at_mut(len);
        rest = behind;
        let is_listed = |c: &Contribution<'_>| {
            let source = c.link.map(|l| links[usize::from(l)].source);
            source.is_some_and(|s| rules.has_authority(attribute, s))
        };
        let sources = &mut group[usize::from(has_own)..];
        let in_time = sources.partition_point(|c| c.strength != Strength::IfEmpty);
        let sources = &mut sources[..in_time];
        let listed = sources.partition_point(is_listed);
        if rules.is_timed(attribute) {
            newest_first(rules, evidence, None, &mut sources[listed..]);
        }
        if !has_own {
            continue;
        }
        let own = owns.iter_mut().find(|own| own.attribute == attribute);
        let (Some(own), [mine, ..]) = (own, &mut *group) else {
            continue;
        };
        let mine = *mine;
        if rules.is_timed(attribute) && own.pin.is_none() {
            let written_us = evidence[usize::from(mine.evidence)].commit_us;
            let sources = &mut group[1 + listed..][..in_time - listed];
            newest_first(rules, evidence, Some(written_us), sources);
        }
        let rival = group[1..].first().filter(|_| in_time > 0);
        own.standing = standing(rules, evidence, own, &mine, rival, listed > 0);
        let behind = match own.standing {
            Standing { wins: true, .. } => 0,
            Standing {
                by: Rule::Authority,
                ..
            } => listed,
            _ => in_time,
        };
        group[..=behind].rotate_left(1);
        group[behind].sole = rules.is_list(attribute)
            && own.standing.wins
            && matches!(own.standing.by, Rule::Pin | Rule::TargetWins);
    }
}

/// Where the newer value wins: of sources without authority the first one, in the order of
/// the configuration, that is not surely older than another. Beside an own value that was
/// `written` then, only those that are surely newer than that: one that is too near to both, or does
/// not say when, would hide them.
fn newest_first(
    rules: &Rules,
    evidence: &[Evidence<'_>],
    written: Option<i64>,
    sources: &mut [Contribution<'_>],
) {
    let changed = |c: &Contribution<'_>| evidence[usize::from(c.evidence)].changed;
    let Some(newest) = sources.iter().filter_map(|c| Some(changed(c)?.at_us)).max() else {
        return;
    };
    let Some(attribute) = sources.first().map(|c| c.attribute) else {
        return;
    };
    let skew = rules.skew_us(attribute);
    let comes_first = |c: &Contribution<'_>| {
        let Some(moment) = changed(c) else {
            return written.is_none();
        };
        moment.end_us().saturating_add_unsigned(skew) > newest
            && written.is_none_or(|at| moment.at_us > at.saturating_add_unsigned(skew))
    };
    if let Some(at) = sources.iter().position(comes_first) {
        sources[..=at].rotate_right(1);
    }
}

/// How an own value stands to the first of the sources' values, if there is one that is not
/// only meant for the empty field.
fn standing(
    rules: &Rules,
    evidence: &[Evidence<'_>],
    own: &Own<'_>,
    mine: &Contribution<'_>,
    rival: Option<&Contribution<'_>>,
    is_listed: bool,
) -> Standing {
    let stands = |wins, by| Standing { wins, by };
    let attribute = own.attribute;
    if own.pin.is_some() {
        return stands(true, Rule::Pin);
    }
    let mode = rules.mode(attribute);
    if mode == Mode::Merge {
        return stands(true, Rule::Merge);
    }
    if is_listed && !rules.is_list(attribute) {
        return stands(false, Rule::Authority);
    }
    if matches!(mode, Mode::TargetWins | Mode::IfEmpty | Mode::OnCreate) {
        return stands(true, Rule::TargetWins);
    }
    let Some(rival) = rival else {
        return stands(true, Rule::Alone);
    };
    let source_wins = |by| stands(!rival.fresh, by);
    if mode != Mode::MostRecent {
        return source_wins(Rule::SourceWins);
    }
    let written_us = evidence[usize::from(mine.evidence)].commit_us;
    let Some(changed) = evidence[usize::from(rival.evidence)].changed else {
        return source_wins(Rule::NoEvidence);
    };
    let end_us = changed.end_us();
    if (changed.at_us..end_us).contains(&written_us) {
        // What came second does not take the place of what was there.
        return match own.decided {
            _ if mine.value == rival.value => source_wins(Rule::MostRecent),
            Some(decided) if decided.against == value_hash(rival.value) => {
                stands(decided.own, Rule::Decision)
            }
            _ => stands(rival.fresh, Rule::Tie),
        };
    }
    let apart = match written_us < changed.at_us {
        true => changed.at_us.abs_diff(written_us),
        false => written_us.abs_diff(end_us - 1),
    };
    if apart <= rules.skew_us(attribute) {
        return source_wins(Rule::WithinSkew);
    }
    stands(written_us >= end_us, Rule::MostRecent)
}

/// Names a value for as long as it stays the same.
pub(super) fn value_hash(value: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(value)
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
    let before = document.contributions.len();
    let stays = |link: Option<u16>| {
        link.is_none_or(|l| {
            let link = &links[usize::from(l)];
            link.state.feeds()
                || rules
                    .source(link.source)
                    .is_some_and(|s| s.leaver.action == LeaverAction::Ignore)
        })
    };
    document.contributions.retain(|c| stays(c.link));
    document.references.retain(|r| stays(r.link));
    if document.contributions.len() != before {
        order(rules, document);
    }
}

/// Whether the user may work. `leaving` when a link has just gone and its source does not
/// ignore that. What an undo has put stays until sources say something else of it.
pub(super) fn decide(document: &mut Document<'_>, leaving: Option<LeaverReason>) -> UserState {
    if let Some(Put::State { against, .. }) = document.undo(ACTIVE).map(|undo| &undo.put) {
        if *against == document.presence() {
            return document.state;
        }
        document.remove_undo(ACTIVE);
    }
    if document.state == UserState::Suspended {
        return document.state;
    }
    match (said_state(document), leaving, document.state) {
        (Some(state), _, _) => state,
        (None, Some(reason), UserState::Active) => UserState::Deactivated(reason),
        (None, _, state) => state,
    }
}

/// What the records that are there say of whether the user may work; none when there is none.
pub(super) fn said_state(document: &Document<'_>) -> Option<UserState> {
    let is_fed = document.links.iter().any(|l| l.state.feeds());
    is_fed.then(|| match document.value(ACTIVE) {
        Some(b"false") => UserState::Deactivated(LeaverReason::Status),
        _ => UserState::Active,
    })
}

/// The contributions to an attribute, and whose.
type Of<'d, 'a> = (&'d Document<'a>, &'d [Contribution<'a>]);

fn same_value(rules: &Rules, attribute: AttrId, a: Of<'_, '_>, b: Of<'_, '_>) -> bool {
    let is_list = rules
        .attributes
        .get(attribute)
        .is_some_and(|a| a.kind == AttrType::List);
    if !is_list {
        return a.0.value_in(attribute, a.1) == b.0.value_in(attribute, b.1);
    }
    let is_put = |of: Of<'_, '_>| of.0.undo(attribute).is_some();
    if !is_put(a) && !is_put(b) {
        if a.1.is_empty() || b.1.is_empty() {
            return a.1.is_empty() && b.1.is_empty();
        }
        let (a, b) = (shown(a.1), shown(b.1));
        if a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.value == y.value) {
            return true;
        }
    }
    a.0.parts_in(attribute, a.1) == b.0.parts_in(attribute, b.1)
}

/// The attributes that others see changed, in their order. [`ACTIVE`] is not among them: it
/// is a state, not a value.
pub(super) fn diff<'d, 'a>(
    rules: &Rules,
    before: &'d Document<'a>,
    after: &'d Document<'a>,
) -> SmallVec<[Changed<'d, 'a>; 8]> {
    let mut changed = SmallVec::new();
    let mut old = before.fields().peekable();
    let mut new = after.fields().peekable();
    loop {
        let attribute = match (old.peek(), new.peek()) {
            (None, None) => return changed,
            (Some((attribute, _)), None) | (None, Some((attribute, _))) => *attribute,
            (Some((a, _)), Some((b, _))) => *a.min(b),
        };
        let was = old.next_if(|(a, _)| *a == attribute);
        let is = new.next_if(|(a, _)| *a == attribute);
        let was: Of<'d, 'a> = (before, was.map(|(_, group)| group).unwrap_or_default());
        let is: Of<'d, 'a> = (after, is.map(|(_, group)| group).unwrap_or_default());
        if attribute != ACTIVE && !same_value(rules, attribute, was, is) {
            changed.push(Changed {
                attribute,
                before: was,
                after: is,
            });
        }
    }
}
