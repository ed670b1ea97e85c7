//! Rolling proofs, from the engine's side: what a slice has found is stored together with how
//! far the proof is and with what its run has counted. How it is found: [`crate::proof`].

use rollcall_core::id::{RunId, SourceId};
use rollcall_store::{ProofRow, StoreError, Walk};

use super::clock::now_us;
use super::engine::Engine;
use super::pending::Pending;
use super::track::TrackedRun;
use super::work::{Cause, ProofWork};

impl Engine {
    /// A slice was looked at, or what differed was looked at again.
    pub(super) fn proof_went_on(
        &mut self,
        work: ProofWork,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let ProofWork {
            mut row,
            counters,
            position,
            drifted,
            undrifted,
            is_round,
            ended,
            reply,
        } = work;
        let (source, now) = (row.source, now_us());
        if is_round {
            let track = self.sources.get_mut(&source);
            let mut run = match track.and_then(|t| t.proof_run.take()) {
                Some(run) => run,
                None => {
                    let cause = Cause::Schedule.as_str();
                    TrackedRun::new(self.new_run(source, "proof", cause, now)?)
                }
            };
            run.row.counters.add(&counters);
            run.row.to = Some(position).filter(|p| !p.is_empty());
            run.dirty = true;
            row.run = Some(run.row.id);
            if let Some(differs) = ended {
                let outcome = match differs {
                    true => "drifted",
                    false => "completed",
                };
                self.end_run(run.row, outcome, told(&row), pending, now);
                row = between(row, now);
            } else if let Some(track) = self.sources.get_mut(&source) {
                track.proof_run = Some(run);
            }
        }
        pending.commit.proofs.push(row);
        pending.commit.drifted.extend(drifted);
        let undrifted = undrifted.into_iter().map(|place| (source, place));
        pending.commit.undrifted.extend(undrifted);
        pending.then(move || {
            // A proof that was cancelled finds it in the store.
            let _ = reply.send(());
        });
        Ok(())
    }

    /// The run of the proof's round that a crash or a stop has cut, if it is to go on. What is
    /// not to be proved any more is forgotten.
    pub(super) fn resume_proof(
        &self,
        source: SourceId,
        pending: &mut Pending,
    ) -> Result<Option<RunId>, StoreError> {
        let Some(row) = self.readers.proof(source)? else {
            return Ok(None);
        };
        if self.sources.get(&source).is_some_and(|t| t.is_proved) {
            return Ok(row.run);
        }
        pending.commit.proofs_ended.push(source);
        Ok(None)
    }
}

/// What a round's run says of what differed; nothing when nothing did.
fn told(row: &ProofRow) -> Option<String> {
    let detail = serde_json::json!({
        "reason": "drift",
        "records": row.drifted,
        "repaired": row.repaired,
    });
    (row.drifted > 0).then(|| detail.to_string())
}

/// Behind a whole round.
fn between(row: ProofRow, now_us: i64) -> ProofRow {
    ProofRow {
        proved_us: Some(now_us),
        run: None,
        slices: 0,
        read: Walk::Begins,
        known: Walk::Begins,
        expected_rows: row.rows,
        ..row
    }
}
