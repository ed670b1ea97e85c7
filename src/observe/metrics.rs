//! The Prometheus exposition. Counters and histograms are recorded where things happen, a
//! batch at a time; gauges are read from the live figures when they are asked for.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use rollcall_contract::GapReason;
use rollcall_core::reason::SkipReason;

use super::names;
use crate::daemon::Shared;
use crate::sync::clock::now_us;
use std::sync::atomic::Ordering;

/// The states a source can be in: each is a series, so that alerts can name them.
pub const SOURCE_STATES: [&str; 8] = [
    "connecting",
    "scanning",
    "streaming",
    "polling",
    "waiting",
    "refused",
    "quarantined",
    "stopped",
];

/// Bounds of all latency histograms, in seconds.
const BUCKETS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0,
];

/// Installs the recorder of this process.
///
/// # Errors
/// When one is installed already.
pub fn install() -> Result<PrometheusHandle, String> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|e| format!("metrics could not be set up: {e}"))?;
    describe_counter!(names::CHANGES, "Row changes taken in, by outcome.");
    describe_histogram!(
        names::COMMIT_TO_STORE,
        "Commit at the source to commit in the store."
    );
    describe_histogram!(
        names::COMMIT_TO_DELIVERED,
        "Commit at the source to certain delivery."
    );
    describe_histogram!(names::STORE_COMMIT, "One commit of the store.");
    describe_counter!(names::DELIVERED, "Records delivered.");
    describe_counter!(names::GAPS, "Gaps opened, by reason.");
    describe_counter!(
        names::POLL_UNMARKED,
        "Rows that a whole poll found changed without a change of their change column."
    );
    describe_gauge!(names::PARKED, "Records that a sink refused.");
    describe_gauge!(
        names::LAG_BYTES,
        "Log between what is confirmed and the server's head."
    );
    describe_gauge!(
        names::LAG_SECONDS,
        "Age of the last change taken in, while behind."
    );
    describe_gauge!(
        names::RETAINED_BYTES,
        "Log that the server keeps because of this source."
    );
    describe_gauge!(
        names::SAFE_BYTES,
        "Log that may still be written before the server gives this source up."
    );
    describe_gauge!(
        names::SOURCE_STATE,
        "1 for the state that the source is in."
    );
    describe_gauge!(names::GAPS_OPEN, "Gaps that no scan has closed yet.");
    describe_gauge!(
        names::PLAN_RECORDS,
        "Records of which a change waits for approval."
    );
    describe_gauge!(names::QUEUED_BYTES, "Batches between reader and store.");
    describe_gauge!(names::SCAN_ROWS, "Rows read by the scan that is under way.");
    describe_gauge!(
        names::SCAN_TOTAL_ROWS,
        "The server's estimate of all rows of the table that is scanned."
    );
    describe_gauge!(
        names::SCAN_ROWS_PER_SECOND,
        "Rows that the scan which is under way reads each second."
    );
    describe_gauge!(
        names::SCAN_LEFT,
        "Time until the scan which is under way has read everything."
    );
    describe_gauge!(
        names::PROOF_AGE,
        "Time since the last whole rolling proof ended, or the first one began."
    );
    describe_gauge!(
        names::DRIFTED,
        "Records of which a rolling proof is certain that they differ."
    );
    describe_gauge!(names::OUTBOX_HEAD, "Last position of the outbox.");
    describe_gauge!(
        names::SINK_POSITION,
        "Last position that the sink certainly has."
    );
    describe_gauge!(names::USERS, "Users, active or not.");
    describe_gauge!(
        names::CONFLICTS_OPEN,
        "Conflicts that wait for a correction."
    );
    Ok(handle)
}

/// What becomes of a change that is applied, or needs not be.
pub const OUTCOMES: [&str; 7] = [
    "created",
    "updated",
    "suspected",
    "deactivated",
    "deleted",
    "activated",
    "unchanged",
];

/// What becomes of a change that is not applied.
pub fn outcome_of(reason: SkipReason) -> &'static str {
    match reason.is_error() {
        true => "errored",
        false => "skipped",
    }
}

/// Begins the counters of a source at 0. A rule that asks for an increase sees none where a
/// series appears with 1, so the first gap and the first error would go unnoticed.
pub fn begin_at_zero(source: &str) {
    for reason in GapReason::ALL {
        counter!(names::GAPS, "source" => source.to_owned(), "reason" => reason.as_str())
            .increment(0);
    }
    for outcome in OUTCOMES {
        counter!(names::CHANGES, "source" => source.to_owned(), "outcome" => outcome).increment(0);
    }
    for reason in SkipReason::ALL {
        counter!(names::CHANGES, "source" => source.to_owned(), "outcome" => outcome_of(reason), "reason" => reason.as_str())
            .increment(0);
    }
}

/// Reads the live figures into the gauges.
pub fn refresh(shared: &Shared) {
    let plans = shared.readers.plans().unwrap_or_default();
    let proofs = shared.readers.proofs().unwrap_or_default();
    let drifted = shared.readers.drifted_counts().unwrap_or_default();
    for source in &shared.sources {
        let name = source.name.clone();
        if let Some(proof) = proofs.iter().find(|p| p.source == source.id) {
            let since_us = proof.proved_us.unwrap_or(proof.since_us);
            let age = (now_us() - since_us).max(0) as f64 / 1e6;
            gauge!(names::PROOF_AGE, "source" => name.clone()).set(age);
            let drifted = drifted.iter().find(|(id, _)| *id == source.id);
            gauge!(names::DRIFTED, "source" => name.clone())
                .set(drifted.map_or(0.0, |(_, n)| *n as f64));
        }
        let plan = plans.iter().find(|p| p.source == source.id);
        gauge!(names::PLAN_RECORDS, "source" => name.clone())
            .set(plan.map_or(0.0, |p| p.records as f64));
        let live = source.live.snapshot();
        for state in SOURCE_STATES {
            gauge!(names::SOURCE_STATE, "source" => name.clone(), "state" => state)
                .set(if live.state == state { 1.0 } else { 0.0 });
        }
        let bytes = [
            (names::LAG_BYTES, live.server.lag_bytes),
            (names::RETAINED_BYTES, live.server.retained_bytes),
            (names::SAFE_BYTES, live.server.safe_bytes),
            (names::QUEUED_BYTES, Some(live.queued_bytes)),
            (names::SCAN_ROWS, Some(live.scan_rows)),
        ];
        for (metric, value) in bytes {
            if let Some(value) = value {
                gauge!(metric, "source" => name.clone()).set(value as f64);
            }
        }
        let scan = live.scan.as_ref();
        let progress = [
            (
                names::SCAN_TOTAL_ROWS,
                scan.and_then(|s| s.total).map(|n| n as f64),
            ),
            (names::SCAN_ROWS_PER_SECOND, scan.map(|s| s.rows_per_second)),
            (names::SCAN_LEFT, scan.and_then(|s| s.seconds_left)),
        ];
        for (metric, value) in progress {
            gauge!(metric, "source" => name.clone()).set(value.unwrap_or(0.0));
        }
        gauge!(names::LAG_SECONDS, "source" => name.clone()).set(source.lag_seconds(&live));
    }
    gauge!(names::OUTBOX_HEAD).set(*shared.hub.head().borrow() as f64);
    let parked = shared.readers.parked_counts().unwrap_or_default();
    for sink in &shared.sinks {
        let stored = parked
            .iter()
            .find(|(name, _)| *name == sink.name)
            .map_or(0, |(_, n)| *n);
        gauge!(names::SINK_POSITION, "sink" => sink.name.clone())
            .set(sink.live.position.load(Ordering::Relaxed) as f64);
        gauge!(names::PARKED, "sink" => sink.name.clone()).set(stored as f64);
    }
    if let Ok(counts) = shared.readers.counts() {
        gauge!(names::USERS, "active" => "true").set(counts.active as f64);
        gauge!(names::USERS, "active" => "false").set((counts.users - counts.active) as f64);
    }
    if let Ok(conflicts) = shared.readers.open_conflict_counts() {
        gauge!(names::CONFLICTS_OPEN).set(conflicts.iter().map(|(_, n)| *n).sum::<u64>() as f64);
    }
    if let Ok(gaps) = shared.readers.gaps(false, 100_000) {
        for source in &shared.sources {
            let open = gaps.iter().filter(|g| g.source == source.id).count();
            gauge!(names::GAPS_OPEN, "source" => source.name.clone()).set(open as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gap_and_every_outcome_is_counted_from_0() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || begin_at_zero("hr"));
        let text = recorder.handle().render();
        let has = |series: &str| text.lines().any(|line| line == format!("{series} 0"));
        for reason in GapReason::ALL {
            let labels = format!("source=\"hr\",reason=\"{}\"", reason.as_str());
            assert!(has(&format!("{}{{{labels}}}", names::GAPS)), "{labels}");
        }
        for outcome in OUTCOMES {
            let labels = format!("source=\"hr\",outcome=\"{outcome}\"");
            assert!(has(&format!("{}{{{labels}}}", names::CHANGES)), "{labels}");
        }
        for (outcome, reason) in [("errored", "bad_value"), ("skipped", "out_of_scope")] {
            let labels = format!("source=\"hr\",outcome=\"{outcome}\",reason=\"{reason}\"");
            assert!(has(&format!("{}{{{labels}}}", names::CHANGES)), "{labels}");
        }
    }

    #[test]
    fn the_list_of_gaps_leaves_none_out() {
        for (number, reason) in GapReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
        }
        assert_eq!(GapReason::ALL.len(), GapReason::StoreRestored as usize + 1);
    }
}
