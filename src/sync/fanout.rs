//! A change of a related row, told to the records that are joined to it.
//!
//! However many these are, they are told in pieces, each a commit of its own with the place
//! behind it, between other work and in turn with it; a piece that a crash cuts was not done,
//! and is done again. A piece takes each record's stored row, puts the related row in as it is
//! *now* ([`super::related`]), and applies what comes of it as a change of the log: so it is
//! counted against the source's limit like any other, and decided on again as a whole when it
//! is too much. What main row comes next has the related row already, so it makes no
//! difference which of the two is first.
//!
//! The stored row of every record is looked at, whatever became of the record: one that was
//! out of scope may be in scope now, one that failed or waits may not any more. Where what is
//! stored is not the record's last row, it is read again from the source. A record that has
//! another join value by now is told nothing, and its entry is forgotten.
//!
//! What a reading of the whole source found is told by that reading itself, and counted with
//! it; what is left then is told behind its end.

use std::ops::RangeInclusive;

use rollcall_contract::Cell;
use rollcall_core::directory::{ChangeRef, Origin};
use rollcall_core::document::{Document, LinkState, Record};
use rollcall_core::id::SourceId;
use rollcall_core::mapped::MappedRows;
use rollcall_core::mapping::Mapper;
use rollcall_core::mapping::related::{Join, JoinValue};
use rollcall_core::reason::{LeaverReason, SkipReason};
use rollcall_core::state::{KeyBytes, LinkTarget, State as _};
use rollcall_store::{Fanout, RelatedPlace, RelatedWrites, StoreError, Writer};

use super::apply::failed;
use super::clock::now_us;
use super::engine::Engine;
use super::joining::{Lookup, Overlay};
use super::pending::Pending;
use super::work::Work;

/// Records of one piece at most.
const PIECE: usize = 4_000;

/// The same beside other sources: as small as a batch of changes that take from people, but that
/// a piece has a cost of its own.
const PIECE_BESIDE_OTHERS: RangeInclusive<usize> = 100..=1_000;

/// Join values of one piece at most.
const VALUES: usize = 500;

/// Records that are told of a related row.
pub struct Piece {
    source: SourceId,
    rows: MappedRows,
    /// The key of each row, and the change that it is told of.
    told: Vec<(KeyBytes, usize)>,
    changes: Vec<Fanout>,
    /// Records that have to be read again instead.
    reread: Vec<KeyBytes>,
    /// How far it is told with them.
    related: RelatedWrites,
}

/// What is stored of a record that may have to be told.
enum Stored<'b> {
    /// Nothing that could be told.
    Nothing,
    /// Its last row.
    Row(&'b [u8]),
    /// Something else than its last row.
    Other,
}

impl Engine {
    /// Whether somebody is to be told of something.
    pub(super) fn has_fanouts(&self) -> bool {
        let mut tracks = self.sources.values();
        tracks.any(|t| t.related.as_ref().is_some_and(|related| related.tells))
    }

    /// Tells some records of some related rows; each source has its turn.
    pub(super) fn fan_out_some(&mut self) -> Result<(), StoreError> {
        let tells = |id: &SourceId| {
            let related = self.sources.get(id).and_then(|t| t.related.as_ref());
            related.is_some_and(|related| related.tells)
        };
        let mut all: Vec<SourceId> = self.sources.keys().copied().filter(tells).collect();
        all.sort_unstable();
        let last = self.told_last;
        let next = all.iter().find(|id| Some(**id) > last).or(all.first());
        let Some(source) = next.copied() else {
            return Ok(());
        };
        self.told_last = Some(source);
        let mut pending = Pending::in_plan(self.writer.plan());
        pending.source = Some(source);
        match self.piece(source)? {
            None => {
                if let Some(related) = self
                    .sources
                    .get_mut(&source)
                    .and_then(|t| t.related.as_mut())
                {
                    related.tells = false;
                }
                Ok(())
            }
            Some(piece) => {
                self.look_at_plan(source)?;
                self.apply_piece(&piece, &mut pending)?;
                if self.may_trip(source) {
                    pending.lot.push(Work::Told(piece));
                }
                self.decide_lot(&mut pending)?;
                self.commit(&mut pending)
            }
        }
    }

    /// The next records that are to be told; nothing when there are none.
    fn piece(&mut self, source: SourceId) -> Result<Option<Piece>, StoreError> {
        self.writer.settle()?;
        let shared = self.is_shared(source);
        let Some(mapper) = self.directory.mapper(source) else {
            return Ok(None);
        };
        let Some(track) = self.sources.get(&source) else {
            return Ok(None);
        };
        let Some(related) = &track.related else {
            return Ok(None);
        };
        let open = self.writer.fanouts(source, track.scan.is_none(), VALUES)?;
        if open.is_empty() {
            return Ok(None);
        }
        let at_most = match shared {
            true => {
                let (least, most) = PIECE_BESIDE_OTHERS.into_inner();
                track.small().taking.clamp(least, most)
            }
            false => PIECE,
        };
        let mut piece = Piece {
            source,
            rows: MappedRows::default(),
            told: Vec::new(),
            changes: Vec::new(),
            reread: Vec::new(),
            related: RelatedWrites::default(),
        };
        let mut left = at_most;
        let table = open.first().map(|((_, id, _), _)| *id);
        for (place, fanout) in open {
            // A record is told of one table at a time, since each telling begins with what is
            // stored; and of one table it has one join value.
            if left == 0 || Some(place.1) != table {
                break;
            }
            let after = fanout.after.clone().unwrap_or_default();
            let at = (source, place.1, place.2.as_slice());
            let records = self.writer.related_records_after(at, &after, left)?;
            let is_over = records.len() < left;
            left -= records.len();
            let next = records.last().filter(|_| !is_over).map(|last| Fanout {
                after: Some(last.clone()),
                ..fanout.clone()
            });
            if let Some(table) = related.table_no(place.1) {
                let value = JoinValue::Value(place.2.clone());
                let overlay = Overlay::default();
                let mut lookup = Lookup::new(&mut self.writer, &overlay, &related.tables);
                let telling = Telling {
                    join: &related.join,
                    mapper: &mapper,
                    cells: &related.join.cells(table, &value, &mut lookup)?,
                    table,
                    place: &place,
                    value: &value,
                };
                piece.changes.push(fanout);
                telling.records(&mut self.writer, records, &mut piece)?;
            }
            piece.related.fanouts.insert(place, next);
        }
        Ok(Some(piece))
    }

    /// Applies what is told.
    pub(super) fn apply_piece(
        &mut self,
        piece: &Piece,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let (source, now) = (piece.source, now_us());
        self.set_counting(source, false);
        let run = self.stream_run(source, now)?;
        self.note_run(source, pending);
        let keys = piece.told.iter().map(|(key, _)| key.as_slice());
        self.writer.preload(source, keys)?;
        let directory = &mut self.directory;
        let mut resolver = directory.resolver(&mut self.writer, &mut pending.plan, now, run);
        for (at, (key, change)) in piece.told.iter().enumerate() {
            let fanout = &piece.changes[*change];
            let change = ChangeRef {
                key,
                old_key: None,
                // The record's own row is what it was: what the log has brought of it last
                // still says which pages are older.
                tx: &[],
                position: &fanout.position,
                ordinal: fanout.ordinal,
                commit_us: fanout.commit_us,
                origin: Origin::Log,
            };
            resolver
                .apply(source, &change, piece.rows.row(at))
                .map_err(failed)?;
        }
        resolver.finish().map_err(failed)?;
        pending.changes += piece.told.len();
        let again = piece.reread.iter().map(|key| (source, key.clone()));
        pending.plan.reread.extend(again);
        pending.commit.related.add(&piece.related);
        let position = match self.sources.get(&source) {
            Some(track) => track.position.clone(),
            None => String::new(),
        };
        self.count(source, false, &position, pending);
        Ok(())
    }
}

/// One join value whose records are told.
struct Telling<'t> {
    join: &'t Join,
    mapper: &'t Mapper,
    /// What is joined now.
    cells: &'t rollcall_core::mapping::related::Cells,
    table: rollcall_contract::TableNo,
    place: &'t RelatedPlace,
    value: &'t JoinValue,
}

impl Telling<'_> {
    fn records(
        &self,
        writer: &mut Writer,
        records: Vec<KeyBytes>,
        piece: &mut Piece,
    ) -> Result<(), StoreError> {
        writer.preload(self.place.0, records.iter().map(KeyBytes::as_slice))?;
        let mut bytes = Vec::new();
        for key in records {
            bytes.clear();
            match stored(writer, self.place.0, &key, &mut bytes)? {
                Stored::Nothing => self.forget(key, piece),
                Stored::Other => piece.reread.push(key),
                Stored::Row(shadow) => self.record(key, shadow, piece),
            }
        }
        Ok(())
    }

    fn record(&self, key: KeyBytes, shadow: &[u8], piece: &mut Piece) {
        let Some(mut cells) = self.mapper.stored_cells(shadow) else {
            piece.reread.push(key);
            return;
        };
        let cell = |at: usize| cells.get(at).copied().unwrap_or(Cell::Missing);
        match self.join.value(self.table, cell) {
            value if value == *self.value => {}
            // What its last row did not have is being read again.
            JoinValue::Unchanged | JoinValue::Unknown => {
                piece.reread.push(key);
                return;
            }
            JoinValue::Value(_) | JoinValue::Null => return self.forget(key, piece),
        }
        let mut is_told = true;
        for (at, cell) in self.cells.cells.iter().enumerate() {
            if let Some(known) = cells.get_mut(self.cells.first + at) {
                is_told &= *known == cell.as_cell();
                *known = cell.as_cell();
            }
        }
        if !is_told {
            self.mapper.map_cells(&cells, &mut piece.rows);
            piece.told.push((key, piece.changes.len() - 1));
        }
    }

    fn forget(&self, key: KeyBytes, piece: &mut Piece) {
        piece.related.forgotten.push((self.place.clone(), key));
    }
}

/// What is stored of a record. Nothing else is pending.
fn stored<'b>(
    writer: &mut Writer,
    source: SourceId,
    key: &[u8],
    bytes: &'b mut Vec<u8>,
) -> Result<Stored<'b>, StoreError> {
    let damaged = |_| StoreError::Damaged {
        detail: "a stored record cannot be read".to_owned(),
    };
    match writer.link(source, key).map_err(failed)? {
        None => Ok(Stored::Nothing),
        Some(LinkTarget::Record) => {
            writer.record(source, key, bytes).map_err(failed)?;
            let record = Record::decode(bytes).map_err(damaged)?;
            Ok(Stored::Row(record.shadow))
        }
        Some(LinkTarget::User(user)) => {
            writer.user(user, bytes).map_err(failed)?;
            let document = Document::decode(bytes).map_err(damaged)?;
            let Some(at) = document.find_link(source, key) else {
                return Ok(Stored::Nothing);
            };
            let link = document.links[at];
            let mixed_up = [SkipReason::KeyReuse, SkipReason::StagedLeaver];
            Ok(match (link.state, link.state.gone()) {
                (_, Some(LeaverReason::OutOfScope)) => Stored::Row(link.shadow),
                (_, Some(_)) => Stored::Nothing,
                (LinkState::Held(reason), _) if mixed_up.contains(&reason) => Stored::Other,
                _ if link.hash == 0 => Stored::Other,
                _ => Stored::Row(link.shadow),
            })
        }
    }
}
