//! Grace, deletion, purge.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::properties::{config, history};
use super::*;
use EventKind::*;

const GRACE: i64 = 100;
const DELETE: i64 = 1_000;
const PURGE: i64 = 10_000;

/// Rules of both sources: a grace, deletion, purge.
fn patient() -> Rules {
    let leaver = LeaverRules {
        grace_us: GRACE,
        delete_after_us: Some(DELETE),
        purge_after_us: PURGE,
        ..LeaverRules::default()
    };
    ruled_leavers(leaver, leaver)
}

fn ruled_leavers(a: LeaverRules, b: LeaverRules) -> Rules {
    let mut hr = SourceRules::new(A, "hr");
    hr.leaver = a;
    let mut crm = SourceRules::new(B, "crm");
    crm.leaver = b;
    Rules::new(
        "acme",
        attributes(),
        vec![hr, crm],
        HashMap::new(),
        Box::new(TestMapper),
    )
}

type Present = BTreeSet<(SourceId, String)>;

impl World {
    /// Looks at everything that is due now; of what is asked for, this is in its source.
    fn fall_due(&mut self, present: &Present) -> Vec<Told> {
        let all: Vec<_> = self.state.due.iter().copied().collect();
        let mut told = self.with(|r| {
            for due in all {
                let delay = r
                    .rules
                    .source(due.source)
                    .unwrap()
                    .leaver
                    .delay_us(due.kind);
                if delay.is_some_and(|delay| r.now_us >= due.since_us + delay) {
                    r.fall_due(&due).unwrap();
                }
            }
        });
        let asked = std::mem::take(&mut self.last.reread);
        told.extend(self.with(|r| {
            for (source, key) in asked {
                let is_there = (source, String::from_utf8_lossy(&key).into_owned());
                if !present.contains(&is_there) {
                    r.still_gone(source, &key).unwrap();
                }
            }
        }));
        told
    }

    /// Time passes, and everything that became due meanwhile is looked at.
    fn wait(&mut self, us: i64, present: &Present) -> Vec<Told> {
        self.clock += us;
        self.fall_due(present)
    }

    /// How every user and its links stand.
    fn standing(&self) -> Vec<String> {
        let of = |bytes: &Vec<u8>| {
            let d = Document::decode(bytes).unwrap();
            let links = d
                .links
                .iter()
                .map(|l| (l.source, l.key, l.state, l.since_us));
            format!("{:?} {:?}", d.state, links.collect::<Vec<_>>())
        };
        self.state.users.values().map(of).collect()
    }

    fn state_of(&self, source: SourceId, key: &str) -> Option<(UserState, LinkState)> {
        let key = (source, KeyBytes::from_slice(key.as_bytes()));
        let LinkTarget::User(row) = self.state.links.get(&key)? else {
            return None;
        };
        let d = Document::decode(&self.state.users[row]).unwrap();
        let at = d.find_link(source, &key.1).unwrap();
        Some((d.state, d.links[at].state))
    }
}

const ADA: &str = "1=ada;3=Ada;16=a@x";

#[test]
fn a_leaver_goes_through_every_state_with_its_reason() {
    let nobody = Present::new();
    let mut w = World::new(patient());
    w.one(put(A, "1", ADA));
    assert!(
        w.one(Step::Delete(A, "1")).is_empty(),
        "nothing is told yet"
    );
    assert_eq!(
        w.state_of(A, "1"),
        Some((
            UserState::Active,
            LinkState::Suspected(LeaverReason::Deleted)
        ))
    );
    assert!(w.wait(GRACE / 2, &nobody).is_empty());
    w.check();

    let told = w.wait(GRACE, &nobody);
    assert_eq!(kinds(&told), [UserDeactivated]);
    assert_eq!(told[0].data["reason"], "deleted");
    assert!(w.wait(DELETE / 2, &nobody).is_empty());
    w.check();

    let told = w.wait(DELETE, &nobody);
    assert_eq!(kinds(&told), [UserDeleted]);
    assert_eq!(told[0].data["reason"], "deleted");
    assert!(
        !told[0].data.to_string().contains("Ada"),
        "{:?}",
        told[0].data
    );
    let bytes = w.state.users.values().next().unwrap();
    for value in ["ada", "Ada", "a@x"] {
        let found = bytes.windows(value.len()).any(|b| b == value.as_bytes());
        assert!(!found, "{value} is still there");
    }
    assert!(w.state.owners.is_empty());
    assert_eq!(w.state_of(A, "1").unwrap().0, UserState::Tombstone);
    w.check();

    assert!(w.wait(PURGE, &nobody).is_empty(), "everybody has been told");
    assert!(w.state.users.is_empty() && w.state.links.is_empty());
    w.wait(1, &nobody);
    assert!(w.state.due.is_empty(), "{:?}", w.state.due);
    let c = w.counters;
    assert_eq!((c.suspected, c.deactivated, c.deleted), (1, 1, 1));
}

#[test]
fn a_record_that_returns_within_the_grace_was_never_away() {
    let mut w = World::new(patient());
    w.one(put(A, "1", ADA));
    w.one(Step::Delete(A, "1"));
    assert!(w.one(put(A, "1", ADA)).is_empty());
    assert_eq!(
        w.state_of(A, "1"),
        Some((UserState::Active, LinkState::Live))
    );
    let there = Present::from([(A, "1".to_owned())]);
    assert!(w.wait(GRACE, &there).is_empty());
    assert!(w.state.due.is_empty());
    w.check();
}

#[test]
fn a_record_that_is_there_when_it_is_looked_for_is_no_leaver() {
    // The log has it back, and is not read that far yet.
    let there = Present::from([(A, "1".to_owned())]);
    let mut w = World::new(patient());
    w.one(put(A, "1", ADA));
    w.one(Step::Delete(A, "1"));
    assert!(w.wait(GRACE, &there).is_empty());
    assert_eq!(w.state_of(A, "1").unwrap().0, UserState::Active);
    assert!(w.one(put(A, "1", ADA)).is_empty());
    w.check();
}

#[test]
fn a_bad_row_in_the_grace_ends_nobody() {
    let there = Present::from([(A, "1".to_owned())]);
    let mut w = World::new(patient());
    w.one(put(A, "1", ADA));
    w.one(Step::Delete(A, "1"));
    w.one(put(A, "1", "1=ada;!fail"));
    assert!(w.wait(GRACE, &there).is_empty());
    w.check();
    assert!(w.one(put(A, "1", ADA)).is_empty());
    assert_eq!(
        w.state_of(A, "1"),
        Some((UserState::Active, LinkState::Live))
    );
    w.check();
}

#[test]
fn a_status_has_no_grace_and_the_scope_has() {
    let mut w = World::new(patient());
    w.one(put(A, "1", ADA));
    w.one(put(A, "2", "1=eve;3=Eve;16=e@x"));
    let told = w.one(put(A, "1", &format!("{ADA};15=false")));
    assert_eq!(told[0].kind, UserDeactivated);
    assert!(w.one(put(A, "2", "1=eve;3=Eve;16=e@x;!scope")).is_empty());
    w.clock += GRACE;
    // It is looked for, and found out of scope still.
    let told = w.one(scan(A, "2", "1=eve;3=Eve;16=e@x;!scope"));
    assert_eq!(kinds(&told), [UserDeactivated]);
    assert_eq!(told[0].data["reason"], "out_of_scope");
    w.check();
    // Who is present, and inactive by status, is not deleted.
    let there = Present::from([(A, "1".to_owned()), (A, "2".to_owned())]);
    w.wait(DELETE, &there);
    assert_eq!(
        w.state_of(A, "1").unwrap().0,
        UserState::Deactivated(LeaverReason::Status)
    );
    w.check();
}

#[test]
fn who_comes_back_from_a_tombstone_has_the_same_id_and_somebody_else_does_not() {
    let nobody = Present::new();
    let mut w = World::new(patient());
    let told = w.one(put(A, "1", ADA));
    let id = told[0].user;
    w.one(put(A, "2", "1=eve;3=Eve;16=e@x"));
    w.batch(&[Step::Delete(A, "1"), Step::Delete(A, "2")]);
    w.wait(GRACE, &nobody);
    w.wait(DELETE, &nobody);
    assert!(w.users().is_empty());

    let told = w.one(put(A, "1", "1=ada.l;3=Ada;10=Engineer;16=a@y"));
    assert_eq!(kinds(&told), [UserCreated], "for others it is there anew");
    assert_eq!(told[0].user, id);
    assert_eq!(w.users().len(), 1);
    w.check();

    let told = w.one(put(A, "2", "1=bob;3=Bob;16=b@x"));
    assert!(told.iter().all(|t| t.user.is_none()), "{told:?}");
    assert_eq!(w.open()[0].kind, crate::conflict::ConflictKind::KeyReuse);
    w.check();
    // When the tombstone is purged nothing is known of Eve, and Bob is a new user.
    let there = Present::from([(A, "1".to_owned()), (A, "2".to_owned())]);
    w.wait(PURGE, &there);
    w.check();
}

#[test]
fn two_users_that_one_key_led_to_are_deleted_by_two_events_of_one_run() {
    let nobody = Present::new();
    let mut w = World::new(patient());
    w.run = Some(RunId(7));
    let mut ids = BTreeSet::new();
    for row in [ADA, "1=eve;3=Eve;16=e@x"] {
        w.one(put(A, "1", row));
        w.one(Step::Delete(A, "1"));
        w.wait(GRACE, &nobody);
        let told = w.wait(DELETE, &nobody);
        assert_eq!(kinds(&told), [UserDeleted]);
        ids.insert(told[0].id);
        // Nothing is known of the first one when the second comes.
        w.wait(PURGE, &nobody);
    }
    assert_eq!(ids.len(), 2);
}

#[test]
fn a_user_of_two_sources_is_deleted_when_both_have_waited() {
    let nobody = Present::new();
    let quick = LeaverRules {
        delete_after_us: Some(10),
        ..LeaverRules::default()
    };
    let slow = LeaverRules {
        delete_after_us: Some(DELETE),
        ..LeaverRules::default()
    };
    let never = LeaverRules::default();
    let ignores = LeaverRules {
        action: LeaverAction::Ignore,
        ..LeaverRules::default()
    };
    for (other, is_deleted) in [(slow, true), (never, false)] {
        let mut w = World::new(ruled_leavers(quick, other));
        w.one(put(A, "1", ADA));
        w.one(put(B, "7", ADA));
        w.one(Step::Delete(B, "7"));
        assert_eq!(kinds(&w.one(Step::Delete(A, "1"))), [UserDeactivated]);
        assert!(w.wait(20, &nobody).is_empty());
        let told = w.wait(DELETE, &nobody);
        assert_eq!(!told.is_empty(), is_deleted, "{told:?}");
        w.check();
    }
    // A source that ignores leavers keeps nobody, unless its record is there.
    let mut w = World::new(ruled_leavers(quick, ignores));
    w.one(put(A, "1", ADA));
    w.one(put(B, "7", ADA));
    w.one(Step::Delete(A, "1"));
    assert!(w.wait(20, &nobody).is_empty());
    assert!(is_active(&w.user("a@x")));
    w.check();
}

#[test]
fn too_many_deletions_wait_and_a_return_ends_that() {
    let nobody = Present::new();
    let mut w = World::new(patient());
    w.one(put(A, "1", ADA));
    w.one(put(A, "2", "1=eve;3=Eve;16=e@x"));
    w.batch(&[Step::Delete(A, "1"), Step::Delete(A, "2")]);
    w.wait(GRACE, &nobody);
    assert_eq!(w.last.counted_of(A), 0, "counted when they went");
    w.counting(Counting::Stage);
    assert!(w.wait(DELETE, &nobody).is_empty());
    assert_eq!(w.staged().len(), 2);
    assert_eq!(w.staged()[0].2.kind, Counted::Erased);
    w.check();

    let told = w.one(put(A, "1", ADA));
    assert_eq!(kinds(&told), [UserActivated]);
    assert_eq!(w.staged().len(), 1);
    w.check();

    let told = w.approve();
    assert_eq!(kinds(&told), [UserDeleted]);
    assert!(w.staged().is_empty());
    w.check();
}

#[test]
fn a_deletion_that_was_discarded_is_asked_for_again_after_the_same_time() {
    let nobody = Present::new();
    let mut w = World::new(patient());
    w.one(put(A, "1", ADA));
    w.one(Step::Delete(A, "1"));
    w.wait(GRACE, &nobody);
    w.counting(Counting::Stage);
    w.wait(DELETE, &nobody);
    assert!(w.discard().is_empty());
    assert!(w.staged().is_empty());
    w.check();
    w.counting(Counting::Apply);
    assert!(w.wait(DELETE / 2, &nobody).is_empty());
    assert_eq!(kinds(&w.wait(DELETE, &nobody)), [UserDeleted]);
    w.check();
}

#[test]
fn a_rule_that_was_added_later_holds_for_those_who_left_before() {
    let nobody = Present::new();
    let mut w = World::new(ruled_leavers(
        LeaverRules::default(),
        LeaverRules::default(),
    ));
    w.one(put(A, "1", ADA));
    w.one(Step::Delete(A, "1"));
    assert!(w.wait(DELETE, &nobody).is_empty());
    w.rules = patient();
    assert_eq!(kinds(&w.wait(1, &nobody)), [UserDeleted]);
    w.check();
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_meanwhile_who_is_gone_is_forgotten_and_who_is_there_is_not(
        history in history(),
        waits in proptest::collection::vec(0..2 * DELETE, 12),
        purges in any::<bool>(),
        stages in any::<bool>(),
    ) {
        let mut w = World::new(patient());
        let mut present = Present::new();
        for (batch, us) in history.iter().zip(waits) {
            w.counting(if stages && us % 3 == 0 { Counting::Stage } else { Counting::Apply });
            w.batch(batch);
            for step in batch {
                match step {
                    Step::Put(s, k, _) | Step::Scan(s, k, _) => {
                        present.insert((*s, (*k).to_owned()));
                    }
                    Step::Rename(s, old, k, _) => {
                        present.remove(&(*s, (*old).to_owned()));
                        present.insert((*s, (*k).to_owned()));
                    }
                    Step::Delete(s, k) => {
                        present.remove(&(*s, (*k).to_owned()));
                    }
                }
            }
            w.check();
            w.wait(if purges { us * 10 } else { us }, &present);
            w.check();
        }
        w.approve();
        w.check();
        // Also those that another record's key was renamed onto.
        let keys = super::properties::KEYS.iter();
        let last: Vec<Step> = keys
            .flat_map(|k| [A, B].map(|s| Step::Delete(s, k)))
            .collect();
        w.batch(&last);
        let nobody = Present::new();
        for us in [GRACE, DELETE, PURGE, 1] {
            w.wait(us, &nobody);
            w.check();
        }
        prop_assert!(w.users().is_empty(), "{:?} {:?}", w.standing(), w.state.due);
        prop_assert!(w.state.users.is_empty() && w.state.links.is_empty() && w.state.due.is_empty());
    }
}

#[test]
fn what_the_identity_side_wrote_of_a_user_goes_with_it() {
    let nobody = Present::new();
    let mut w = World::new(patient());
    w.one(put(A, "1", ADA));
    let set = Edit::Set {
        attribute: TITLE,
        value: b"Chief",
        pin: Some(crate::document::Pin::ForGood),
    };
    let ann = Author {
        actor: "ann",
        reason: "asked for",
    };
    w.with(|r| drop(r.edit(UserRow(1), &[set], ann).unwrap()));
    w.one(Step::Delete(A, "1"));
    w.wait(GRACE, &nobody);
    let told = w.wait(DELETE, &nobody);
    assert_eq!(kinds(&told), [UserDeleted]);
    let document = Document::decode(&w.state.users[&UserRow(1)]).unwrap();
    assert!(document.owns.is_empty() && document.contributions.is_empty());
    let edited = w.with(|r| {
        let edited = r.edit(UserRow(1), &[set], ann).unwrap();
        assert_eq!(edited, Edited::Gone);
    });
    assert!(edited.is_empty());
    w.check();
}
