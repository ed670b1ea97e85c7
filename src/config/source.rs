//! One followed table: where it is, who its users are, what happens when one leaves.

use std::time::Duration;

use jiff::tz::TimeZone;
use rollcall_contract::TableName;
use rollcall_core::attribute::{AttrType, Attributes};
use toml::de::DeValue;

use super::error::Place;
use super::mapping::{self, MappingConfig, ScopeConfig};
use super::reader::{Item, Section, child, suggest};
use super::related::{self, RelatedConfig};
use super::secret::Context;
use super::server::{self, ServerConfig, SourceKind, SourceType};
use super::table::Naming;
use super::values;
use crate::schedule::Schedule;

/// One followed table.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// Its name: `[source.<name>]`.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// The server, and who logs in there.
    pub server: ServerConfig,
    /// The table; of a partitioned one, the root.
    pub table: TableName,
    /// The columns that name a record; the table's primary key when none.
    pub key: Option<Vec<String>>,
    /// What only this kind of database has.
    pub kind: SourceKind,
    /// Columns that are never stored.
    pub redact: Vec<String>,
    /// Further tables whose rows are joined, in the order of the file.
    pub related: Vec<RelatedConfig>,
    /// Columns to attributes.
    pub mapping: MappingConfig,
    /// The attributes by which a new record finds an existing user, in order; each has a
    /// rule.
    pub match_attributes: Vec<String>,
    /// The attributes that tell a rehired person from another one; each has a rule.
    pub fingerprint: Vec<String>,
    /// What happens to a user whose record is gone.
    pub leaver: LeaverConfig,
    /// How many people it may take something away from; none when there is no limit.
    pub limit: Option<LimitConfig>,
    /// When it is reconciled without anyone asking.
    pub schedule: Schedule,
    /// How the table is read while its log is not.
    pub poll: PollConfig,
    /// How it is proved in the background; none when it is not.
    pub proof: Option<ProofConfig>,
    /// Where raw changes go.
    pub change_stream: Option<ChangeStreamConfig>,
    /// How much is taken at once.
    pub batch: BatchConfig,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// The longest pause between two attempts.
    pub retry_max: Duration,
    /// After so long without a connection that holds it is quarantined.
    pub quarantine_after: Duration,
    /// How many times rarer its server is asked how it stands than if it were alone.
    pub asked_rarer: u32,
}

/// Servers of so many sources are asked how they stand as often as one alone …
const ASKED_OFTEN: usize = 50;

/// … and of more never so many times rarer.
const ASKED_RARER: usize = 4;

impl SourceConfig {
    /// The source among so many.
    pub fn among(&self, sources: usize) -> SourceConfig {
        let rarer = sources.div_ceil(ASKED_OFTEN).clamp(1, ASKED_RARER);
        SourceConfig {
            batch: self.batch.among(sources),
            asked_rarer: rarer as u32,
            ..self.clone()
        }
    }
}

/// What happens to a user whose record is gone, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaverConfig {
    /// What happens.
    pub action: LeaverAction,
    /// So long the user stays as it is.
    pub deactivate_after: Duration,
    /// So long after that it is deleted; never when none.
    pub delete_after: Option<Duration>,
    /// So long after that nothing is left of it.
    pub purge_after: Duration,
}

/// What happens to a user whose record is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaverAction {
    /// The user becomes inactive.
    Deactivate,
    /// The user stays.
    Ignore,
}

/// How a table is read while its log is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollConfig {
    /// Whether.
    pub mode: PollMode,
    /// The pause between the beginnings of two polls.
    pub every: Duration,
    /// The column that every change of a row raises; without one each poll reads every row.
    pub change_column: Option<String>,
    /// With a change column: how often every row is read all the same.
    pub full_every: Duration,
    /// How long a change may take from the moment in which its change column gets its value
    /// to its commit.
    pub overlap: Duration,
}

/// Whether a table is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollMode {
    /// Never: what cannot be followed is refused.
    Never,
    /// While the log cannot be read.
    WhenNeeded,
    /// Always: the log is not asked for.
    Always,
}

/// How a source is proved in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProofConfig {
    /// In so long everything is looked at once.
    pub period: Duration,
    /// Whether what differs is read again and applied.
    pub repairs: bool,
}

/// How many people a source may take something away from before somebody has looked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LimitConfig {
    /// More are too many.
    pub max_changes: u64,
    /// A larger share of the source's active users is too many, 0 to 100.
    pub max_percent: f64,
    /// So few are never too many.
    pub floor: u64,
    /// How long an applied change counts.
    pub window: Duration,
}

/// Where raw changes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeStreamConfig {
    /// The name of a sink that exists.
    pub sink: String,
    /// The topic; always there for a Kafka sink.
    pub topic: Option<String>,
    /// Where it stands.
    pub place: Place,
}

/// Batches grow up to so many changes by themselves.
const GROWN_ROWS: usize = 5_000;

/// How much is taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// A batch that is waited for is closed at so many changes …
    pub rows: usize,
    /// … and any batch at so many; batches that are stored with one commit have no more.
    pub most_rows: usize,
    /// … or at so many bytes, whichever comes first.
    pub size_bytes: u64,
    /// The most rows in one page of a scan.
    pub page_rows: usize,
    /// The most bytes in one page of a scan.
    pub page_size_bytes: u64,
}

impl BatchConfig {
    /// Of a source among so many. What one of several has read is taken in before another one
    /// gets its turn, so it reads less at once.
    fn among(self, sources: usize) -> BatchConfig {
        if sources <= 1 {
            return self;
        }
        BatchConfig {
            rows: self.rows.min(1_000),
            most_rows: self.most_rows.min(1_000),
            size_bytes: self.size_bytes.min(512 << 10),
            page_rows: self.page_rows.min(2_000),
            page_size_bytes: self.page_size_bytes.min(1 << 20),
        }
    }
}

pub(super) fn source(
    name: String,
    section: Section<'_>,
    context: &Context<'_>,
) -> Option<SourceConfig> {
    let place = section.place();
    let kind = section.required("type", values::choice(server::TYPES));
    let Some(kind) = kind else {
        section.finish_of_any_type();
        return None;
    };
    let login = server::server(&name, kind, &section, context);
    let naming = kind.naming();
    let table = section.required("table", |item| table(item, naming));
    let key = section.optional("key", values::texts);
    let kind = match kind {
        SourceType::Postgres => server::postgres(&name, &section).map(SourceKind::Postgres),
        SourceType::MySql(flavour) => server::mysql(flavour, &section).map(SourceKind::MySql),
    };
    let redact = section.optional("redact", values::texts);
    let related = section.section("related").and_then(|tables| {
        let redact = redact.as_ref().and_then(Option::as_deref);
        related::reject_redacted(&tables, redact.unwrap_or_default())?;
        related::all(&tables, table.as_ref(), naming)
    });
    let scope = section.optional("scope", |item| {
        Some(ScopeConfig {
            expr: mapping::expression(item)?,
            place: item.key_place(),
        })
    });
    let rules = match section.item("map") {
        Some(item) => item.section().and_then(|map| mapping::rules(map, context)),
        None => {
            section.missing("map");
            None
        }
    };
    let mapped = |attribute: &str| {
        rules
            .as_ref()
            .is_none_or(|rules| rules.iter().any(|rule| rule.attribute == attribute))
    };
    let match_attributes = section.required("match", |item| {
        let attributes = values::texts(item)?;
        all_mapped(item, &attributes, &mapped)?;
        none_refers(item, &attributes)?;
        Some(attributes)
    });
    let chosen = section.item("fingerprint").is_some();
    let fingerprint = section.required("fingerprint", |item| {
        let mut attributes = values::texts(item)?;
        match chosen {
            true => all_mapped(item, &attributes, &mapped)?,
            false => attributes.retain(|attribute| mapped(attribute)),
        }
        none_refers(item, &attributes)?;
        Some(attributes)
    });
    let leaver = section.section("leaver").and_then(leaver);
    let limit = section.section("limit").and_then(limit);
    let schedule = section.section("schedule").and_then(schedule);
    let poll = section.section("poll").and_then(poll);
    let proof = section.section("proof").and_then(proof);
    let change_stream = section.item("change_stream").map(change_stream);
    let batch = section.section("batch").and_then(batch);
    let connect_timeout = section.required("connect_timeout", values::positive_duration);
    let retry_max = section.required("retry_max", values::positive_duration);
    let quarantine_after = section.required("quarantine_after", values::positive_duration);
    section.finish();

    let change_stream = match change_stream {
        Some(stream) => Some(stream?),
        None => None,
    };
    Some(SourceConfig {
        name,
        place,
        server: login?,
        table: table?,
        key: key?,
        kind: kind?,
        redact: redact?.unwrap_or_default(),
        related: related?,
        mapping: MappingConfig {
            scope: scope?,
            rules: rules?,
        },
        match_attributes: match_attributes?,
        fingerprint: fingerprint?,
        leaver: leaver?,
        limit: limit?,
        schedule: schedule?,
        poll: poll?,
        proof: proof?,
        change_stream,
        batch: batch?,
        connect_timeout: connect_timeout?,
        retry_max: retry_max?,
        quarantine_after: quarantine_after?,
        asked_rarer: 1,
    })
}

fn leaver(section: Section<'_>) -> Option<LeaverConfig> {
    let action = section.required(
        "action",
        values::choice(&[
            ("deactivate", LeaverAction::Deactivate),
            ("ignore", LeaverAction::Ignore),
        ]),
    );
    let ignores = action == Some(LeaverAction::Ignore);
    let mut is_whole = true;
    for key in ["deactivate_after", "delete_after", "purge_after"] {
        if let Some(item) = section.item(key).filter(|_| ignores) {
            item.reject::<()>(
                item.found(),
                "nothing: with action = \"ignore\" the user stays for ever",
                "remove it, or set action = \"deactivate\"",
            );
            is_whole = false;
        }
    }
    let deactivate_after = section.required("deactivate_after", values::duration);
    let delete_after = section.optional("delete_after", values::duration);
    let purge_after = section.required("purge_after", values::duration);
    section.finish();
    Some(LeaverConfig {
        action: action?,
        deactivate_after: deactivate_after?,
        delete_after: delete_after?,
        purge_after: purge_after?,
    })
    .filter(|_| is_whole)
}

pub(super) fn table(item: &Item<'_>, naming: Naming) -> Option<TableName> {
    let DeValue::String(text) = item.value() else {
        return item.wrong();
    };
    if text.contains('\0') {
        return item.wrong();
    }
    match naming.parse(text) {
        Some(table) => Some(table),
        None if naming.is_one_name(text) => {
            let fix = match naming {
                Naming::Postgres => {
                    format!("write `table = \"public.{text}\"` if that is its schema")
                }
                Naming::MySql => {
                    format!("write `table = \"hr.{text}\"` if that is its database")
                }
            };
            item.reject(item.found(), item.kind().expected(), fix)
        }
        None => item.wrong(),
    }
}

/// Nobody is found, and nobody is told from others, by which user another one is.
fn none_refers(item: &Item<'_>, attributes: &[String]) -> Option<()> {
    let known = Attributes::new([]);
    let refers = |name: &&String| {
        let attribute = known.by_name(name);
        attribute.is_some_and(|a| a.kind == AttrType::Reference)
    };
    match attributes.iter().find(refers) {
        None => Some(()),
        Some(attribute) => item.reject(
            format!("the attribute {attribute:?}, which is another user"),
            "attributes with values of the record's own",
            format!("remove {attribute:?}"),
        ),
    }
}

fn all_mapped(item: &Item<'_>, attributes: &[String], mapped: &dyn Fn(&str) -> bool) -> Option<()> {
    match attributes.iter().find(|attribute| !mapped(attribute)) {
        None => Some(()),
        Some(attribute) => item.reject(
            format!("the attribute {attribute:?}, which has no rule"),
            "attributes with a rule in the map of this source",
            format!("add a rule for {attribute}, or name other attributes"),
        ),
    }
}

/// The limit, if there is to be one.
fn limit(section: Section<'_>) -> Option<Option<LimitConfig>> {
    let changes = section.required("max_changes", values::integer::<u64>);
    let percent = section.required("max_percent", values::percent);
    let floor = section.required("floor", values::integer::<u64>);
    let window = section.required("window", values::positive_duration);
    let stages = section.required("action", values::choice(&[("stage", true), ("off", false)]));
    section.finish();
    let limit = LimitConfig {
        max_changes: changes?,
        max_percent: percent?,
        floor: floor?,
        window: window?,
    };
    Some(stages?.then_some(limit))
}

fn schedule(section: Section<'_>) -> Option<Schedule> {
    // What is a schedule in one time zone is one in each.
    let rhythm = section.required("reconcile", |item| {
        let text = values::text(item)?;
        match Schedule::parse(&text, TimeZone::UTC, Duration::ZERO) {
            Some(_) => Some(text),
            None => item.wrong(),
        }
    });
    let zone = section.required("time_zone", |item| {
        let name = values::text(item)?;
        TimeZone::get(&name).ok().or_else(|| item.wrong())
    });
    let jitter = section.required("jitter", values::duration);
    section.finish();
    Schedule::parse(&rhythm?, zone?, jitter?)
}

fn poll(section: Section<'_>) -> Option<PollConfig> {
    let mode = section.required(
        "mode",
        values::choice(&[
            ("never", PollMode::Never),
            ("when_needed", PollMode::WhenNeeded),
            ("always", PollMode::Always),
        ]),
    );
    let every = section.required("every", values::positive_duration);
    let change_column = section.optional("change_column", values::text);
    let full_every = section.required("full_every", values::positive_duration);
    let overlap = section.required("overlap", values::duration);
    section.finish();
    Some(PollConfig {
        mode: mode?,
        every: every?,
        change_column: change_column?,
        full_every: full_every?,
        overlap: overlap?,
    })
}

/// The proof, if there is to be one.
fn proof(section: Section<'_>) -> Option<Option<ProofConfig>> {
    let rolls = section.required("mode", values::choice(&[("rolling", true), ("off", false)]));
    let period = section.required("period", values::positive_duration);
    let repairs = section.required(
        "on_drift",
        values::choice(&[("report", false), ("repair", true)]),
    );
    section.finish();
    let proof = ProofConfig {
        period: period?,
        repairs: repairs?,
    };
    Some(rolls?.then_some(proof))
}

fn change_stream(item: Item<'_>) -> Option<ChangeStreamConfig> {
    let section = item.section()?;
    let sink = section.required("sink", values::text);
    let topic = section.optional("topic", values::text_where(values::is_topic));
    let place = section.place();
    section.finish();
    Some(ChangeStreamConfig {
        sink: sink?,
        topic: topic?,
        place,
    })
}

fn batch(section: Section<'_>) -> Option<BatchConfig> {
    let rows = section.required("rows", values::integer::<usize>);
    let size = section.required("size", values::size_bytes);
    let page_rows = section.required("page_rows", values::integer::<usize>);
    let page_size = section.required("page_size", values::size_bytes);
    section.finish();
    let rows = rows?;
    Some(BatchConfig {
        rows,
        most_rows: rows.max(rows.saturating_mul(10).min(GROWN_ROWS)),
        size_bytes: size?,
        page_rows: page_rows?,
        page_size_bytes: page_size?,
    })
}

/// Says that a name is none of those that exist.
pub(super) fn reject_name<'n>(
    section: &Section<'_>,
    key: &str,
    place: Place,
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'n str> + Clone,
) {
    let fix = match suggest(name, known.clone()) {
        Some(near) => format!("write \"{near}\""),
        None => {
            let all: Vec<&str> = known.collect();
            match all.is_empty() {
                true => format!("add [{what}.{name}]"),
                false => format!("name one of {}, or add [{what}.{name}]", all.join(", ")),
            }
        }
    };
    section.document().reject(
        place,
        child(section.path(), key),
        format!("the {what} {name:?}, which does not exist"),
        format!("the name of a {what}"),
        fix,
    );
}
