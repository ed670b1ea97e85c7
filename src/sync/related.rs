//! Related tables, from the engine's side: their rows are stored, and joined to every row of
//! the source's own table before anything else looks at that.
//!
//! Why a record ends with the newest related row, in whichever order things come:
//!
//! - A main row is joined with the related rows as they are when it is applied, those of its
//!   own batch before it included.
//! - A related row that changed is stored in one commit with the note that the records of its
//!   join value are to be told ([`super::fanout`]), and they are told from their stored rows
//!   with the related row as it is then. A main row that comes in between has it already.
//! - Which records have a join value is stored in the commit that joins them, so whoever was
//!   joined before the change is found, and whoever is joined behind it needs not to be.
//!
//! A related row is read from pages as any row: through a window, never over something newer,
//! and removed only when no page had it, it does not exist when it is asked for by key, and
//! the log has not touched it since. Until a table was read whole once, nothing is said of its
//! columns ([`RelatedState::Loading`]): nobody loses a field because a table is new here. While
//! the whole source is read, related tables come first, so the main table's pages are joined
//! with what was just read; what they tell is then counted with everything else of that
//! reading, and what is left to tell waits for its end.

use std::sync::Arc;

use hashbrown::HashSet;
use rollcall_contract::{Batch, Class, Gap, GapReason, Key, TableNo, TableSchema};
use rollcall_core::id::SourceId;
use rollcall_core::mapping::Mapper;
use rollcall_core::mapping::related::{Join, Joiner, RelatedReader, RelatedSpec};
use rollcall_core::state::KeyBytes;
use rollcall_store::{
    Fanout, RelatedId, RelatedRow, RelatedState, RelatedTableRow, RelatedWrites, StoreError,
};

use super::clock::now_us;
use super::engine::Engine;
use super::joining::{Joining, Left, Lookup, empty, hashes, mapped, mappers_of};
use super::pending::Pending;
use super::scanning::seen_hash;
use super::track::TxMark;
use super::window::{HeldPage, Purpose};
use super::work::{Changes, Missing, PageRows, PageWork, Turn, Work};

/// Related rows that are looked at in one step of the search for what no page had.
const LOOKED_AT: usize = 10_000;

/// What the engine knows of a source's related tables.
pub struct RelatedTrack {
    /// How they are joined at present.
    pub(super) join: Arc<Join>,
    /// In the order of the configuration.
    pub(super) tables: Vec<RelatedTableRow>,
    /// Whether the commit under way may hold what the next join has to see.
    is_written: bool,
    /// The table that is being read whole.
    scan: Option<RelatedScan>,
    /// Whether records may be left that are to be told of something.
    pub(super) tells: bool,
    /// Whether it was said that several rows match where one is to be.
    said_ambiguous: bool,
    /// The source's name.
    name: String,
}

impl RelatedTrack {
    pub(super) fn id(&self, table: TableNo) -> Option<RelatedId> {
        Some(self.tables.get(table.index().checked_sub(1)?)?.id)
    }

    /// The table of that number.
    pub(super) fn table_no(&self, id: RelatedId) -> Option<TableNo> {
        let at = self.tables.iter().position(|t| t.id == id)?;
        Some(TableNo::at(at + 1))
    }

    fn is_loaded(&self) -> bool {
        let mut tables = self.tables.iter();
        tables.all(|t| t.state == RelatedState::Loaded)
    }

    /// Says once that several rows match where one is to be.
    pub(super) fn warn_ambiguous(&mut self) {
        if !std::mem::replace(&mut self.said_ambiguous, true) {
            tracing::warn!(
                source = self.name,
                "several rows of a related table match one record; the one with the lowest key counts"
            );
        }
    }

    /// A commit was prepared.
    pub(super) fn written(&mut self, writes: &RelatedWrites) {
        self.is_written |= !(writes.rows.is_empty() && writes.tables.is_empty());
        self.tells |= !writes.fanouts.is_empty();
    }
}

/// A related table that is being read whole. It is begun anew after a crash.
struct RelatedScan {
    table: TableNo,
    /// Hashes of the keys that pages had.
    seen: HashSet<u64>,
    /// The row that was looked for last.
    after: KeyBytes,
    /// Whether a row without a key was read: nothing is absent for certain.
    is_keyless: bool,
}

/// See [`Work::Unjoined`].
pub struct Unjoined {
    /// Whose log.
    pub source: SourceId,
    /// The changes of all its tables.
    pub batch: Batch,
    /// What is to be made of each table of the batch.
    pub tables: Vec<TableUse>,
    /// See [`Changes::turn`].
    pub turn: Turn,
}

/// What is made of the rows of a table.
pub enum TableUse {
    /// They are people's: they are joined and mapped.
    Main(Arc<Join>, Arc<Mapper>),
    /// They are joined to those.
    Related(RelatedReader),
}

/// See [`Work::RelatedPage`].
pub struct RelatedPage {
    /// Of which source.
    pub source: SourceId,
    /// Which of its tables.
    pub table: TableNo,
    /// The page, with what the log took out of it.
    pub page: HeldPage,
    /// How each table of the page is read.
    pub readers: Vec<RelatedReader>,
    /// Whether the table is read from its beginning with this page.
    pub is_first: bool,
}

/// What is kept of a related table's rows and how they are joined.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Definition {
    table: rollcall_contract::TableName,
    /// Columns of the related and the main table, with their classes.
    on: Vec<[(String, Option<Class>); 2]>,
    /// What is kept, with its class.
    columns: Vec<(String, Option<Class>)>,
}

impl Definition {
    fn of(spec: &RelatedSpec, schema: &TableSchema, main: &TableSchema) -> Definition {
        let class = |schema: &TableSchema, column: &String| {
            let at = schema.position(column);
            (column.clone(), at.map(|at| schema.columns[at].class))
        };
        let on = spec.on.iter();
        Definition {
            table: spec.table.clone(),
            on: on
                .map(|(theirs, own)| [class(schema, theirs), class(main, own)])
                .collect(),
            columns: spec.columns.iter().map(|c| class(schema, c)).collect(),
        }
    }

    /// The definition under which rows of both can be used; none when there is no such one. A
    /// column that is gone for now is what it was.
    fn with(&self, present: &Definition) -> Option<Definition> {
        let mut both = self.clone();
        let own = both.on.iter_mut().flatten().chain(&mut both.columns);
        let other = present.on.iter().flatten().chain(&present.columns);
        for (known, now) in own.zip(other) {
            known.1 = known.1.or(now.1);
        }
        let mut filled = present.clone();
        let own = filled.on.iter_mut().flatten().chain(&mut filled.columns);
        let other = both.on.iter().flatten().chain(&both.columns);
        for (now, known) in own.zip(other) {
            now.1 = now.1.or(known.1);
        }
        (both == filled).then_some(both)
    }

    /// The same without types.
    fn names(&self) -> Definition {
        let mut names = self.clone();
        let all = names.on.iter_mut().flatten().chain(&mut names.columns);
        all.for_each(|(_, class)| *class = None);
        names
    }

    fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Engine {
    /// A source's tables are joined like this from here on. Gives whether a scan is due: what is
    /// kept of related rows is of other types by now.
    pub(super) fn set_join(
        &mut self,
        source: SourceId,
        joining: Option<super::work::Joining>,
        pending: &mut Pending,
    ) -> Result<bool, StoreError> {
        let mut retyped = Vec::new();
        let stored = self.readers.related_tables(source)?;
        let mut next = stored.iter().map(|t| t.id.0 + 1).max().unwrap_or(1);
        let mut live = stored
            .into_iter()
            .filter(|t| t.state != RelatedState::Dropped)
            .collect::<Vec<_>>();
        let mut tables = Vec::new();
        let wanted = joining.iter().flat_map(|joining| {
            let specs = joining.specs.iter().zip(&joining.tables.related);
            specs.map(|(spec, schema)| (spec, schema, &joining.tables.main))
        });
        for (spec, schema, main) in wanted {
            let wanted = Definition::of(spec, schema, main);
            let at = live.iter().position(|t| t.name == spec.name);
            let known = at.map(|at| live.remove(at));
            let before: Option<Definition> = known
                .as_ref()
                .and_then(|t| serde_json::from_str(&t.definition).ok());
            let same = before.as_ref().and_then(|before| before.with(&wanted));
            if same.is_none() && before.is_some_and(|before| before.names() == wanted.names()) {
                retyped.push(spec.table.clone());
            }
            let table = match (known, same) {
                (Some(known), Some(same)) => RelatedTableRow {
                    definition: same.text(),
                    ..known
                },
                (known, _) => {
                    live.extend(known);
                    next += 1;
                    RelatedTableRow {
                        source,
                        id: RelatedId(next - 1),
                        name: spec.name.clone(),
                        definition: wanted.text(),
                        state: RelatedState::Loading,
                    }
                }
            };
            pending.commit.related.tables.push(table.clone());
            tables.push(table);
        }
        for dropped in live {
            pending.commit.related.tables.push(RelatedTableRow {
                state: RelatedState::Dropped,
                ..dropped
            });
        }
        if let Some(track) = self.sources.get_mut(&source) {
            let before = track.related.take();
            track.related = joining.map(|joining| RelatedTrack {
                join: joining.join,
                tables,
                is_written: true,
                scan: before.and_then(|before| before.scan),
                tells: true,
                said_ambiguous: false,
                name: track.name.clone(),
            });
        }
        if retyped.is_empty() {
            return Ok(false);
        }
        let gap = Gap {
            tables: retyped,
            reason: GapReason::SchemaChanged,
            from: None,
            to: None,
            detail: "Columns of a related table, or those that it is joined by, changed their type. The source is read again.".to_owned(),
        };
        self.gap_found(source, gap, pending)?;
        Ok(true)
    }

    /// Work whose rows are not joined yet, joined. Whatever else is left as it is.
    pub(super) fn joined(&mut self, work: Work, pending: &mut Pending) -> Result<Work, StoreError> {
        Ok(match work {
            Work::Unjoined(raw) => Work::Changes(self.join_changes(raw, pending)?),
            Work::Page(page) => Work::Page(self.join_page(page, pending)?),
            Work::Keys { page, cause, ended } => Work::Keys {
                page: self.join_page(page, pending)?,
                cause,
                ended,
            },
            Work::Planned(mut planned) => {
                for page in &mut planned.pages {
                    if page.joins.is_empty() {
                        continue;
                    }
                    let (joined, left) =
                        self.join_rows(planned.source, &page.page.rows, &page.joins, pending)?;
                    page.page.rows = joined;
                    pending.commit.related.add(&left.writes);
                    page.mapped = mapped(&page.page.rows, &page.mappers);
                }
                Work::Planned(planned)
            }
            other => other,
        })
    }

    /// Before related rows are asked for: whether the store has to be waited for.
    fn settle_related(&mut self, source: SourceId, always: bool) -> Result<(), StoreError> {
        let track = self.sources.get_mut(&source);
        let Some(related) = track.and_then(|t| t.related.as_mut()) else {
            return Ok(());
        };
        if always || std::mem::take(&mut related.is_written) {
            related.is_written = false;
            self.writer.settle()?;
        }
        Ok(())
    }

    fn join_changes(
        &mut self,
        raw: Unjoined,
        pending: &mut Pending,
    ) -> Result<Changes, StoreError> {
        let Unjoined {
            source,
            batch,
            tables,
            turn,
        } = raw;
        let is_related = |t: &TableUse| matches!(t, TableUse::Related(_));
        self.settle_related(source, tables.iter().any(is_related))?;
        let now = now_us();
        let track = self.sources.get_mut(&source);
        let track = track.and_then(|t| Some((t.history, t.related.as_mut()?)));
        let (joined, left) = match track {
            Some((history, related)) => {
                let joining = Joining {
                    writer: &mut self.writer,
                    related,
                    overlay: &mut pending.overlay,
                    pending: &pending.commit.related,
                    left: Left::default(),
                    source,
                    history,
                    now,
                };
                joining.batch(&batch, &tables)?
            }
            None => (empty(&batch), Left::default()),
        };
        let mappers = mappers_of(&joined, &tables);
        Ok(Changes {
            source,
            mapped: mapped(&joined, &mappers),
            mappers,
            related: left.writes,
            reread: left.reread,
            related_rows: left.rows,
            queued_bytes: batch.size_bytes() as u64,
            batch: joined,
            turn,
        })
    }

    fn join_page(
        &mut self,
        mut work: PageWork,
        pending: &mut Pending,
    ) -> Result<PageWork, StoreError> {
        let PageRows::Unjoined { joins, is_hashed } = &work.mapped else {
            return Ok(work);
        };
        let is_hashed = *is_hashed;
        let (joined, left) = self.join_rows(work.source, &work.page.rows, joins, pending)?;
        work.page.rows = joined;
        work.related = left.writes;
        work.mapped = match is_hashed {
            true => PageRows::Hashed(hashes(&work.page.rows, &work.mappers)),
            false => PageRows::Mapped(mapped(&work.page.rows, &work.mappers)),
        };
        Ok(work)
    }

    /// Joins rows of the main table that were read. Their tables keep their places.
    fn join_rows(
        &mut self,
        source: SourceId,
        rows: &Batch,
        joins: &[Arc<Join>],
        pending: &mut Pending,
    ) -> Result<(Batch, Left), StoreError> {
        self.settle_related(source, false)?;
        let track = self.sources.get_mut(&source);
        let Some(related) = track.and_then(|t| t.related.as_mut()) else {
            return Ok((empty(rows), Left::default()));
        };
        let mut left = Left::default();
        let mut joiner = Joiner::default();
        let mut lookup = Lookup::new(&mut self.writer, &pending.overlay, &related.tables);
        for change in rows.changes() {
            let said = joiner.push(&joins[change.table_index()], &change, &mut lookup)?;
            left.note_records(&related.tables, source, &change, said.values);
        }
        if joiner.is_ambiguous() {
            related.warn_ambiguous();
        }
        Ok((joiner.finish(rows.cursor().clone()), left))
    }

    /// Nothing is asked again of a source while not every related table of it is known: it
    /// would come back with as little, and the reading that makes the table known brings every
    /// record.
    pub(super) fn await_related(&self, source: SourceId, pending: &mut Pending) {
        let related = self.sources.get(&source).and_then(|t| t.related.as_ref());
        if related.is_some_and(|related| !related.is_loaded()) {
            pending.plan.reread.retain(|(of, _)| *of != source);
        }
    }

    /// Takes in a page of a related table.
    pub(super) fn apply_related_page(
        &mut self,
        work: &RelatedPage,
        pending: &mut Pending,
    ) -> Result<(), StoreError> {
        let now = now_us();
        let RelatedPage {
            source,
            table,
            page,
            readers,
            is_first,
        } = work;
        self.settle_related(*source, true)?;
        let Some(track) = self.sources.get_mut(source) else {
            return Ok(());
        };
        let (history, of_scan) = (track.history, track.scan.is_some());
        let Some(related) = &mut track.related else {
            return Ok(());
        };
        let Some(id) = related.id(*table) else {
            return Ok(());
        };
        if *is_first {
            related.scan = Some(RelatedScan {
                table: *table,
                seen: HashSet::new(),
                after: KeyBytes::new(),
                is_keyless: false,
            });
        }
        let mut scan = related.scan.take();
        let mut left = Left::default();
        let origin = Fanout {
            after: None,
            of_scan,
            position: page.rows.cursor().text().to_owned(),
            ordinal: 0,
            commit_us: now,
        };
        let is_newer = |stored: &RelatedRow| {
            let tx = rollcall_contract::TxId(stored.tx.iter().copied().collect());
            let tx = TxMark::of_history(tx, history);
            tx.is_some_and(|tx| page.window.may_be_newer(&tx))
        };
        for (at, change) in page.rows.changes().enumerate() {
            let (Some(row), Some(key)) = (change.after(), page.key(at)) else {
                if let Some(scan) = &mut scan {
                    scan.is_keyless = true;
                }
                continue;
            };
            let key = KeyBytes::from_slice(key.as_bytes());
            let stored = self.writer.related_row((*source, id, &key))?;
            // What is newer than the page may be incomplete: it is asked for once more.
            let is_overtaken = stored.as_ref().is_some_and(is_newer);
            if let Some(scan) = scan.as_mut().filter(|_| page.is_of_scan()) {
                if is_overtaken && page.purpose != Purpose::Absence {
                    continue;
                }
                scan.seen.insert(seen_hash(&key));
            }
            if is_overtaken || !page.is_alive(at) {
                continue;
            }
            let image = readers[change.table_index()].image(&row, None);
            let tx = stored.as_ref().map(|s| s.tx.clone()).unwrap_or_default();
            let new = RelatedRow {
                joined: image.joined,
                cells: Some(image.cells),
                tx,
                at_us: now,
            };
            let place = (*source, id, key);
            left.put(&mut self.writer, None, place, stored.as_ref(), new, &origin)?;
        }
        if page.purpose == Purpose::Absence && scan.as_ref().is_some_and(|s| !s.is_keyless) {
            for key in &page.absent {
                let key = KeyBytes::from_slice(key.as_bytes());
                let stored = self.writer.related_row((*source, id, &key))?;
                let Some(stored) = stored.filter(|s| s.cells.is_some() && !is_newer(s)) else {
                    continue;
                };
                let gone = RelatedRow {
                    joined: None,
                    cells: None,
                    tx: stored.tx.clone(),
                    at_us: now,
                };
                let place = (*source, id, key);
                left.put(&mut self.writer, None, place, Some(&stored), gone, &origin)?;
            }
        }
        if let Some(related) = self
            .sources
            .get_mut(source)
            .and_then(|t| t.related.as_mut())
        {
            related.scan = scan;
        }
        pending.commit.related.add(&left.writes);
        Ok(())
    }

    /// Some of the related rows that no page had, or that something newer overtook.
    pub(super) fn related_missing(
        &mut self,
        source: SourceId,
        table: TableNo,
    ) -> Result<Missing, StoreError> {
        let over = Missing {
            is_last: true,
            ..Missing::default()
        };
        let track = self.sources.get_mut(&source);
        let Some(related) = track.and_then(|t| t.related.as_mut()) else {
            return Ok(over);
        };
        let (Some(id), Some(scan)) = (related.id(table), &mut related.scan) else {
            return Ok(over);
        };
        if scan.table != table {
            return Ok(over);
        }
        let keys = self
            .writer
            .related_keys_after((source, id), &scan.after, LOOKED_AT)?;
        let missing = keys
            .iter()
            .filter(|key| !scan.seen.contains(&seen_hash(key)));
        let found = Missing {
            keys: missing.filter_map(|key| Key::from_bytes(key)).collect(),
            is_last: keys.len() < LOOKED_AT,
        };
        if let Some(last) = keys.last() {
            scan.after.clone_from(last);
        }
        Ok(found)
    }

    /// A related table was read whole.
    pub(super) fn related_ended(
        &mut self,
        source: SourceId,
        table: TableNo,
        pending: &mut Pending,
    ) {
        let track = self.sources.get_mut(&source);
        let Some(related) = track.and_then(|t| t.related.as_mut()) else {
            return;
        };
        related.scan = None;
        let at = table.index().checked_sub(1);
        if let Some(table) = at.and_then(|at| related.tables.get_mut(at))
            && table.state == RelatedState::Loading
        {
            table.state = RelatedState::Loaded;
            pending.commit.related.tables.push(table.clone());
        }
    }
}
