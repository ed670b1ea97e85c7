//! Openings of a log, gaps, and states: what is recorded before anything is applied.
//!
//! A gap is stored in the same commit as the new start cursor. There is no order of crashes
//! in which the cursor has moved and the gap is forgotten.

use std::sync::Arc;

use rollcall_contract::{Gap, GapReason};
use rollcall_core::event::EventKind;
use rollcall_core::id::{RunId, SourceId};
use rollcall_core::mapping::Mapper;
use rollcall_core::staged::Remapping;
use rollcall_store::{GapOpened, Progress, StateChange, StoreError};

use super::clock::now_us;
use super::engine::Engine;
use super::pending::Pending;
use super::track::Ask;
use super::work::Opened;
use crate::observe::names;

impl Engine {
    pub(super) fn opened(
        &mut self,
        opened: Opened,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let source = opened.source;
        for gap in opened.gaps {
            self.gap_found(source, gap, pending)?;
        }
        self.end_runs(pending, now_us(), |row| {
            row.source == source && row.kind == "poll"
        });
        // A scan that was cut goes on, whether or not a gap is why it began.
        let mut scan_due =
            !pending.commit.gaps_opened.is_empty() || self.readers.scan(source)?.is_some();
        if let Some(track) = self.sources.get_mut(&source) {
            scan_due |= !track.open_gaps.is_empty();
            track.acknowledge = Some(opened.acknowledge);
            track.poll = None;
            opened.start.text().clone_into(&mut track.position);
        }
        pending.commit.progress = Some(Progress {
            source,
            cursor: opened.start,
            lineage: Some(opened.lineage),
        });
        let reply = opened.reply;
        pending.then(move || {
            // A driver that is gone asks again when it is back.
            let _ = reply.send(scan_due);
        });
        Ok(())
    }

    pub(super) fn gap_found(
        &mut self,
        source: SourceId,
        gap: Gap,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let now = now_us();
        let Some(track) = self.sources.get_mut(&source) else {
            return Ok(());
        };
        if gap.reason.is_other_history() {
            track.history = track.history.wrapping_add(1);
        }
        if gap.reason == GapReason::MappingChanged {
            track.remapping = Remapping::Everybody;
        }
        let name = track.name.clone();
        metrics::counter!(names::GAPS, "source" => name.clone(), "reason" => gap.reason.as_str())
            .increment(1);
        if gap.reason != GapReason::InitialLoad {
            let tables: Vec<String> = gap.tables.iter().map(ToString::to_string).collect();
            let body = serde_json::json!({
                "source": name,
                "reason": gap.reason.as_str(),
                "tables": tables,
                "from": gap.from,
                "to": gap.to,
                "detail": gap.detail,
            });
            let what = format!(
                "gap:{}:{}:{now}",
                gap.reason.as_str(),
                gap.from.as_deref().unwrap_or("")
            );
            self.operational(
                EventKind::SourceGap,
                source,
                &what,
                RunId(0),
                &body,
                pending,
                now,
            );
        }
        pending.commit.gaps_opened.push(GapOpened { source, gap });
        pending.gap_sources.push(source);
        Ok(())
    }

    /// The mapping that counts from here on. When it is another one than the one that was
    /// applied, what the directory holds is no longer what mapping the source gives: that is
    /// a gap like any other, and a scan closes it. Gives whether a scan is due.
    pub(super) fn mapper_set(
        &mut self,
        source: SourceId,
        mapper: Arc<Mapper>,
        pending: &mut Pending,
    ) -> Result<bool, StoreError> {
        let name = format!("{:016x}", mapper.fingerprint());
        let healed = self.drift_found(source, &mapper, pending)?;
        self.directory.set_mapper(source, mapper);
        let stored = self
            .readers
            .sources()?
            .into_iter()
            .find(|row| row.id == source);
        let Some(stored) = stored.filter(|row| row.mapping.as_ref() != Some(&name)) else {
            return Ok(healed);
        };
        pending.commit.states.push(StateChange {
            source,
            state: stored.state,
            reason: stored.reason,
            mapping: Some(name),
        });
        if stored.mapping.is_none() {
            return Ok(healed);
        }
        let gap = Gap {
            tables: Vec::new(),
            reason: GapReason::MappingChanged,
            from: None,
            to: None,
            detail: "The mapping in the configuration is another one than the one that was applied. Every record is read and mapped again.".to_owned(),
        };
        self.gap_found(source, gap, pending)?;
        Ok(true)
    }

    /// A sink has what this store does not know of: the store is older than the world. The
    /// sources will find out what it missed.
    pub(super) fn store_restored(
        &mut self,
        sink: &str,
        position: u64,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        self.writer.skip_to(rollcall_store::Position(position))?;
        let sources: Vec<SourceId> = self.sources.keys().copied().collect();
        for source in sources {
            let gap = Gap {
                tables: Vec::new(),
                reason: GapReason::StoreRestored,
                from: None,
                to: None,
                detail: format!(
                    "The sink {sink} holds position {position}, which this store has never given out: the store was restored from a backup. Every source is read again."
                ),
            };
            tracing::warn!(sink, position, "gap: {}", gap.detail);
            self.gap_found(source, gap, pending)?;
            if let Some(track) = self.sources.get(&source) {
                let asks = track.asks.clone();
                pending.then(move || {
                    // A driver that is gone finds the gap in the store when it is back.
                    let _ = asks.send(Ask::Scan);
                });
            }
        }
        Ok(())
    }

    pub(super) fn state_changed(
        &mut self,
        source: SourceId,
        state: &'static str,
        reason: String,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let now = now_us();
        let Some(track) = self.sources.get_mut(&source) else {
            return Ok(());
        };
        // Attempts to connect come and go; what people want to hear of is where they lead.
        if state == "connecting" || (track.state, &track.reason) == (state, &reason) {
            return Ok(());
        }
        let before = std::mem::replace(&mut track.state, state);
        track.reason.clone_from(&reason);
        let (name, is_connected) = (track.name.clone(), track.is_connected());
        if !is_connected {
            self.tell_of_approval(source)?;
        }
        pending.commit.states.push(StateChange {
            source,
            state: state.to_owned(),
            reason: Some(reason.clone()).filter(|r| !r.is_empty()),
            mapping: None,
        });
        // That something else is in the way is no other state.
        if before == state {
            return Ok(());
        }
        tracing::info!(source = name, state, reason, "state");
        let body = serde_json::json!({ "source": name, "before": before, "state": state, "reason": reason });
        let what = format!("state:{before}:{state}:{now}");
        self.operational(
            EventKind::SourceStateChanged,
            source,
            &what,
            RunId(0),
            &body,
            pending,
            now,
        );
        Ok(())
    }
}
