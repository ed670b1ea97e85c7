//! Each promise about a person's word on a conflict, by its sentence.

use super::*;
use crate::conflict::{Choice, ConflictKind, Fingerprint};
use EventKind::*;

fn key(text: &str) -> KeyBytes {
    KeyBytes::from_slice(text.as_bytes())
}

/// The second source finds users by their numbers.
fn by_number() -> World {
    let mut b = SourceRules::new(B, "crm");
    b.match_attributes = vec![NUMBER];
    World::new(Rules::new(
        "acme",
        attributes(),
        vec![SourceRules::new(A, "hr"), b],
        HashMap::new(),
        Box::new(TestMapper),
    ))
}

impl World {
    fn the_conflict(&self) -> ConflictRow {
        let mut open = self.open();
        assert_eq!(open.len(), 1, "{open:?}");
        open.remove(0)
    }

    fn decide(&mut self, fp: Fingerprint, choice: &Choice) -> (Word, Vec<Told>) {
        let author = Author {
            actor: "ann",
            reason: "asked HR",
        };
        let mut word = None;
        let told = self.with(|r| word = Some(r.decide(fp, choice, None, author).unwrap()));
        self.check();
        (word.unwrap(), told)
    }

    fn id_of(&self, row: i64) -> UserId {
        let document = &self.state.users[&UserRow(row)];
        Document::decode(document).unwrap().id
    }
}

#[test]
fn a_disputed_record_is_given_to_the_user_that_a_person_names() {
    let mut w = by_number();
    w.batch(&[put(A, "1", "16=a@x;28=7"), put(A, "2", "16=b@x;28=7")]);
    w.one(put(B, "9", "10=Boss;28=7"));
    let conflict = w.the_conflict();
    assert_eq!(conflict.kind, ConflictKind::DisputedMatch);
    let wrong = Choice::User(UserId([99; 16]));
    assert_eq!(w.decide(conflict.fingerprint, &wrong).0, Word::NoAnswer);
    assert_eq!(w.open().len(), 1);
    let second = Choice::User(w.id_of(2));
    let (word, told) = w.decide(conflict.fingerprint, &second);
    assert_eq!(word, Word::Taken);
    assert_eq!(kinds(&told), [UserUpdated, ConflictResolved]);
    assert_eq!(told[1].data["decision"]["took"], "user");
    assert_eq!(told[1].data["decision"]["by"], "ann");
    assert_eq!(w.user("b@x")["title"], "Boss");
    assert_eq!(w.decide(conflict.fingerprint, &second).0, Word::NotOpen);
    // The same question again has the same answer; another number is another question.
    w.one(Step::Delete(B, "9"));
    w.one(put(B, "9", "10=Head;28=7"));
    assert_eq!(w.user("b@x")["title"], "Head");
    w.batch(&[put(A, "3", "16=c@x;28=8"), put(A, "4", "16=d@x;28=8")]);
    let told = w.one(put(B, "10", "10=King;28=8"));
    assert_eq!(kinds(&told), [ConflictOpened]);
    w.check();
}

#[test]
fn a_disputed_record_may_be_somebody_new() {
    let mut w = by_number();
    w.batch(&[put(A, "1", "16=a@x;28=7"), put(A, "2", "16=b@x;28=7")]);
    w.one(put(B, "9", "10=Boss;28=7"));
    let fp = w.the_conflict().fingerprint;
    let (_, told) = w.decide(fp, &Choice::New);
    assert_eq!(kinds(&told), [UserCreated, ConflictResolved]);
    assert_eq!(w.state.users.len(), 3);
    assert!(w.open().is_empty());
}

#[test]
fn who_has_a_key_that_came_back_is_decided_for_that_person_only() {
    for is_same in [true, false] {
        let mut w = World::new(two_sources());
        w.one(put(A, "1", "3=Ann;16=a@x;10=Clerk"));
        w.one(Step::Delete(A, "1"));
        w.one(put(A, "1", "3=Bob;16=b@x;10=Boss"));
        let conflict = w.the_conflict();
        assert_eq!(conflict.kind, ConflictKind::KeyReuse);
        let choice = match is_same {
            true => Choice::User(w.id_of(1)),
            false => Choice::New,
        };
        let (word, told) = w.decide(conflict.fingerprint, &choice);
        assert_eq!(word, Word::Taken);
        let expected = match is_same {
            true => UserUpdated,
            false => UserCreated,
        };
        assert_eq!(told[0].kind, expected);
        assert_eq!(w.state.users.len(), if is_same { 1 } else { 2 });
        assert_eq!(w.user("b@x")["title"], "Boss");
        if !is_same {
            assert!(!is_active(&w.user("a@x")), "who left has left");
        }
        // Sticky: other changes of the record, its end and its return are the same person.
        w.one(put(A, "1", "3=Bob;16=b@x;10=Head"));
        w.one(Step::Delete(A, "1"));
        w.one(put(A, "1", "3=Bob;16=b@x;10=King"));
        assert_eq!(w.user("b@x")["title"], "King");
        assert!(w.open().is_empty());
        // A third person is asked about once more.
        w.one(Step::Delete(A, "1"));
        let told = w.one(put(A, "1", "3=Cyd;16=c@x;10=Pawn"));
        assert_eq!(kinds(&told), [ConflictOpened]);
        assert_eq!(w.the_conflict().fingerprint, conflict.fingerprint);
        assert_eq!(w.the_conflict().decision, None);
        w.check();
    }
}

#[test]
fn of_duplicates_the_one_that_a_person_takes_is_written_until_there_is_another_one() {
    let mut w = World::new(two_sources());
    w.batch(&[
        put(A, "1", "10=Clerk;16=a@x"),
        put(A, "2", "10=Boss;16=a@x"),
    ]);
    assert!(w.state.users.is_empty());
    let conflict = w.the_conflict();
    let wrong = Choice::Record(key("3"));
    assert_eq!(w.decide(conflict.fingerprint, &wrong).0, Word::NoAnswer);
    let second = Choice::Record(key("2"));
    let (word, told) = w.decide(conflict.fingerprint, &second);
    assert_eq!(word, Word::Taken);
    assert_eq!(kinds(&told), [UserCreated, ConflictResolved]);
    assert_eq!(w.user("a@x")["title"], "Boss");
    // Sticky, whoever changes and however they are read.
    w.one(put(A, "1", "10=Head;16=A@x"));
    w.batch(&[
        scan(A, "1", "10=Pawn;16=a@x"),
        scan(A, "2", "10=King;16=a@x"),
    ]);
    assert_eq!(w.user("a@x")["title"], "King");
    assert!(w.open().is_empty());
    w.check();
    // One more who claims it: nobody has decided between these.
    let told = w.one(put(A, "3", "10=Third;16=a@x"));
    assert_eq!(kinds(&told), [ConflictOpened]);
    w.one(put(A, "2", "10=Held;16=a@x"));
    assert_eq!(w.user("a@x")["title"], "King", "held with the others");
    w.check();
    w.one(Step::Delete(A, "3"));
    w.check();
}

#[test]
fn a_duplicate_that_was_not_taken_comes_up_when_the_other_one_goes() {
    let mut w = World::new(two_sources());
    w.batch(&[
        put(A, "1", "10=Clerk;16=a@x"),
        put(A, "2", "10=Boss;16=a@x"),
    ]);
    let fp = w.the_conflict().fingerprint;
    w.decide(fp, &Choice::Record(key("2")));
    w.one(put(A, "2", "10=Boss;16=b@x"));
    assert_eq!(w.user("a@x")["title"], "Clerk");
    assert_eq!(w.user("b@x")["title"], "Boss");
    assert!(w.open().is_empty());
    w.check();
}

#[test]
fn a_record_without_the_user_is_not_taken_from_the_one_that_has_it() {
    let mut w = World::new(two_sources());
    w.one(put(A, "1", "10=Clerk;16=a@x"));
    w.one(put(A, "2", "10=Boss;16=a@x"));
    let fp = w.the_conflict().fingerprint;
    let (word, told) = w.decide(fp, &Choice::Record(key("2")));
    assert_eq!((word, told.len()), (Word::OtherHasUser, 0));
    let (word, told) = w.decide(fp, &Choice::Record(key("1")));
    assert_eq!((word, kinds(&told)), (Word::Taken, vec![ConflictResolved]));
    w.one(put(A, "1", "10=Head;16=a@x"));
    assert_eq!(w.user("a@x")["title"], "Head");
    w.check();
}

#[test]
fn a_record_whose_address_is_taken_may_be_the_owners_own() {
    let mut w = by_number();
    w.one(put(A, "1", "16=a@x;28=7"));
    w.one(put(B, "9", "10=Boss;16=A@x;28=8"));
    let conflict = w.the_conflict();
    assert_eq!(conflict.kind, ConflictKind::Uniqueness);
    let owner = Choice::User(w.id_of(1));
    assert_eq!(
        w.decide(conflict.fingerprint, &Choice::New).0,
        Word::NoAnswer
    );
    let (word, told) = w.decide(conflict.fingerprint, &owner);
    assert_eq!(word, Word::Taken);
    assert_eq!(kinds(&told), [UserUpdated, ConflictResolved]);
    assert_eq!(w.state.users.len(), 1);
    assert_eq!(w.users().into_values().next().unwrap()["title"], "Boss");
}
