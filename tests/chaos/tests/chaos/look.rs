//! What must hold after every step, whatever happened.
//!
//! Everything is read through the store's readers, as any command beside the daemon reads it. The
//! outbox is read on from where the last look ended, over all lives of the daemon: what a reader
//! has once seen was durable, so nothing of it may ever be missing or be another.

use std::collections::{BTreeMap, HashMap, HashSet};

use rollcall::config::{Config, LeaverAction};
use rollcall::daemon::{self, Shared};
use rollcall::sync::mapper;
use rollcall_contract::{Cell, TableSchema};
use rollcall_core::attribute::{AttrId, EMAIL, USER_NAME};
use rollcall_core::document::{Document, LinkState, Record};
use rollcall_core::event::{EventKind, body};
use rollcall_core::id::{SourceId, UserId, UserRow, ValueHash};
use rollcall_core::mapped::{Assigned, MappedRows, Outcome, Strength};
use rollcall_core::mapping::{Mapper, Shadow, fold};
use rollcall_core::reason::SkipReason;
use rollcall_core::state::LinkTarget;
use rollcall_store::{Position, Readers, UserFilter};
use serde_json::Value;
use xxhash_rust::xxh3::Xxh3;

use crate::life::Around;
use crate::server::{Rows, Server, place_of};

/// What is known of the events so far.
pub(crate) struct Looker {
    next_position: u64,
    next_sequence: u64,
    /// Where each event is, and what it says.
    ids: HashMap<[u8; 16], (u64, String)>,
    /// The users as the events tell of them: version, and the user.
    told: BTreeMap<UserId, (u64, Value)>,
    /// Tables and attributes stay as they are, so they are compiled once.
    mappers: HashMap<SourceId, Mapper>,
    /// A person has kept somebody against the word of a source.
    pub(crate) is_lenient: bool,
    /// The id of each event, by position.
    pub(crate) outbox: BTreeMap<u64, String>,
    pub(crate) trace: Xxh3,
}

type Found = Result<(), String>;

macro_rules! hold {
    ($condition:expr, $($said:tt)+) => {
        if !$condition {
            return Err(format!($($said)+));
        }
    };
}

fn read<T, E: std::fmt::Display>(outcome: Result<T, E>) -> Result<T, String> {
    outcome.map_err(|e| format!("the store cannot be read: {e}"))
}

/// What is looked at, and what it should be.
pub(crate) struct Sight<'a> {
    pub(crate) config: &'a Config,
    pub(crate) around: &'a Around,
    pub(crate) shared: &'a Shared,
}

impl Sight<'_> {
    /// Whether the end of a source's records does nothing.
    fn ignores(&self, id: SourceId) -> bool {
        let names = self.shared.sources.iter().find(|s| s.id == id);
        let source = names.and_then(|s| self.config.source(&s.name));
        source.is_some_and(|s| s.leaver.action == LeaverAction::Ignore)
    }
}

impl Looker {
    pub(crate) fn new() -> Looker {
        Looker {
            next_position: 1,
            next_sequence: 1,
            ids: HashMap::new(),
            told: BTreeMap::new(),
            mappers: HashMap::new(),
            is_lenient: false,
            outbox: BTreeMap::new(),
            trace: Xxh3::new(),
        }
    }

    pub(crate) fn look(&mut self, at: &Sight<'_>) -> Found {
        let readers = &at.shared.readers;
        self.outbox(readers)?;
        let users = Users::read(readers)?;
        self.directory(at, &users)?;
        for source in read(readers.sources())? {
            let server = &at.around.servers[&source.name];
            if !self.mappers.contains_key(&source.id)
                && let Some(mapper) = mapper_of(at, source.id, &source.name)?
            {
                self.mappers.insert(source.id, mapper);
            }
            let mapper = self.mappers.get(&source.id);
            if let Some(mapper) = mapper.filter(|_| !self.is_lenient) {
                users.values_have_evidence(at, source.id, mapper)?;
            }
            users.links_lead_to_somebody(readers, source.id)?;
            let Some(cursor) = source.resume.as_ref().and_then(|(c, _)| place_of(c)) else {
                continue;
            };
            hold!(
                cursor <= server.head(),
                "{}: the cursor {cursor} is not in the log",
                source.name
            );
            hold!(
                cursor >= server.acknowledged(),
                "{}: {} was acknowledged, and the store stands at {cursor}",
                source.name,
                server.acknowledged()
            );
            self.trace.update(&cursor.to_le_bytes());
            if let Some(mapper) = mapper.filter(|_| !self.is_lenient) {
                users.are_the_table(at, source.id, &source.name, server, cursor, mapper)?;
            }
        }
        Ok(())
    }

    /// Positions and sequences have no holes, no event has the id of another, and what is counted
    /// is what is there.
    fn outbox(&mut self, readers: &Readers) -> Found {
        loop {
            let blocks = read(readers.outbox_from(Position(self.next_position), 1 << 20))?;
            let Some(last) = blocks.last().map(|b| b.last_position().0) else {
                break;
            };
            hold!(
                last >= self.next_position || blocks.len() == 1,
                "the outbox goes back"
            );
            if last < self.next_position {
                break;
            }
            for block in blocks {
                hold!(
                    block.first_position.0 == self.next_position,
                    "the outbox goes on at {} and not at {}",
                    block.first_position.0,
                    self.next_position
                );
                hold!(
                    block.first_sequence.0 == self.next_sequence,
                    "the sequence goes on at {} and not at {}",
                    block.first_sequence.0,
                    self.next_sequence
                );
                for placed in block.events() {
                    let placed = placed.map_err(|e| format!("a block of events: {e}"))?;
                    self.event(placed.position.0, &placed.event)?;
                    self.next_position += 1;
                    self.next_sequence += u64::from(placed.sequence.is_some());
                }
            }
        }
        let counts = read(readers.counts())?;
        hold!(
            counts.next_position.0 == self.next_position
                && counts.next_sequence.0 == self.next_sequence,
            "the next position is {} with the sequence {}, and counted are {} and {}",
            self.next_position,
            self.next_sequence,
            counts.next_position.0,
            counts.next_sequence.0
        );
        Ok(())
    }

    fn event(&mut self, position: u64, event: &rollcall_core::event::Event<'_>) -> Found {
        self.trace.update(&event.id);
        let said = format!(
            "{} of run {} at {:?}: {}",
            event.kind.type_name(),
            event.run.0,
            event.position,
            String::from_utf8_lossy(event.data)
        );
        if let Some((before, what)) = self.ids.insert(event.id, (position, said.clone())) {
            return Err(format!(
                "two events have one id: at {before} {what}, and at {position} {said}"
            ));
        }
        let id: String = event.id.iter().map(|b| format!("{b:02x}")).collect();
        self.outbox.insert(position, id);
        let Some(user) = event.user else {
            return Ok(());
        };
        let data: Value =
            serde_json::from_slice(event.data).map_err(|e| format!("the event's body: {e}"))?;
        let version = data["version"].as_u64().unwrap_or(0);
        // A user who was deleted and comes back goes on with its version.
        if let Some((before, _)) = self.told.get(&user) {
            hold!(
                version == *before || version == before + 1,
                "the user's version goes from {before} to {version} at {position}"
            );
        }
        match event.kind {
            EventKind::UserDeleted => {
                self.told.remove(&user);
            }
            _ if data["user"].is_object() => {
                self.told.insert(user, (version, data["user"].clone()));
            }
            _ => {
                if let Some((known, _)) = self.told.get_mut(&user) {
                    *known = version;
                }
            }
        }
        Ok(())
    }

    /// Folding the events gives the directory, and what people are found by leads to them.
    fn directory(&self, at: &Sight<'_>, users: &Users) -> Found {
        let mut taken = HashMap::new();
        let readers = &at.shared.readers;
        let keys = users.key_attributes(at);
        for (row, bytes) in &users.documents {
            let user = decode(bytes)?;
            let mut again = Vec::new();
            user.encode(&mut again);
            hold!(again == *bytes, "a document does not encode to itself");
            hold!(!user.links.is_empty(), "a user without evidence");
            let mut text = Vec::new();
            body::created(&mut text, &at.shared.attributes, &user);
            let text: Value = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
            let Some((version, told)) = self.told.get(&user.id) else {
                return Err(format!("no event tells of the user {}", user.id));
            };
            hold!(
                *version == user.version && *told == text["user"],
                "the events tell of {} in version {version}: {told}; the directory has version {}: {}",
                user.id,
                user.version,
                text["user"]
            );
            for c in &user.contributions {
                if !keys.contains(&c.attribute) {
                    continue;
                }
                let mut folded = Vec::new();
                fold(c.value, &mut folded);
                let found = read(readers.users_by_value(ValueHash::of(&folded)))?;
                hold!(
                    found.iter().any(|f| f.row == *row),
                    "{} is not found by a value of {:?}",
                    user.id,
                    c.attribute
                );
            }
            for attribute in [EMAIL, USER_NAME] {
                if let Some(value) = user.value(attribute).filter(|_| user.is_active()) {
                    let mut folded = Vec::new();
                    fold(value, &mut folded);
                    if let Some(other) = taken.insert((attribute, folded), user.id) {
                        return Err(format!("{other} and {} share an identifier", user.id));
                    }
                }
            }
        }
        hold!(
            users.documents.len() == self.told.len(),
            "the events tell of {} users and there are {}",
            self.told.len(),
            users.documents.len()
        );
        let counts = read(readers.counts())?;
        let active = users.documents.values();
        let active = active.filter(|d| decode(d).is_ok_and(|d| d.is_active()));
        let active = active.count() as u64;
        hold!(
            counts.active == active,
            "{} active users are counted, and there are {active}",
            counts.active
        );
        Ok(())
    }
}

fn decode(bytes: &[u8]) -> Result<Document<'_>, String> {
    Document::decode(bytes).map_err(|e| e.to_string())
}

/// The mapping that is applied to a source's rows; none before its schema is known.
fn mapper_of(at: &Sight<'_>, id: SourceId, name: &str) -> Result<Option<Mapper>, String> {
    let schemas: Vec<(u32, TableSchema)> = read(at.shared.readers.schemas(id))?
        .into_iter()
        .filter_map(|row| Some((row.version, serde_json::from_str(&row.columns).ok()?)))
        .collect();
    let Some(source) = at.config.source(name).filter(|_| !schemas.is_empty()) else {
        return Ok(None);
    };
    let spec = daemon::mapping_of(at.config, source);
    let mapper = mapper::compile(&spec, &schemas, &at.shared.attributes);
    mapper.map(Some).map_err(|e| e.to_string())
}

/// All users that are not erased.
struct Users {
    documents: BTreeMap<UserRow, Vec<u8>>,
}

impl Users {
    fn read(readers: &Readers) -> Result<Users, String> {
        let rows = read(readers.users(&UserFilter::default(), None, usize::MAX))?;
        let documents = rows.into_iter().map(|u| (u.row, u.document)).collect();
        Ok(Users { documents })
    }

    fn key_attributes(&self, at: &Sight<'_>) -> HashSet<AttrId> {
        let names = at.config.sources.iter().flat_map(|s| &s.match_attributes);
        let ids = names.filter_map(|name| at.shared.attributes.by_name(name).map(|a| a.id));
        ids.chain([EMAIL, USER_NAME]).collect()
    }

    /// Each value comes from a record that gives it, or from a person who wrote it, and each
    /// value that a record gives is there.
    fn values_have_evidence(&self, at: &Sight<'_>, source: SourceId, mapper: &Mapper) -> Found {
        let mut rows = MappedRows::default();
        for bytes in self.documents.values() {
            let user = decode(bytes)?;
            for c in &user.contributions {
                let evidence = user.evidence.get(usize::from(c.evidence));
                hold!(
                    evidence.is_some_and(|e| e.link == c.link),
                    "a value of {} has another one's evidence",
                    user.id
                );
                match c.link {
                    None => hold!(
                        user.own(c.attribute).is_some(),
                        "nobody wrote a value of {}",
                        user.id
                    ),
                    Some(link) => {
                        let link = user.links.get(usize::from(link));
                        // What the last record gave stays when that is gone, and so does what
                        // one gave whose end is ignored.
                        let is_fed = user.links.iter().any(|l| l.state.feeds());
                        hold!(
                            link.is_some_and(|l| l.state.feeds()
                                || !is_fed
                                || at.ignores(l.source)),
                            "a value of {} comes from a record that is gone",
                            user.id
                        );
                    }
                }
            }
            for (nth, link) in user.links.iter().enumerate() {
                if link.source != source || link.state != LinkState::Live {
                    continue;
                }
                rows.clear();
                mapper.map_shadow(link.shadow, &mut rows);
                let row = rows.row(0);
                hold!(
                    row.outcome() == Outcome::Mapped,
                    "a record that feeds {} cannot be mapped: {:?}",
                    user.id,
                    row.outcome()
                );
                let of_link = |attribute| {
                    let group = user.group(attribute).iter();
                    group.into_iter().find(|c| c.link == Some(nth as u16))
                };
                for field in row.fields() {
                    let Assigned::Value(value) = field.assigned else {
                        continue;
                    };
                    let given = of_link(field.attribute);
                    if field.strength != Strength::Always
                        || given.is_some_and(|c| c.strength != Strength::Always)
                        || given.is_none() && value.is_empty()
                    {
                        continue;
                    }
                    hold!(
                        given.is_some_and(|c| c.value == value),
                        "{} has another value of {:?} than its record gives: {:?} in place of {:?}; links {:?}, plans {:?}",
                        user.id,
                        field.attribute,
                        given.map(|c| String::from_utf8_lossy(c.value)),
                        String::from_utf8_lossy(value),
                        user.links
                            .iter()
                            .map(|l| (l.source, l.state))
                            .collect::<Vec<_>>(),
                        at.shared.readers.plans()
                    );
                }
                let given = user.contributions.iter();
                let given = given.filter(|c| c.link == Some(nth as u16));
                for c in given.filter(|c| c.strength == Strength::Always) {
                    let says = row.fields().any(|f| {
                        f.attribute == c.attribute && !matches!(f.assigned, Assigned::Clear)
                    });
                    hold!(
                        says,
                        "{} has a value of {:?} that no column gives",
                        user.id,
                        c.attribute
                    );
                }
            }
        }
        Ok(())
    }

    /// A record leads to one user, who knows of it, or to a row of its own.
    fn links_lead_to_somebody(&self, readers: &Readers, source: SourceId) -> Found {
        let links = read(readers.links_after(source, None, usize::MAX))?;
        let links: HashMap<_, _> = links.into_iter().collect();
        for (key, target) in &links {
            match target {
                LinkTarget::Record => hold!(
                    read(readers.record(source, key))?.is_some(),
                    "a link leads to a record that is not there"
                ),
                LinkTarget::User(row) => hold!(
                    read(readers.user(*row))?.is_some(),
                    "a link leads to a user that is not there"
                ),
            }
        }
        for (row, bytes) in &self.documents {
            let user = decode(bytes)?;
            for link in user.links.iter().filter(|l| l.source == source) {
                if link.state.is_present() {
                    hold!(
                        links.get(link.key) == Some(&LinkTarget::User(*row)),
                        "{} has a record that leads elsewhere",
                        user.id
                    );
                }
            }
        }
        let counted = read(readers.counts())?.linked_of(source);
        let users = self.documents.values();
        let linked: usize = users
            .filter_map(|bytes| decode(bytes).ok().filter(Document::is_active))
            .map(|user| {
                let links = user.links.iter();
                links
                    .filter(|l| l.source == source && l.state.is_present())
                    .count()
            })
            .sum();
        hold!(
            counted == linked as u64,
            "{counted} linked active users are counted, and there are {linked}"
        );
        Ok(())
    }

    /// The rows that the directory knows are those of the table as it was at the cursor: the
    /// cursor is neither ahead of its effects nor behind them.
    fn are_the_table(
        &self,
        at: &Sight<'_>,
        source: SourceId,
        name: &str,
        server: &Server,
        cursor: u64,
        mapper: &Mapper,
    ) -> Found {
        let readers = &at.shared.readers;
        let gaps = read(readers.gaps(false, 10_000))?;
        if gaps
            .iter()
            .any(|g| g.source == source && g.closed_us.is_none())
        {
            return Ok(());
        }
        let repairs: HashSet<Vec<u8>> = read(readers.repairs(source))?
            .iter()
            .map(|k| k.as_bytes().to_vec())
            .collect();
        let table: HashMap<Vec<u8>, _> = rows_by_key(server.rows_at(cursor));
        let mut known: HashMap<Vec<u8>, (Vec<u8>, Option<SkipReason>)> = HashMap::new();
        let mut gone: HashSet<Vec<u8>> = HashSet::new();
        for bytes in self.documents.values() {
            for link in decode(bytes)?.links.iter().filter(|l| l.source == source) {
                let reason = match link.state {
                    LinkState::Held(reason) => Some(reason),
                    _ => None,
                };
                match link.state.is_present() {
                    true => {
                        known.insert(link.key.to_vec(), (link.shadow.to_vec(), reason));
                    }
                    false => {
                        gone.insert(link.key.to_vec());
                    }
                }
            }
        }
        for (key, target) in read(readers.links_after(source, None, usize::MAX))? {
            if target == LinkTarget::Record {
                let bytes = read(readers.record(source, &key))?.unwrap_or_default();
                let record = Record::decode(&bytes).map_err(|e| e.to_string())?;
                known.insert(key.to_vec(), (record.shadow.to_vec(), Some(record.reason)));
            }
        }
        for (key, row) in &table {
            let id = &row[0];
            if repairs.contains(key) {
                continue;
            }
            let Some((shadow, reason)) = known.get(key) else {
                let mut rows = MappedRows::default();
                mapper.map_shadow(&shadow_of(mapper, row), &mut rows);
                hold!(
                    rows.row(0).outcome() == Outcome::OutOfScope,
                    "{name}: the record {id:?} is in the table at {cursor} and not in the directory{}",
                    if gone.contains(key) {
                        ", where it is gone"
                    } else {
                        ""
                    }
                );
                continue;
            };
            let shadow = Shadow::decode(shadow).map_err(|e| e.to_string())?;
            for (column, cell) in row.iter().enumerate() {
                let same = match (shadow.cell(column), cell) {
                    (Cell::Value(value), Some(text)) => value == text.as_bytes(),
                    (Cell::Null, None) => true,
                    // Nothing is made of a record out of scope, so nothing is asked for.
                    (Cell::Missing, _) => *reason == Some(SkipReason::OutOfScope),
                    _ => false,
                };
                hold!(
                    same,
                    "{name}: the record {id:?} has another value in column {column} at {cursor} ({:?}) than the directory ({:?}, {reason:?})",
                    cell,
                    shadow.cell(column)
                );
            }
        }
        for (key, (_, reason)) in &known {
            let waits = reason.is_some_and(|r| r.is_staged() || r == SkipReason::KeyReuse);
            hold!(
                table.contains_key(key) || waits || repairs.contains(key),
                "{name}: a record is in the directory ({reason:?}) and not in the table at {cursor}"
            );
        }
        Ok(())
    }
}

fn rows_by_key(rows: Rows) -> HashMap<Vec<u8>, crate::server::Row> {
    rows.into_iter()
        .map(|(id, row)| (crate::server::key_of(id).as_bytes().to_vec(), row))
        .collect()
}

/// A row as the store keeps it: version, columns, and each cell behind its length
/// (`core/src/mapping/shadow.rs`).
fn shadow_of(mapper: &Mapper, row: &[Option<String>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let number = |bytes: &mut Vec<u8>, mut n: usize| {
        while n >= 0x80 {
            bytes.push(n as u8 | 0x80);
            n >>= 7;
        }
        bytes.push(n as u8);
    };
    number(&mut bytes, mapper.schema_version() as usize);
    number(&mut bytes, row.len());
    for cell in row {
        match cell {
            None => number(&mut bytes, 0),
            Some(text) => {
                number(&mut bytes, text.len() + 2);
                bytes.extend_from_slice(text.as_bytes());
            }
        }
    }
    bytes
}
