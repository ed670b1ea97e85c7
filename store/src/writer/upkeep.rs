//! What is done now and then: what has had its time goes, and memory is given back.

use super::Writer;
use crate::error::StoreError;
use crate::outbox::{self, Trimmed};
use crate::position::Position;
use crate::preload::Preloaded;

/// Gaps that were closed before `?1` and behind which the source had the same history.
const GAP_MAY_GO: &str = "closed_us < ?1 AND json_extract(body, '$.reason') NOT IN \
                          ('other_server', 'timeline_diverged', 'restored')";

impl Writer {
    /// Removes outbox blocks that every sink has passed (`delivered`) and that are older
    /// than `keep_newer_than_us`, or that make the outbox larger than `max_bytes`. Removes
    /// a bounded number at a time.
    pub fn trim_outbox(
        &mut self,
        delivered: Position,
        keep_newer_than_us: i64,
        max_bytes: u64,
    ) -> Result<Trimmed, StoreError> {
        let stored_bytes = self.counts.outbox_bytes;
        let due = self.call(move |core| {
            outbox::trimmable(
                &core.connection,
                delivered,
                keep_newer_than_us,
                max_bytes,
                stored_bytes,
            )
        })?;
        let Some((last, trimmed)) = due else {
            return Ok(Trimmed::default());
        };
        self.recount(move |connection, counts| {
            counts.outbox_blocks = counts.outbox_blocks.saturating_sub(trimmed.blocks);
            counts.outbox_bytes = counts.outbox_bytes.saturating_sub(trimmed.bytes);
            connection
                .prepare_cached("DELETE FROM outbox WHERE position <= ?1")?
                .execute([last.to_sql()])?;
            Ok(trimmed)
        })
    }

    /// Goes on behind a position that somebody has already seen, with positions and
    /// sequences alike: for a store that was restored from a backup, so that what it gives
    /// out from here on is never taken for what it gave out before.
    pub fn skip_to(&mut self, seen: Position) -> Result<(), StoreError> {
        self.refuse_if_poisoned()?;
        self.settle()?;
        let next = seen.next();
        if next <= self.counts.next_position {
            return Ok(());
        }
        self.recount(move |_, counts| {
            let skipped = next.0 - counts.next_position.0;
            counts.next_position = next;
            counts.next_sequence = counts.next_sequence.plus(skipped);
            Ok(())
        })
    }

    /// Forgets runs that ended, with the records that they name, and gaps and conflicts that
    /// were closed, before a time; what a person has decided stays. At most a thousand of each in one call; gives how many
    /// rows went. Gaps behind which a source had another history stay: their number tells
    /// which history a stored record belongs to.
    pub fn forget_history(&mut self, before_us: i64) -> Result<u64, StoreError> {
        // Nearly always there is nothing, and then nothing is written.
        self.settle()?;
        let outcome = self
            .connection
            .prepare_cached(&format!(
                "SELECT EXISTS(SELECT 1 FROM run WHERE ended_us < ?1) \
                 OR EXISTS(SELECT 1 FROM gap WHERE {GAP_MAY_GO}) \
                 OR EXISTS(SELECT 1 FROM conflict WHERE closed_us < ?1 AND decision IS NULL)"
            ))
            .and_then(|mut s| s.query_row([before_us], |r| r.get::<_, bool>(0)))
            .map_err(StoreError::from);
        if !self.guard(outcome)? {
            return Ok(0);
        }
        self.transact(move |c| {
            let mut forgotten = 0;
            for sql in [
                // A run goes only when none of its records is left.
                "DELETE FROM run_record WHERE (run, reason, healed, source, key) IN \
                 (SELECT r.run, r.reason, r.healed, r.source, r.key FROM run JOIN run_record r \
                 ON r.run = run.id WHERE run.ended_us < ?1 LIMIT 1000)",
                "DELETE FROM run WHERE id IN (SELECT id FROM run WHERE ended_us < ?1 AND \
                 NOT EXISTS(SELECT 1 FROM run_record r WHERE r.run = run.id) LIMIT 1000)",
                &format!(
                    "DELETE FROM gap WHERE id IN (SELECT id FROM gap WHERE {GAP_MAY_GO} LIMIT 1000)"
                ),
                "DELETE FROM conflict WHERE fingerprint IN (SELECT fingerprint FROM conflict \
                 WHERE closed_us < ?1 AND decision IS NULL LIMIT 1000)",
            ] {
                forgotten += c.execute(sql, [before_us])? as u64;
            }
            Ok(forgotten)
        })
    }

    /// For quiet times (some seconds without a commit): takes the log into the database as
    /// far as readers allow, and gives back the memory that the last batches needed.
    pub fn rest(&mut self) -> Result<(), StoreError> {
        self.settle()?;
        self.preloaded = Preloaded::default();
        self.spare = None;
        self.memory.rest();
        let outcome = self
            .connection
            .execute_batch("PRAGMA shrink_memory")
            .map_err(StoreError::from);
        self.guard(outcome)?;
        self.call(|core| {
            core.memory = Vec::new();
            core.connection.execute_batch("PRAGMA shrink_memory")?;
            core.checkpoint("PASSIVE")
        })
    }
}
