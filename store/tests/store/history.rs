//! The small states: each goes through the same door, and is read back as it was written.

use rollcall_contract::{Gap, GapReason, Key, TableName};
use rollcall_core::conflict::{Choice, ConflictKind, ConflictRow, Decision, Fingerprint};
use rollcall_core::document::Record;
use rollcall_core::id::RunId;
use rollcall_core::plan::{Counters, Plan};
use rollcall_core::reason::SkipReason;
use rollcall_core::state::{LinkTarget, State};
use rollcall_store::{
    Commit, ConflictFilter, DriftRow, GapClosed, GapOpened, PageSeen, ParkedRow, Position,
    ProofRow, Readers, RelatedId, RunFilter, RunRecord, RunRow, ScanRow, SchemaVersion, Sequence,
    SinkRow, StateChange, Walk,
};

use crate::people::*;

#[test]
fn everything_of_a_commit_is_read_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(dir.path());
    let gap = Gap {
        tables: vec![TableName::new("hr", "employees")],
        reason: GapReason::PositionLost,
        from: Some("0/1".to_owned()),
        to: None,
        detail: "the slot is gone".to_owned(),
    };
    let run = RunRow {
        id: writer.allocate_run(),
        source: SOURCE,
        kind: "scan".to_owned(),
        cause: "gap:position_lost".to_owned(),
        outcome: "running".to_owned(),
        detail: None,
        started_us: 5,
        ended_us: None,
        from: Some("0/1".to_owned()),
        to: None,
        counters: Counters {
            processed: 3,
            ..Counters::default()
        },
        unlisted: 4,
    };
    let record = RunRecord {
        run: run.id,
        reason: SkipReason::BadValue,
        healed: false,
        source: SOURCE,
        key: key(3),
        attribute: Some("custom.level".to_owned()),
        rule: Some("custom.level = column level".to_owned()),
        noted_us: 8,
    };
    let healed = RunRecord {
        healed: true,
        attribute: None,
        rule: None,
        ..record.clone()
    };
    let mut after = Key::new();
    after.push(b"17");
    let scan = ScanRow {
        source: SOURCE,
        run: run.id,
        phase: "pages".to_owned(),
        after: Some(after),
        pages: 2,
        rows: 20,
        started_us: 5,
        detail: "{}".to_owned(),
    };
    let sink = SinkRow {
        name: "kafka".to_owned(),
        delivered: Position(4),
        state: "delivering".to_owned(),
        reason: None,
    };
    let parked = ParkedRow {
        sink: "kafka".to_owned(),
        position: Position(3),
        sequence: Some(Sequence(2)),
        reason: "too_large".to_owned(),
        detail: "over the limit".to_owned(),
        parked_us: 6,
    };
    let schema = SchemaVersion {
        source: SOURCE,
        version: 1,
        columns: "[]".to_owned(),
    };
    let mut place = Key::new();
    place.push(b"12");
    let proof = ProofRow {
        source: SOURCE,
        since_us: 1,
        proved_us: Some(2),
        began_us: 3,
        run: Some(run.id),
        slices: 4,
        read: Walk::Behind(place),
        known: Walk::Ended,
        rows: 5,
        expected_rows: 6,
        drifted: 7,
        repaired: 8,
    };
    let drift = DriftRow {
        source: SOURCE,
        related: Some(RelatedId(3)),
        key: key(12),
        what: "values differ".to_owned(),
        fields: vec!["title".to_owned()],
        hash: Some(u64::MAX),
        proved: true,
        since_us: 9,
    };
    let committed = writer
        .commit(&mut Commit {
            now_us: 9,
            progress: Some(progress(5)),
            states: vec![StateChange {
                source: SOURCE,
                state: "scanning".to_owned(),
                reason: Some("a gap".to_owned()),
                mapping: Some("m1".to_owned()),
            }],
            gaps_opened: vec![GapOpened {
                source: SOURCE,
                gap: gap.clone(),
            }],
            runs: vec![run.clone()],
            run_records: vec![healed.clone(), record.clone(), record.clone()],
            scans: vec![scan.clone()],
            seen: vec![
                PageSeen {
                    source: SOURCE,
                    page: 1,
                    hashes: vec![1, u64::MAX],
                },
                PageSeen {
                    source: SOURCE,
                    page: 2,
                    hashes: vec![7],
                },
            ],
            sinks: vec![sink.clone()],
            parked: vec![parked.clone()],
            schemas: vec![schema.clone()],
            proofs: vec![proof.clone()],
            drifted: vec![drift.clone()],
            ..Commit::default()
        })
        .unwrap();
    let before = writer.identity().clone();
    drop((writer, readers));

    let (mut writer, readers) = open(dir.path());
    assert_eq!(writer.identity().store, before.store);
    assert_eq!(writer.identity().generation, before.generation + 1);
    assert_eq!(&readers.identity().unwrap(), writer.identity());
    let source = readers.source("people").unwrap().unwrap();
    assert_eq!(readers.sources().unwrap().first(), Some(&source));
    assert_eq!(source.state, "scanning");
    assert_eq!(source.mapping.as_deref(), Some("m1"));
    let (cursor, lineage) = source.resume.unwrap();
    assert_eq!((cursor.text(), lineage.0.as_str()), ("0/5", "server"));
    let gaps = readers.gaps(false, 10).unwrap();
    assert_eq!(gaps[0].gap, gap);
    assert_eq!(vec![gaps[0].id], committed.gaps);
    assert_eq!(readers.open_gap_count().unwrap(), 1);
    assert_eq!(readers.run(run.id).unwrap().unwrap(), run);
    assert_eq!(all_runs(&readers), std::slice::from_ref(&run));
    assert_eq!(readers.run_records(run.id, 10).unwrap(), [record, healed]);
    assert_eq!(readers.run_records(run.id, 1).unwrap().len(), 1);
    assert!(writer.allocate_run() > run.id);
    assert_eq!(readers.scan(SOURCE).unwrap().unwrap(), scan);
    assert_eq!(
        readers.scan_seen(SOURCE, 0, 10).unwrap(),
        [(1, vec![1, u64::MAX]), (2, vec![7])]
    );
    assert_eq!(readers.scan_seen(SOURCE, 2, 10).unwrap().len(), 1);
    assert_eq!(readers.sinks().unwrap(), [sink]);
    assert_eq!(
        readers.parked("kafka", Position::NONE, 10).unwrap(),
        [parked]
    );
    assert_eq!(readers.parked_counts().unwrap(), [("kafka".to_owned(), 1)]);
    assert_eq!(readers.schemas(SOURCE).unwrap(), [schema]);
    assert_eq!(readers.proofs().unwrap(), std::slice::from_ref(&proof));
    assert_eq!(readers.proof(SOURCE).unwrap().as_ref(), Some(&proof));
    let drifted = readers.drifted(SOURCE, 10).unwrap();
    assert_eq!(drifted, std::slice::from_ref(&drift));
    assert_eq!(readers.drifted_counts().unwrap(), [(SOURCE, 1)]);

    let between = ProofRow {
        run: None,
        read: Walk::Begins,
        known: Walk::Begins,
        ..proof
    };
    let steps = [
        Commit {
            proofs: vec![between.clone()],
            undrifted: vec![(SOURCE, drift.place())],
            ..Commit::default()
        },
        Commit {
            proofs_ended: vec![SOURCE],
            ..Commit::default()
        },
    ];
    for (mut step, left) in steps.into_iter().zip([vec![between], Vec::new()]) {
        writer.commit(&mut step).unwrap();
        assert_eq!(readers.proofs().unwrap(), left);
        assert!(readers.drifted(SOURCE, 10).unwrap().is_empty());
    }

    let ended = RunRow {
        outcome: "completed".to_owned(),
        ended_us: Some(20),
        ..run
    };
    writer
        .commit(&mut Commit {
            now_us: 20,
            gaps_closed: vec![GapClosed {
                gap: gaps[0].id,
                by: ended.id,
            }],
            runs: vec![ended.clone()],
            scans_ended: vec![SOURCE],
            unparked: vec![("kafka".to_owned(), Position(3))],
            ..Commit::default()
        })
        .unwrap();
    assert_eq!(readers.scan(SOURCE).unwrap(), None);
    assert!(readers.scan_seen(SOURCE, 0, 10).unwrap().is_empty());
    assert_eq!(readers.open_gap_count().unwrap(), 0);
    let closed = readers.gaps(true, 10).unwrap();
    assert_eq!(
        (closed[0].closed_us, closed[0].closed_by),
        (Some(20), Some(ended.id))
    );
    assert!(readers.parked_counts().unwrap().is_empty());
    assert_eq!(writer.forget_history(20).unwrap(), 0);
    assert_eq!(
        writer.forget_history(21).unwrap(),
        4,
        "the run, its two records, and the gap"
    );
    assert!(all_runs(&readers).is_empty());
    assert!(readers.run_records(ended.id, 10).unwrap().is_empty());
}

fn all_runs(readers: &Readers) -> Vec<RunRow> {
    readers.runs(&RunFilter::default(), 10_000).unwrap()
}

fn a_run(id: RunId, kind: &str, ended_us: Option<i64>) -> RunRow {
    RunRow {
        id,
        source: SOURCE,
        kind: kind.to_owned(),
        cause: "log".to_owned(),
        outcome: ended_us.map_or("running", |_| "completed").to_owned(),
        detail: None,
        started_us: 1,
        ended_us,
        from: None,
        to: None,
        counters: Counters::default(),
        unlisted: 0,
    }
}

#[test]
fn runs_are_found_by_source_kind_and_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(dir.path());
    let runs = [
        a_run(writer.allocate_run(), "load", Some(5)),
        a_run(writer.allocate_run(), "stream", Some(6)),
        a_run(writer.allocate_run(), "stream", None),
    ];
    let mut commit = Commit {
        runs: runs.to_vec(),
        ..Commit::default()
    };
    writer.commit(&mut commit).unwrap();
    let found = |filter: RunFilter| -> Vec<u64> {
        let found = readers.runs(&filter, 10).unwrap();
        found.iter().map(|r| r.id.0).collect()
    };
    let [load, first, second] = [0, 1, 2].map(|i: usize| runs[i].id.0);
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(found(RunFilter::default()), [second, first, load]);
    let of_kind = |kind| RunFilter {
        kind: name(kind),
        ..RunFilter::default()
    };
    assert_eq!(found(of_kind("stream")), [second, first]);
    assert_eq!(found(of_kind("poll")), [0; 0]);
    let running = RunFilter {
        outcome: name("running"),
        source: Some(SOURCE),
        ..RunFilter::default()
    };
    assert_eq!(found(running), [second]);
    let before = RunFilter {
        before: Some(RunId(second)),
        kind: name("stream"),
        ..RunFilter::default()
    };
    assert_eq!(found(before), [first]);
    let elsewhere = RunFilter {
        source: Some(rollcall_core::id::SourceId(9)),
        ..RunFilter::default()
    };
    assert_eq!(found(elsewhere), [0; 0]);
}

#[test]
fn history_is_forgotten_in_small_lots_and_a_run_goes_behind_its_records() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(dir.path());
    let (old, new) = (writer.allocate_run(), writer.allocate_run());
    let record = |run, n: u32| RunRecord {
        run,
        reason: SkipReason::TooLong,
        healed: false,
        source: SOURCE,
        key: key(n.into()),
        attribute: None,
        rule: None,
        noted_us: 1,
    };
    let mut commit = Commit {
        runs: vec![a_run(old, "load", Some(10)), a_run(new, "load", Some(30))],
        run_records: (0..1_500)
            .map(|n| record(old, n))
            .chain([record(new, 1)])
            .collect(),
        ..Commit::default()
    };
    writer.commit(&mut commit).unwrap();
    assert_eq!(writer.forget_history(20).unwrap(), 1_000);
    assert_eq!(
        all_runs(&readers).len(),
        2,
        "the run's list is not empty yet"
    );
    assert_eq!(writer.forget_history(20).unwrap(), 501);
    assert_eq!(writer.forget_history(20).unwrap(), 0);
    assert_eq!(all_runs(&readers)[0].id, new);
    assert_eq!(readers.run_records(new, 10).unwrap().len(), 1);
}

#[test]
fn progress_of_an_unknown_source_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _readers) = open(dir.path());
    let mut unknown = progress(1);
    unknown.source = rollcall_core::id::SourceId(9);
    let e = writer
        .commit(&mut Commit {
            progress: Some(unknown),
            ..Commit::default()
        })
        .unwrap_err();
    assert_eq!(e.code(), "store_refused");
}

fn held(reason: SkipReason) -> Vec<u8> {
    let mut bytes = Vec::new();
    Record {
        reason,
        former: None,
        tx: &[],
        position: "",
        commit_us: 0,
        hash: 0,
        hold: &[],
        shadow: b"shadow",
    }
    .encode(&mut bytes);
    bytes
}

#[test]
fn held_records_are_counted_by_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(dir.path());
    let mut plan = Plan::default();
    for n in 0..3 {
        plan.links
            .insert((SOURCE, key(n)), Some(LinkTarget::Record));
        plan.records
            .insert((SOURCE, key(n)), Some(held(SkipReason::DuplicateInSource)));
    }
    commit(&mut writer, &mut plan, 1).unwrap();
    let mut plan = Plan::default();
    plan.records
        .insert((SOURCE, key(0)), Some(held(SkipReason::BadValue)));
    plan.records.insert((SOURCE, key(1)), None);
    plan.links.insert((SOURCE, key(1)), None);
    commit(&mut writer, &mut plan, 2).unwrap();
    let counts = readers.counts().unwrap();
    assert_eq!(counts.held.get(&SkipReason::DuplicateInSource), Some(&1));
    assert_eq!(counts.held.get(&SkipReason::BadValue), Some(&1));
    assert_eq!(readers.user_by_record(SOURCE, &key(0)).unwrap(), Some(None));
    assert_eq!(
        readers.record(SOURCE, &key(2)).unwrap().unwrap(),
        held(SkipReason::DuplicateInSource)
    );
    assert_eq!(readers.records_after(SOURCE, &[], 10).unwrap().len(), 2);
    assert_eq!(readers.records_after(SOURCE, &key(0), 10).unwrap().len(), 1);
}

#[test]
fn what_a_person_decided_is_found_again_and_outlives_the_history() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(dir.path());
    let row = |n: u64, decision| ConflictRow {
        fingerprint: Fingerprint(n),
        kind: ConflictKind::DuplicateInSource,
        source: SOURCE,
        records: vec![key(1), key(2)],
        users: Vec::new(),
        attribute: Some("email".to_owned()),
        opened_us: 3,
        closed_us: Some(9),
        decision,
    };
    let decision = Decision {
        choice: Choice::Record(key(2)),
        of: u64::MAX,
        actor: "ann".to_owned(),
        reason: "asked HR".to_owned(),
        at_us: 9,
    };
    let (decided, closed) = (row(1, Some(decision)), row(2, None));
    let mut plan = Plan::default();
    for row in [&decided, &closed] {
        plan.conflicts.insert(row.fingerprint, row.clone());
    }
    commit(&mut writer, &mut plan, 1).unwrap();
    assert_eq!(
        writer.decided(Fingerprint(1)).unwrap(),
        Some(decided.clone())
    );
    assert_eq!(writer.decided(Fingerprint(2)).unwrap(), None);
    assert_eq!(writer.forget_history(100).unwrap(), 1);
    assert_eq!(writer.forget_history(100).unwrap(), 0);
    assert_eq!(readers.conflict(Fingerprint(1)).unwrap(), Some(decided));
    assert_eq!(readers.conflict(Fingerprint(2)).unwrap(), None);
}

#[test]
fn a_conflict_is_open_until_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, readers) = open(dir.path());
    let row = ConflictRow {
        fingerprint: Fingerprint(u64::MAX - 3),
        kind: ConflictKind::DuplicateInSource,
        source: SOURCE,
        records: vec![key(1), key(2)],
        users: vec![id(1)],
        attribute: Some("email".to_owned()),
        opened_us: 3,
        closed_us: None,
        decision: None,
    };
    let mut plan = Plan::default();
    plan.conflicts.insert(row.fingerprint, row.clone());
    commit(&mut writer, &mut plan, 1).unwrap();
    assert_eq!(writer.conflict(row.fingerprint).unwrap(), Some(row.clone()));
    assert_eq!(
        readers
            .conflicts(ConflictFilter::default(), 10)
            .unwrap()
            .first(),
        Some(&row)
    );
    assert_eq!(
        readers.open_conflict_counts().unwrap(),
        [(ConflictKind::DuplicateInSource, 1)]
    );
    let closed = ConflictRow {
        closed_us: Some(9),
        ..row.clone()
    };
    let mut plan = Plan::default();
    plan.conflicts.insert(row.fingerprint, closed.clone());
    commit(&mut writer, &mut plan, 2).unwrap();
    assert_eq!(writer.conflict(row.fingerprint).unwrap(), None);
    assert_eq!(
        readers.conflict(row.fingerprint).unwrap(),
        Some(closed.clone())
    );
    assert!(
        readers
            .conflicts(ConflictFilter::default(), 10)
            .unwrap()
            .is_empty()
    );
    let all = ConflictFilter {
        with_closed: true,
        source: Some(SOURCE),
        kind: None,
    };
    assert_eq!(readers.conflicts(all, 10).unwrap(), [closed]);
}
