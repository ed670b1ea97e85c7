//! Each promise about whose value of a field counts, by its sentence.

use proptest::prelude::*;

use super::properties::{config, history};
use super::*;
use crate::conflict::{Choice, ConflictKind};
use crate::document::{Pin, Rule};
use EventKind::*;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Two sources, the first of the file first, and one rule for titles and for roles.
fn world(mode: Mode) -> World {
    with_rules(FieldRules {
        mode: Some(mode),
        ..FieldRules::of_authority(Vec::new())
    })
}

fn with_rules(rules: FieldRules) -> World {
    World::new(Rules::new(
        "acme",
        attributes(),
        vec![SourceRules::new(A, "hr"), SourceRules::new(B, "crm")],
        HashMap::from([(TITLE, rules.clone()), (ROLES, rules)]),
        Box::new(TestMapper),
    ))
}

fn only_user(w: &World) -> UserRow {
    assert_eq!(w.state.users.len(), 1);
    *w.state.users.keys().next().unwrap()
}

impl World {
    /// A row that was committed then.
    fn put_at(&mut self, source: SourceId, row: &str, commit_us: i64) -> Vec<Told> {
        let told = self.with(|r| take(r, &put(source, "1", row), "0/1", commit_us));
        self.check();
        told
    }

    /// Edits of the only user, made then.
    fn edit_at(&mut self, edits: &[Edit<'_>], now_us: i64) -> Edited {
        let user = only_user(self);
        let author = Author {
            actor: "ann",
            reason: "asked for",
        };
        self.clock = now_us - 1;
        let mut edited = None;
        self.with(|r| edited = Some(r.edit(user, edits, author).unwrap()));
        self.check();
        edited.unwrap()
    }

    fn set_at(&mut self, value: &str, now_us: i64) {
        let edited = self.edit_at(&[set(value, None)], now_us);
        assert!(matches!(edited, Edited::Done(_)), "{edited:?}");
    }

    fn title(&self) -> String {
        let user = self.user("a@x");
        user["title"].as_str().unwrap_or("nothing").to_owned()
    }

    /// Which rule decided the title.
    fn rule(&self) -> Rule {
        let document = &self.state.users[&only_user(self)];
        let document = Document::decode(document).unwrap();
        document.own(TITLE).unwrap().standing.by
    }
}

fn set(value: &str, pin: Option<Pin>) -> Edit<'_> {
    Edit::Set {
        attribute: TITLE,
        value: value.as_bytes(),
        pin,
    }
}

fn list(roles: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    ListValue::encode(&mut roles.to_vec(), &mut out);
    out
}

#[test]
fn what_the_identity_side_writes_stays_until_the_source_changes_its_value() {
    let mut w = world(Mode::SourceWins);
    w.put_at(A, "10=Clerk;16=a@x", 10);
    w.set_at("Chief", 20);
    assert_eq!(w.title(), "Chief");
    assert!(w.put_at(A, "10=Clerk;16=a@x;28=7", 30)[0].data["changed"]["title"].is_null());
    assert_eq!(w.title(), "Chief", "another field changed");
    let told = w.put_at(A, "10=Boss;16=a@x;28=7", 5);
    assert_eq!(kinds(&told), [UserUpdated]);
    assert_eq!((w.title().as_str(), w.rule()), ("Boss", Rule::SourceWins));
    w.put_at(A, "16=a@x;28=7", 40);
    assert_eq!(
        w.title(),
        "Chief",
        "who gives nothing has no value that could count"
    );
}

#[test]
fn whoever_has_authority_comes_before_what_the_identity_side_writes_and_a_pin_before_both() {
    let mut w = with_rules(FieldRules {
        mode: Some(Mode::TargetWins),
        ..FieldRules::of_authority(vec![B])
    });
    w.put_at(A, "10=Clerk;16=a@x", 10);
    w.set_at("Chief", 20);
    assert_eq!((w.title().as_str(), w.rule()), ("Chief", Rule::TargetWins));
    w.put_at(B, "10=Boss;16=a@x", 30);
    assert_eq!((w.title().as_str(), w.rule()), ("Boss", Rule::Authority));
    w.edit_at(&[set("King", Some(Pin::ForGood))], 40);
    assert_eq!((w.title().as_str(), w.rule()), ("King", Rule::Pin));
    w.edit_at(&[Edit::Unpin(TITLE)], 50);
    assert_eq!(w.title(), "Boss");
    w.put_at(B, "16=a@x", 60);
    assert_eq!(w.title(), "King", "before those without authority");
    w.edit_at(&[Edit::Unset(TITLE)], 70);
    assert_eq!(w.title(), "Clerk");
    assert_eq!(w.edit_at(&[Edit::Unset(TITLE)], 80), Edited::Nothing(TITLE));
}

#[test]
fn target_wins_keeps_what_the_identity_side_wrote() {
    let mut w = world(Mode::TargetWins);
    w.put_at(A, "10=Clerk;16=a@x;26=dev", 10);
    w.set_at("Chief", 20);
    for (at, title) in [(30, "Boss"), (40, "Clerk"), (50, "Head")] {
        w.put_at(A, &format!("10={title};16=a@x;26=dev"), at);
        assert_eq!(w.title(), "Chief");
    }
    let roles = list(&["ops"]);
    let edit = Edit::Set {
        attribute: ROLES,
        value: &roles,
        pin: None,
    };
    w.edit_at(&[edit], 60);
    assert_eq!(w.user("a@x")["roles"], serde_json::json!(["ops"]));
}

#[test]
fn most_recent_never_lets_an_older_value_win_under_clock_skew() {
    // When the source changed its value, and when ours was written; who wins, and why.
    let skew = FieldRules::SKEW_US as i64;
    let at = 100 * SECOND;
    let cases = [
        (at, at + skew + 1, "Chief", Rule::MostRecent),
        (at, at + DAY, "Chief", Rule::MostRecent),
        (at + skew + 1, at, "Boss", Rule::MostRecent),
        (at + DAY, at, "Boss", Rule::MostRecent),
        (at, at + skew, "last", Rule::WithinSkew),
        (at, at + 1, "last", Rule::WithinSkew),
        (at + 1, at, "last", Rule::WithinSkew),
        (at + skew, at, "last", Rule::WithinSkew),
    ];
    for (changed, written, wins, rule) in cases {
        for ours_first in [true, false] {
            let mut w = world(Mode::MostRecent);
            w.put_at(A, "10=Clerk;16=a@x", 1);
            let last = if ours_first { "Boss" } else { "Chief" };
            if ours_first {
                w.set_at("Chief", written);
                w.put_at(A, "10=Boss;16=a@x", changed);
            } else {
                w.put_at(A, "10=Boss;16=a@x", changed);
                w.set_at("Chief", written);
            }
            let wins = if wins == "last" { last } else { wins };
            let case = format!("{changed} {written} {ours_first}");
            assert_eq!((w.title().as_str(), w.rule()), (wins, rule), "{case}");
            assert!(w.open().is_empty());
        }
    }
}

#[test]
fn most_recent_lets_no_source_hide_another_that_is_surely_newer_than_what_was_written() {
    let skew = FieldRules::SKEW_US as i64;
    let written = 100 * SECOND;
    // The first one has no time, or is within the skew of both.
    let near = format!("10=Clerk;16=a@x;@{}/1", written + skew / 2);
    for first in ["10=Clerk;16=a@x;@", &near] {
        for order in 0..3 {
            let mut w = world(Mode::MostRecent);
            w.put_at(A, "10=Old;16=a@x;@1/1", 1);
            w.put_at(B, "10=Old;16=a@x;@1/1", 1);
            let second = format!("10=Boss;16=a@x;@{}/1", written + skew + skew / 3);
            for step in 0..3 {
                match (step + order) % 3 {
                    0 => w.set_at("Chief", written),
                    1 => drop(w.put_at(A, first, written)),
                    _ => drop(w.put_at(B, &second, written)),
                }
            }
            assert_eq!((w.title().as_str(), w.rule()), ("Boss", Rule::MostRecent));
            w.check();
        }
    }
}

#[test]
fn without_evidence_of_a_change_the_source_wins_and_the_provenance_says_so() {
    let mut w = world(Mode::MostRecent);
    w.put_at(A, "10=Clerk;16=a@x;@", 10);
    w.set_at("Chief", 20 * SECOND);
    assert_eq!((w.title().as_str(), w.rule()), ("Chief", Rule::NoEvidence));
    w.put_at(A, "10=Boss;16=a@x;@", 1);
    assert_eq!((w.title().as_str(), w.rule()), ("Boss", Rule::NoEvidence));
    w.set_at("Chief", 30 * SECOND);
    w.one(scan(A, "1", "10=Head;16=a@x"));
    assert_eq!((w.title().as_str(), w.rule()), ("Head", Rule::NoEvidence));
    w.check();
}

#[test]
fn a_trusted_column_counts_in_place_of_the_commit_and_also_in_a_scan() {
    let mut w = world(Mode::MostRecent);
    w.put_at(A, "10=Clerk;16=a@x;@10/1", 10);
    w.set_at("Chief", 100 * SECOND);
    // Committed late, and changed long before.
    w.put_at(A, "10=Boss;16=a@x;@50000000/1000000", 500 * SECOND);
    assert_eq!((w.title().as_str(), w.rule()), ("Chief", Rule::MostRecent));
    w.one(scan(A, "1", "10=Head;16=a@x;@200000000/1000000"));
    assert_eq!((w.title().as_str(), w.rule()), ("Head", Rule::MostRecent));
    w.check();
}

#[test]
fn a_tie_keeps_the_present_value_and_asks() {
    let mut w = world(Mode::MostRecent);
    w.put_at(A, "10=Clerk;16=a@x;@10/1", 10);
    w.set_at("Chief", 100 * SECOND + 1);
    let told = w.put_at(A, "10=Boss;16=a@x;@100000000/1000000", 200 * SECOND);
    assert_eq!((w.title().as_str(), w.rule()), ("Chief", Rule::Tie));
    assert_eq!(kinds(&told), [ConflictOpened]);
    assert_eq!(told[0].data["kind"], "value");
    assert_eq!(told[0].data["attribute"], "title");
    // Written into a second in which the source has changed its value: that stays.
    w.put_at(A, "10=Boss;16=a@x;@300000000/1000000", 300 * SECOND);
    let told = w.put_at(A, "10=Head;16=a@x;@400000000/1000000", 400 * SECOND);
    assert_eq!(kinds(&told), [UserUpdated, ConflictResolved]);
    let edited = w.edit_at(&[set("King", None)], 400 * SECOND + 5);
    let Edited::Done(stands) = edited else {
        panic!("{edited:?}")
    };
    assert_eq!(stands[0].1.map(|s| s.by), Some(Rule::Tie));
    assert_eq!(w.title(), "Head");
    assert_eq!(w.open().len(), 1);
    w.edit_at(&[Edit::Unset(TITLE)], 500 * SECOND);
    assert!(w.open().is_empty());
    // Two who say the same have nothing to decide.
    w.set_at("Head", 400 * SECOND + 5);
    assert!(w.open().is_empty());
}

#[test]
fn a_decision_between_two_values_is_sticky_until_the_competing_value_changes() {
    for own in [true, false] {
        let mut w = world(Mode::MostRecent);
        w.put_at(A, "10=Clerk;16=a@x;@10/1", 10);
        w.set_at("Chief", 100 * SECOND);
        w.put_at(A, "10=Boss;16=a@x;@100000000/1000000", 200 * SECOND);
        let decide = Edit::Decide {
            attribute: TITLE,
            own,
        };
        w.edit_at(&[decide], 300 * SECOND);
        let decided = if own { "Chief" } else { "Boss" };
        assert_eq!((w.title().as_str(), w.rule()), (decided, Rule::Decision));
        assert!(w.open().is_empty());
        assert_eq!(w.edit_at(&[decide], 310 * SECOND), Edited::Nothing(TITLE));
        for number in 0..3 {
            let row = format!("10=Boss;16=a@x;28={number};@100000000/1000000");
            w.put_at(A, &row, 400 * SECOND);
            assert_eq!((w.title().as_str(), w.rule()), (decided, Rule::Decision));
        }
        let told = w.put_at(A, "10=Head;16=a@x;@100000000/1000000", 500 * SECOND);
        assert!(kinds(&told).contains(&ConflictOpened), "asked once more");
        assert_eq!(w.rule(), Rule::Tie);
    }
}

#[test]
fn a_pinned_field_survives_a_year_of_source_changes_and_ends_when_its_pin_does() {
    for mode in [Mode::SourceWins, Mode::MostRecent] {
        let mut w = world(mode);
        w.put_at(A, "10=Clerk;16=a@x", 10);
        w.put_at(B, "10=Clerk;16=a@x", 10);
        let end = 365 * DAY;
        w.edit_at(&[set("Chief", Some(Pin::Until(end)))], DAY);
        for day in 2..365 {
            w.clock = day * DAY;
            let source = if day % 2 == 0 { A } else { B };
            w.put_at(source, &format!("10=t{day};16=a@x"), day * DAY);
            assert_eq!((w.title().as_str(), w.rule()), ("Chief", Rule::Pin));
        }
        let due = *w.state.due.first().unwrap();
        assert_eq!((due.user, due.since_us), (only_user(&w), end));
        w.clock = end - 2;
        assert!(w.with(|r| r.end_pins(&due).unwrap()).is_empty());
        assert_eq!(w.title(), "Chief");
        let told = w.with(|r| r.end_pins(&due).unwrap());
        assert_eq!(kinds(&told), [UserUpdated]);
        assert_eq!(w.title(), "t364");
        assert!(w.with(|r| r.end_pins(&due).unwrap()).is_empty());
        w.check();
    }
}

/// A change of the record that comes between the end of a pin and its reminder could otherwise
/// give the user an email that by then is another user's.
#[test]
fn a_pin_ends_with_its_reminder_and_not_by_a_row_that_comes_before_it() {
    let mut w = world(Mode::SourceWins);
    w.put_at(A, "10=Clerk;16=a@x", 10);
    w.edit_at(&[set("Chief", Some(Pin::Until(1_000)))], 100);
    w.clock = 2_000;
    w.put_at(A, "10=Boss;16=a@x", 2_000);
    assert_eq!((w.title().as_str(), w.rule()), ("Chief", Rule::Pin));
    w.check();
    let due = *w.state.due.first().unwrap();
    w.with(|r| r.end_pins(&due).unwrap());
    assert_eq!(w.title(), "Boss");
    w.check();
}

#[test]
fn a_record_held_for_a_pinned_email_is_applied_when_the_pin_has_ended() {
    let mut w = world(Mode::SourceWins);
    w.one(put(A, "1", "16=d@x;15=false"));
    w.one(put(A, "3", "16=b@x"));
    let gone = UserRow(1);
    let edit = Edit::Set {
        attribute: EMAIL,
        value: b"b@x",
        pin: Some(Pin::Until(w.clock + 10)),
    };
    w.with(|r| drop(r.edit(gone, &[edit], Author::default()).unwrap()));
    // Active again it would have the email of another user.
    w.one(put(A, "1", "16=c@x"));
    assert!(w.open().iter().any(|c| c.kind == ConflictKind::Uniqueness));
    w.check();
    w.clock += 20;
    let due = *w.state.due.first().unwrap();
    w.with(|r| r.end_pins(&due).unwrap());
    assert!(w.open().is_empty());
    assert_eq!(w.user("c@x")["active"], true);
    w.check();
}

#[test]
fn a_source_takes_away_only_the_roles_that_it_gave() {
    let mut w = world(Mode::Merge);
    w.put_at(A, "16=a@x;26=dev,shared,own", 10);
    w.put_at(B, "16=a@x;26=ops,shared", 20);
    let own = list(&["own", "audit"]);
    let edit = |pin| Edit::Set {
        attribute: ROLES,
        value: &own,
        pin,
    };
    w.edit_at(&[edit(None)], 30);
    let roles = |w: &World| w.user("a@x")["roles"].clone();
    let all = serde_json::json!(["audit", "dev", "ops", "own", "shared"]);
    assert_eq!(roles(&w), all);
    w.put_at(A, "16=a@x", 40);
    assert_eq!(
        roles(&w),
        serde_json::json!(["audit", "ops", "own", "shared"])
    );
    w.edit_at(&[edit(Some(Pin::ForGood))], 50);
    assert_eq!(
        roles(&w),
        serde_json::json!(["audit", "own"]),
        "exactly these"
    );
    w.put_at(B, "16=a@x;26=ops", 60);
    assert_eq!(roles(&w), serde_json::json!(["audit", "own"]));
    w.edit_at(&[Edit::Unset(ROLES)], 70);
    assert_eq!(roles(&w), serde_json::json!(["ops"]));
}

#[test]
fn sources_fill_only_what_is_empty_where_the_field_says_so() {
    let mut w = world(Mode::IfEmpty);
    w.put_at(A, "10=Clerk;16=a@x", 10);
    w.put_at(A, "10=Boss;16=a@x", 20);
    assert_eq!(w.title(), "Clerk");
    w.set_at("Chief", 30);
    assert_eq!(w.title(), "Chief");
    w.edit_at(&[Edit::Unset(TITLE)], 40);
    assert_eq!(w.title(), "Clerk");

    let mut w = world(Mode::OnCreate);
    w.put_at(A, "16=a@x", 10);
    w.put_at(A, "10=Boss;16=a@x", 20);
    assert_eq!(w.title(), "nothing");
    w.put_at(B, "10=Guest;16=a@x", 30);
    assert_eq!(w.title(), "Guest", "when its record is linked");
}

#[test]
fn where_the_newer_value_wins_it_wins_between_sources_too() {
    let mut w = world(Mode::MostRecent);
    w.put_at(A, "10=Clerk;16=a@x", 10 * SECOND);
    w.put_at(B, "10=Boss;16=a@x", 20 * SECOND);
    assert_eq!(w.title(), "Boss");
    w.put_at(A, "10=Clerk;16=a@x;28=7", 30 * SECOND);
    assert_eq!(w.title(), "Boss", "another field is newer");
    w.put_at(A, "10=Head;16=a@x;28=7", 40 * SECOND);
    assert_eq!(w.title(), "Head");
    w.put_at(B, "10=King;16=a@x", 41 * SECOND);
    assert_eq!(w.title(), "Head", "too close: the first of the file");
}

#[test]
fn an_identifier_of_another_user_is_refused_and_its_owner_named() {
    let mut w = world(Mode::SourceWins);
    w.batch(&[put(A, "1", "1=ann;16=a@x"), put(A, "2", "1=bob;16=b@x")]);
    let owner = w.state.users[&UserRow(2)].clone();
    let owner = Document::decode(&owner).unwrap().id;
    let edits = |value: &'static str, attribute| {
        [Edit::Set {
            attribute,
            value: value.as_bytes(),
            pin: None,
        }]
    };
    for (value, attribute) in [("Bob", USER_NAME), ("B@X", EMAIL)] {
        let mut edited = None;
        let told = w.with(|r| {
            let edits = edits(value, attribute);
            edited = Some(r.edit(UserRow(1), &edits, Author::default()).unwrap());
        });
        assert!(told.is_empty());
        assert_eq!(edited, Some(Edited::Taken { attribute, owner }));
    }
    let told = w.with(|r| {
        let edits = edits("c@x", EMAIL);
        r.edit(UserRow(1), &edits, Author::default()).unwrap();
    });
    assert_eq!(kinds(&told), [UserUpdated, IdentifierChanged]);
    // What is written is a match key as what a source gives.
    w.one(put(B, "7", "16=c@x;10=Guest"));
    assert_eq!(w.user("c@x")["title"], "Guest");
    w.check();
    // Taken back, the source's own value would be somebody else's by now.
    w.one(put(B, "8", "16=a@x"));
    let told = w.with(|r| {
        let edits = [Edit::Unset(EMAIL)];
        r.edit(UserRow(1), &edits, Author::default()).unwrap();
    });
    assert!(kinds(&told).contains(&ConflictOpened));
    assert!(w.open().iter().any(|c| c.kind == ConflictKind::Uniqueness));
    w.check();
}

#[test]
fn a_user_without_own_values_takes_the_bytes_that_it_took() {
    for mode in [Mode::SourceWins, Mode::Merge, Mode::TargetWins] {
        let mut w = world(mode);
        w.put_at(A, "10=Clerk;16=a@x;26=dev", 10);
        w.put_at(B, "10=Boss;16=a@x;26=ops", 20);
        let before = w.state.users[&UserRow(1)].len();
        w.set_at("Chief", 30);
        assert!(w.state.users[&UserRow(1)].len() > before);
        w.edit_at(&[Edit::Unset(TITLE)], 40);
        let mut plain = world(mode);
        plain.put_at(A, "10=Clerk;16=a@x;26=dev", 10);
        plain.put_at(B, "10=Boss;16=a@x;26=ops", 20);
        assert_eq!(plain.state.users[&UserRow(1)].len(), before);
        let document = Document::decode(&w.state.users[&UserRow(1)]).unwrap();
        assert!(document.contributions.iter().all(|c| !c.fresh && !c.sole));
    }
}

/// What one source says, one value behind the other, each with when it was changed.
fn said() -> impl Strategy<Value = Vec<(u8, Option<i64>)>> {
    proptest::collection::vec((0..4u8, proptest::option::weighted(0.8, 0..12i64)), 0..5)
}

fn mode() -> impl Strategy<Value = Mode> {
    proptest::sample::select(vec![
        Mode::SourceWins,
        Mode::TargetWins,
        Mode::MostRecent,
        Mode::IfEmpty,
        Mode::OnCreate,
    ])
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn two_sources_with_opposite_order_of_arrival_end_in_the_same_user(
        mode in mode(),
        authority in proptest::sample::subsequence(vec![A, B], 0..=2),
        own in proptest::option::of((0..12i64, proptest::option::of(0..30i64))),
        a in said(),
        b in said(),
        order in proptest::collection::vec(any::<bool>(), 10),
    ) {
        let run = |order: &[bool]| {
            let mut w = with_rules(FieldRules {
                authority: authority.clone(),
                mode: Some(mode),
                skew_us: 2 * SECOND as u64,
            });
            w.put_at(A, "10=x;16=a@x;@0/1", 0);
            w.put_at(B, "10=y;16=a@x;@0/1", 0);
            if let Some((at, pin)) = own {
                let pin = pin.map(|days| Pin::Until(days * SECOND));
                w.edit_at(&[set("own", pin)], at * SECOND + 1);
            }
            w.clock = 20 * SECOND;
            let (mut a, mut b) = (a.iter(), b.iter());
            let mut one = |source: SourceId, said: Option<&(u8, Option<i64>)>| {
                let Some((value, at)) = said else { return };
                let moment = at.map_or_else(String::new, |at| format!("{}/1000000", at * SECOND));
                let value = match value {
                    0 => String::new(),
                    n => format!("10={}{n};", source.0),
                };
                w.put_at(source, &format!("{value}16=a@x;@{moment}"), 0);
            };
            for first in order {
                match first {
                    true => one(A, a.next()),
                    false => one(B, b.next()),
                }
            }
            a.for_each(|said| one(A, Some(said)));
            b.for_each(|said| one(B, Some(said)));
            let mut user = w.users().into_values().next().unwrap();
            user.as_object_mut().unwrap().shift_remove("id");
            let open: Vec<_> = w.open().iter().map(|c| (c.kind, c.attribute.clone())).collect();
            (user.to_string(), open)
        };
        let opposite: Vec<bool> = order.iter().map(|first| !first).collect();
        let one = run(&order);
        prop_assert_eq!(&one, &run(&opposite));
        prop_assert_eq!(&one, &run(&[true; 10]));
        prop_assert_eq!(&one, &run(&[false; 10]));
    }
    #[test]
    fn whatever_people_write_and_decide_between_changes_every_invariant_holds(
        mode in mode(),
        history in history(),
        words in proptest::collection::vec(
            (any::<prop::sample::Index>(), 0..5u8, 0..5u8, any::<bool>(), 0..3u8),
            12,
        ),
    ) {
        let mut w = with_rules(FieldRules {
            mode: Some(mode),
            ..FieldRules::of_authority(vec![B])
        });
        let ann = Author { actor: "ann", reason: "" };
        for (batch, (which, what, value, pinned, choice)) in history.iter().zip(&words) {
            w.batch(batch);
            w.check();
            let mut users: Vec<UserRow> = w.state.users.keys().copied().collect();
            users.sort_unstable();
            let pin = pinned.then_some(Pin::Until(w.clock + 3));
            let text = match what {
                0 | 3 => format!("t{value}"),
                1 => format!("{}@x", char::from(b'a' + value)),
                _ => format!("u{value}"),
            };
            let roles = list(&["dev", &text]);
            let edit = match what {
                0 => Edit::Set { attribute: TITLE, value: text.as_bytes(), pin },
                1 => Edit::Set { attribute: EMAIL, value: text.as_bytes(), pin },
                2 => Edit::Set { attribute: USER_NAME, value: text.as_bytes(), pin },
                3 => Edit::Set { attribute: ROLES, value: &roles, pin },
                _ => Edit::Unset([TITLE, EMAIL, USER_NAME][usize::from(*choice)]),
            };
            if !users.is_empty() {
                let user = *which.get(&users);
                w.with(|r| drop(r.edit(user, &[edit], ann).unwrap()));
                w.check();
            }
            let open = w.open();
            if !open.is_empty() {
                let conflict = which.get(&open);
                let choice = match (choice, conflict.records.first(), conflict.users.first()) {
                    (0, _, Some(user)) => Choice::User(*user),
                    (1, Some(key), _) => Choice::Record(key.clone()),
                    _ => Choice::New,
                };
                w.with(|r| {
                    r.decide(conflict.fingerprint, &choice, None, ann).unwrap();
                });
                w.check();
            }
            let now = w.clock;
            let due: Vec<_> = w.state.due.iter().copied().collect();
            for due in due.iter().filter(|due| due.since_us <= now) {
                w.with(|r| r.end_pins(due).unwrap());
                w.check();
            }
        }
    }
}
