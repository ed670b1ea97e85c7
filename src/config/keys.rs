//! Every key of `rollcall.toml`, once.
//!
//! This table is where the parser takes its defaults and its words from, what `rollcall
//! config --explain` prints, what the JSON Schema is built from, and what
//! `docs/configuration.md` is a copy of. They cannot disagree: a default is kept as the
//! text that an operator would write and goes through the same parser, and a test holds
//! the keys that the parser asks for against the keys that stand here.

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A table with fixed keys.
    Table,
    /// Any text that is not empty.
    Text,
    /// A text of which the operator chooses the characters within a rule.
    Name(&'static str),
    /// `true` or `false`.
    Boolean,
    /// A whole number within limits, both included.
    Integer(i64, i64),
    /// A number from 0 to 100.
    Percent,
    /// A number with a unit of time.
    Duration,
    /// A number with a unit of bytes.
    Size,
    /// A file or folder.
    Path,
    /// A list of files.
    Paths,
    /// An IP address with a port.
    Address,
    /// A reference to a credential.
    Secret,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list of texts, not empty, none twice.
    Texts,
    /// A program and its arguments.
    Command,
    /// One mapping rule: a column's name or a table.
    Rule,
    /// A fixed value of an attribute.
    Constant,
    /// A property of the Kafka client.
    Property,
}

impl Kind {
    /// What an operator has to write, to come after "expected".
    pub fn expected(self) -> String {
        match self {
            Kind::Table => "a table".into(),
            Kind::Text => "a text".into(),
            Kind::Name(rule) => rule.into(),
            Kind::Boolean => "true or false".into(),
            Kind::Integer(min, max) => format!("a whole number from {min} to {max}"),
            Kind::Percent => "a number from 0 to 100".into(),
            Kind::Duration => {
                "a duration: a whole number with one of the units ms, s, m, h, d".into()
            }
            Kind::Size => "a size: a whole number with one of the units B, KiB, MiB, GiB".into(),
            Kind::Path => "the path of a file or folder".into(),
            Kind::Paths => "a list of paths".into(),
            Kind::Address => "an IP address with a port".into(),
            Kind::Secret => {
                "a reference: { sealed = \"…\" }, { env = \"…\" } or { file = \"…\" }".into()
            }
            Kind::OneOf(words) => quoted_choice(words),
            Kind::Texts => "a list of texts, at least one, none twice".into(),
            Kind::Command => "a list of texts: a program and its arguments".into(),
            Kind::Rule => {
                "a column's name or a table with column, columns, expr or constant".into()
            }
            Kind::Constant => "a text, number, boolean, date or list of texts".into(),
            Kind::Property => "a text, number, boolean or a reference to a credential".into(),
        }
    }

    /// A word or two for a table of keys.
    pub fn label(self) -> String {
        match self {
            Kind::Table => "table".into(),
            Kind::Text | Kind::Name(_) => "text".into(),
            Kind::Boolean => "boolean".into(),
            Kind::Integer(min, max) => format!("integer {min}–{max}"),
            Kind::Percent => "percent".into(),
            Kind::Duration => "duration".into(),
            Kind::Size => "size".into(),
            Kind::Path => "path".into(),
            Kind::Paths => "list of paths".into(),
            Kind::Address => "address".into(),
            Kind::Secret => "secret reference".into(),
            Kind::OneOf(words) => words
                .iter()
                .map(|word| format!("\"{word}\""))
                .collect::<Vec<_>>()
                .join(" | "),
            Kind::Texts | Kind::Command => "list of texts".into(),
            Kind::Rule => "column name or rule".into(),
            Kind::Constant => "constant".into(),
            Kind::Property => "property".into(),
        }
    }
}

/// Words in quotes with "or" before the last.
fn quoted_choice(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// Whether a key has to be there, and what counts when it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It has to be there.
    Required,
    /// It may be left out, and then nothing takes its place.
    Optional,
    /// This text, as it would stand in the file, counts.
    Default(&'static str),
    /// What counts depends on other keys, as this sentence says.
    Depends(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its parts joined by dots; `*` stands for a name that the operator chooses.
    pub pattern: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// Whether it has to be there.
    pub presence: Presence,
    /// What it does, in one or two sentences.
    pub meaning: &'static str,
    /// A value as it would stand in the file.
    pub example: &'static str,
    /// The types of source or sink that have this key; empty when all have it.
    pub only: &'static [&'static str],
}

impl Key {
    /// The table that it is in; empty for the top of the file.
    pub fn table(&self) -> &'static str {
        self.pattern.rsplit_once('.').map_or("", |(above, _)| above)
    }

    /// The types that have it, to come after "only".
    pub fn only_in_words(&self) -> String {
        format!("type = {}", quoted_choice(self.only))
    }

    /// Whether a source or sink of this type has it.
    pub fn is_of(&self, kind: &str) -> bool {
        self.only.is_empty() || self.only.contains(&kind)
    }

    /// The part behind the last dot.
    pub fn leaf(&self) -> &'static str {
        self.pattern.rsplit('.').next().unwrap_or(self.pattern)
    }
}

/// The entry of a pattern.
pub(super) fn find(pattern: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.pattern == pattern)
}

/// The rule for the names of organizations.
pub(super) const ORGANIZATION_RULE: &str = "1 to 63 of the characters a-z, 0-9 and -";
/// The rule for the names of sources and sinks.
pub(super) const NAME_RULE: &str =
    "a name that begins with a letter and has at most 32 of the characters a-z, 0-9, - and _";
/// The rule for the names of custom attributes.
pub(super) const ATTRIBUTE_RULE: &str =
    "a name that begins with a letter and has at most 63 letters, digits and _";
/// The rule for slots.
pub(super) const SLOT_RULE: &str = "1 to 63 of the characters a-z, 0-9 and _";
/// The rule for tables.
pub(super) const TABLE_RULE: &str =
    "schema.table, either part in quotes where the server would want them";
/// The rule for hosts.
pub(super) const HOST_RULE: &str = "a host name, an IP address or the path of a Unix socket";
/// The rule for log levels.
pub(super) const LEVEL_RULE: &str =
    "a level (error, warn, info, debug, trace), or target=level pairs separated by commas";
/// The rule for schedules.
pub(super) const SCHEDULE_RULE: &str =
    "manual, hourly, daily HH:MM, continuous, or a cron expression of five fields";
/// The rule for time zones.
pub(super) const ZONE_RULE: &str = "the IANA name of a time zone";
/// The rule for brokers.
pub(super) const BROKER_RULE: &str = "a list of host:port, at least one, none twice";
/// The rule for Kafka topics.
pub(super) const TOPIC_RULE: &str = "1 to 249 of the characters a-z, A-Z, 0-9, ., _ and -";

const fn key(
    pattern: &'static str,
    kind: Kind,
    presence: Presence,
    example: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        pattern,
        kind,
        presence,
        meaning,
        example,
        only: &[],
    }
}

const fn postgres(
    pattern: &'static str,
    kind: Kind,
    presence: Presence,
    example: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        only: &["postgres"],
        ..key(pattern, kind, presence, example, meaning)
    }
}

const fn mysql(
    pattern: &'static str,
    kind: Kind,
    presence: Presence,
    example: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        only: &["mysql", "mariadb"],
        ..key(pattern, kind, presence, example, meaning)
    }
}

const fn kafka(
    pattern: &'static str,
    kind: Kind,
    presence: Presence,
    example: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        only: &["kafka"],
        ..key(pattern, kind, presence, example, meaning)
    }
}

const fn ndjson(
    pattern: &'static str,
    kind: Kind,
    presence: Presence,
    example: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        only: &["ndjson"],
        ..key(pattern, kind, presence, example, meaning)
    }
}

use Kind::{
    Address, Boolean, Command, Constant, Duration, Integer, Name, OneOf, Path, Paths, Percent,
    Property, Rule, Secret, Size, Table, Text, Texts,
};
use Presence::{Default, Depends, Optional, Required};

/// All keys, in the order in which they are explained.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("organization", Name(ORGANIZATION_RULE), Required, "\"acme\"",
        "The organization that every source, user and event belongs to. Sealed credentials are bound to it."),

    key("store", Table, Optional, "{ path = \"/var/lib/rollcall\" }", "The durable directory of users."),
    key("store.path", Path, Default("\"/var/lib/rollcall\""), "\"/var/lib/rollcall\"",
        "The folder of the store. The daemon's Unix socket, rollcall.sock, lies in it too."),
    key("store.outbox_retention", Duration, Default("\"7d\""), "\"7d\"",
        "How long delivered events can be read again with `rollcall events`."),
    key("store.outbox_max", Size, Default("\"4GiB\""), "\"4GiB\"",
        "The most that events may occupy; delivered ones are removed early to stay below it, undelivered ones never."),
    key("store.history_retention", Duration, Default("\"90d\""), "\"90d\"",
        "How long runs that ended, with the records that they name, and gaps and conflicts that were closed are kept."),

    key("api", Table, Optional, "{ listen = \"127.0.0.1:9180\" }", "What the daemon serves over TCP."),
    key("api.listen", Address, Optional, "\"127.0.0.1:9180\"",
        "Where /metrics, /livez and /readyz are served over TCP. Without it there is only the Unix socket."),

    key("token", Table, Optional, "{ ci = { secret = { env = \"ROLLCALL_TOKEN\" } } }",
        "Bearer tokens of programs, by name. With one, POST /v1/sources/<name>/sync is served over TCP too."),
    key("token.*", Table, Optional, "{ secret = { env = \"ROLLCALL_TOKEN\" } }", "One program. Its name is what logs say."),
    key("token.*.secret", Secret, Required, "{ env = \"ROLLCALL_TOKEN\" }",
        "The token itself, at least 20 characters. The daemon keeps its hash alone."),
    key("token.*.per_minute", Integer(1, 6_000), Default("60"), "6", "The most requests in a minute; those beyond are answered with 429."),

    key("log", Table, Optional, "{ level = \"info\" }", "What the daemon says on standard error."),
    key("log.format", OneOf(&["text", "json"]), Default("\"text\""), "\"json\"", "The form of a log line."),
    key("log.level", Name(LEVEL_RULE), Default("\"info\""), "\"info,rollcall_postgres=debug\"",
        "The least severe level that is logged, as a whole or for single parts."),

    key("vault", Table, Optional, "{ key_file = \"/etc/rollcall/key\" }",
        "The key that credentials in this file are sealed with. It is taken from ROLLCALL_KEY, else from key_file, else from the systemd credential rollcall.key; what else is there can open but not seal."),
    key("vault.key_file", Path, Optional, "\"/etc/rollcall/key\"",
        "A file with the key, made by `rollcall secret generate-key`; nobody but its owner may read it."),
    key("vault.previous_key_files", Paths, Optional, "[\"/etc/rollcall/key.old\"]",
        "Keys that still open credentials until `rollcall secret rotate` has sealed them again."),

    key("shutdown", Table, Optional, "{ grace = \"10s\" }", "How the daemon stops."),
    key("shutdown.grace", Duration, Default("\"10s\""), "\"10s\"",
        "How long a stop may take to finish what is under way. What is cut off is done again at the next start."),

    key("notify", Table, Optional, "{ command = [\"/usr/local/bin/page\", \"directory\"] }", "Who is told at once when something needs a person."),
    key("notify.command", Command, Optional, "[\"/usr/local/bin/page\", \"directory\"]",
        "A program with its arguments, called without a shell when a plan is opened, with the event as JSON on its standard input."),
    key("notify.timeout", Duration, Default("\"10s\""), "\"10s\"", "How long a call may take before it is killed."),

    key("attributes", Table, Optional, "{ badge = { type = \"text\" } }", "Custom attributes of users."),
    key("attributes.*", Table, Optional, "{ type = \"text\" }",
        "One custom attribute; in mappings its name is custom.<name>."),
    key("attributes.*.type", OneOf(&["text", "boolean", "integer", "decimal", "date", "timestamp", "list"]), Required, "\"text\"",
        "The type of its values; a list is a list of texts."),

    key("field", Table, Optional, "{ department = { authority = [\"hr\", \"crm\"] } }",
        "Whose value of an attribute counts, where several sources give one, or the identity side writes one."),
    key("field.*", Table, Optional, "{ mode = \"target_wins\" }",
        "The rules of one attribute. A value that is pinned (`rollcall users set --pin`) counts before all of them."),
    key("field.*.authority", Texts, Optional, "[\"hr\", \"crm\"]",
        "The sources that decide it, the first one first, also against what the identity side writes. The others follow in the order of the file."),
    key("field.*.mode", OneOf(&["source_wins", "target_wins", "most_recent", "if_empty", "on_create", "merge"]),
        Depends("\"merge\" for a list, else \"source_wins\""), "\"most_recent\"",
        "Who decides between the other sources and what the identity side writes. source_wins: what is written stays until a source changes its value. target_wins: it stays. most_recent: the newer one, by commit time or a trusted column; also between sources. if_empty: sources give a value only while there is none. on_create: only for a new user or a record that is linked. merge: all parts of a list count."),
    key("field.*.skew", Duration, Depends("\"2s\" for most_recent"), "\"5s\"",
        "How far clocks may differ: of two times that are closer than this, none counts as newer, and it is as with source_wins."),
    key("field.*.changed", Table, Optional, "{ hr = \"updated_at\" }",
        "For most_recent, by source: a column that says when a value was changed. It counts in place of the commit time, and in scans too."),
    key("field.*.changed.*", Text, Optional, "\"updated_at\"",
        "The column of one source: a time stamp, or a day. What has no time zone is read as UTC."),

    key("source", Table, Required, "{ hr = { type = \"postgres\" } }", "The databases that are followed, by name."),
    key("source.*", Table, Optional, "{ type = \"postgres\" }", "One followed table. The name is part of events and stays the same for good."),
    key("source.*.type", OneOf(&["postgres", "mysql", "mariadb"]), Required, "\"postgres\"", "What kind of database it is."),
    key("source.*.host", Name(HOST_RULE), Required, "\"db.example.com\"",
        "The server. A path that begins with / is its Unix socket: the folder of it for PostgreSQL, the socket itself for MySQL and MariaDB."),
    key("source.*.port", Integer(1, 65535), Depends("5432 for PostgreSQL, 3306 for MySQL and MariaDB"), "5432", "The server's port."),
    postgres("source.*.database", Text, Required, "\"hr\"", "The database. MySQL and MariaDB have it in front of the table's name."),
    key("source.*.user", Text, Required, "\"rollcall\"", "The role or account; it needs to read the table and the log. `rollcall check --script` prints the statements that grant it."),
    key("source.*.password", Secret, Optional, "{ env = \"HR_PASSWORD\" }",
        "Its password. Without one, the server has to trust the socket or the client certificate."),
    key("source.*.tls", Table, Optional, "{ mode = \"verify-full\", ca = \"/etc/rollcall/db-ca.pem\" }", "How the connection is protected."),
    key("source.*.tls.mode", OneOf(&["disable", "require", "verify-ca", "verify-full"]),
        Depends("\"verify-full\", or \"disable\" when the host is the loopback or a socket"), "\"verify-full\"",
        "disable: no TLS. require: TLS with any certificate. verify-ca: with one of the named authority. verify-full: and with the host's name."),
    key("source.*.tls.ca", Path, Depends("the system's authorities"), "\"/etc/rollcall/db-ca.pem\"", "The certificates of the authorities to trust (PEM)."),
    key("source.*.tls.cert", Path, Optional, "\"/etc/rollcall/client.pem\"", "A client certificate (PEM); needs key."),
    key("source.*.tls.key", Path, Optional, "\"/etc/rollcall/client.key\"", "The client certificate's key (PEM); needs cert."),
    key("source.*.table", Name(TABLE_RULE), Required, "\"public.employees\"", "The table to follow; of a partitioned table, the root. For MySQL and MariaDB it is database.table."),
    key("source.*.key", Texts, Depends("the table's primary key"), "[\"id\"]", "The columns that name a record."),
    postgres("source.*.slot", Name(SLOT_RULE), Depends("\"rollcall_<source>\""), "\"rollcall_hr\"", "The replication slot. No other program may use it."),
    postgres("source.*.publication", Text, Default("\"rollcall\""), "\"rollcall\"", "The publication that has the table."),
    mysql("source.*.server_id", Integer(1, 4_294_967_295), Depends("made from the names of organization and source"), "4711",
        "The id under which Rollcall reads the log as a replica. No other replica of the server may have it."),
    mysql("source.*.zero_dates", OneOf(&["null", "text"]), Default("\"null\""), "\"null\"",
        "What a date becomes that no calendar has, such as 0000-00-00. null: no value. text: as the server prints it."),
    key("source.*.redact", Texts, Optional, "[\"ssn\"]", "Columns whose values are never stored. Expressions can still compute with them."),
    key("source.*.related", Table, Optional, "{ dept = { table = \"public.departments\", on = { id = \"department_id\" } } }",
        "Further tables whose rows are joined to those of the source's own, by name. Rules use their columns as `dept.name`. A change of such a row reaches everybody whom it concerns."),
    key("source.*.related.*", Table, Optional, "{ table = \"public.departments\", on = { id = \"department_id\" } }",
        "One related table. The name is what rules call it."),
    key("source.*.related.*.table", Name(TABLE_RULE), Required, "\"public.departments\"", "The table. For MySQL and MariaDB it is database.table."),
    key("source.*.related.*.on", Table, Required, "{ id = \"department_id\" }",
        "What has to be equal for two rows to belong together: columns of the related table, each with a column of the source's own."),
    key("source.*.related.*.on.*", Text, Optional, "\"department_id\"", "The column of the source's table that the related one's column is equal to. Numbers are equal when they are the same number, texts when they are the same but for spaces at the end, also where a collation says otherwise. Null is equal to nothing."),
    key("source.*.related.*.many", Boolean, Default("false"), "true",
        "Whether any number of rows belong to one record, like assignments of roles: each column is a list then, in the order of the rows' keys. Otherwise one row does; should there be several, that with the lowest key counts, and `check` says when that may be."),
    key("source.*.related.*.key", Texts, Depends("the table's primary key"), "[\"id\"]", "The columns that name a row of the related table."),
    key("source.*.related.*.columns", Texts, Depends("the columns that rules use"), "[\"name\", \"cost_center\"]",
        "The columns that are kept. Whatever else a related row has is never stored."),
    key("source.*.scope", Text, Optional, "\"status != 'contractor'\"",
        "A CEL expression over columns: only records for which it is true are users. One that leaves the scope is a leaver."),
    key("source.*.match", Texts, Default("[\"email\"]"), "[\"employeeNumber\", \"email\"]",
        "The attributes by which a new record finds an existing user, tried in this order."),
    key("source.*.fingerprint", Texts, Default("[\"name.givenName\", \"name.familyName\", \"displayName\", \"email\"]"),
        "[\"name.givenName\", \"name.familyName\", \"email\", \"custom.birthDate\"]",
        "The attributes that tell a rehired person from another one who got the same key. Of the default, those that are mapped count."),
    key("source.*.leaver", Table, Optional, "{ action = \"deactivate\" }", "What happens to a user whose record is gone."),
    key("source.*.leaver.action", OneOf(&["deactivate", "ignore"]), Default("\"deactivate\""), "\"deactivate\"", "deactivate: the user becomes inactive when no record leads to it any more. ignore: the user stays."),
    key("source.*.leaver.deactivate_after", Duration, Default("\"0s\""), "\"7d\"",
        "The grace: so long a user whose record is deleted, absent or out of scope stays as it is. Then the record is looked for once more, and only if it is still gone the user becomes inactive. A mapped active = false has no grace."),
    key("source.*.leaver.delete_after", Duration, Optional, "\"30d\"",
        "So long after all its records are gone an inactive user is deleted: its values are erased, and others are told. Without it nobody is deleted. Of a user with records in several sources the longest counts, and a source without this key keeps it."),
    key("source.*.leaver.purge_after", Duration, Default("\"90d\""), "\"365d\"",
        "So long after a user was deleted its id is kept, with hashes of what its sources know people by: a record that comes back with the same person gets the same id. Then nothing is left."),
    key("source.*.limit", Table, Optional, "{ max_changes = 200, max_percent = 2 }",
        "How many people the source may take something away from before somebody has looked: deactivations, deleted and absent records, records that leave the scope, other identifiers, lost roles, and whatever a changed mapping changes. Beyond it they wait in a plan: `rollcall plan list`."),
    key("source.*.limit.max_changes", Integer(0, 1_000_000_000), Default("50"), "200", "More people than this are too many, in a scan or within the window."),
    key("source.*.limit.max_percent", Percent, Default("5"), "2", "A larger share of the source's active users than this is too many."),
    key("source.*.limit.floor", Integer(0, 1_000_000_000), Default("5"), "5", "So few are never too many."),
    key("source.*.limit.window", Duration, Default("\"24h\""), "\"24h\"", "How long an applied change counts."),
    key("source.*.limit.action", OneOf(&["stage", "off"]), Default("\"stage\""), "\"stage\"", "stage: what is too many waits for approval. off: there is no limit."),
    key("source.*.schedule", Table, Optional, "{ reconcile = \"daily 03:00\", time_zone = \"Europe/Berlin\" }", "When the source is read whole without anyone asking."),
    key("source.*.schedule.reconcile", Name(SCHEDULE_RULE), Default("\"manual\""), "\"daily 03:00\"",
        "manual: only when asked, or when a gap is open. hourly: at each full hour. daily: at this time. A cron expression: minute, hour, day of month, month, day of week. continuous: one behind the other. A time that was missed is caught up once."),
    key("source.*.schedule.time_zone", Name(ZONE_RULE), Default("\"UTC\""), "\"Europe/Berlin\"", "The time zone of these times, by its IANA name. Where the clock skips a time, the first instant behind it counts; where it repeats one, the first."),
    key("source.*.schedule.jitter", Duration, Default("\"0s\""), "\"10m\"", "A source begins late by up to so long, each by its own part, so that many do not begin at once."),
    key("source.*.poll", Table, Optional, "{ every = \"1m\" }",
        "How the table is read while its log cannot be: by reading it again and again."),
    key("source.*.poll.mode", OneOf(&["never", "when_needed", "always"]), Default("\"when_needed\""), "\"always\"",
        "when_needed: while the log cannot be read for a reason that an operator has to mend (a view, a missing right or setting, no free slot), until it can. always: the log is not asked for. never: such a source is refused."),
    key("source.*.poll.every", Duration, Default("\"5m\""), "\"1m\"", "How often the table is polled."),
    key("source.*.poll.change_column", Text, Optional, "\"updated_at\"",
        "A column that every insert and update raises: a number, date or time, best with an index. Polls then read only the rows that it names. Rows without a value are always read."),
    key("source.*.poll.full_every", Duration, Default("\"1d\""), "\"6h\"",
        "With a change column: how often every row is read all the same. Only this finds leavers, and changes that the column did not tell of; these are counted and reported."),
    key("source.*.poll.overlap", Duration, Default("\"5m\""), "\"30m\"",
        "With a change column: how long a change may take from when its column gets its value to its commit, and how far the clocks of its writers may differ."),
    key("source.*.proof", Table, Optional, "{ period = \"1d\", on_drift = \"repair\" }",
        "How the directory is compared with the source in the background, a slice at a time."),
    key("source.*.proof.mode", OneOf(&["rolling", "off"]), Default("\"rolling\""), "\"off\"",
        "rolling: one slice behind the other, from the first row to the last, over and over. off: only `rollcall verify` and reconciliations compare."),
    key("source.*.proof.period", Duration, Default("\"7d\""), "\"1d\"",
        "In so long everything is compared once, evenly spread. A small table is compared at once, once a period."),
    key("source.*.proof.on_drift", OneOf(&["report", "repair"]), Default("\"report\""), "\"repair\"",
        "report: records that differ are named by `rollcall status`, in the metrics and by the run. repair: they are read again and applied besides, within the source's limit."),
    key("source.*.change_stream", Table, Optional, "{ sink = \"events\", topic = \"hr.employees\" }",
        "Also publishes the raw changes of the table, in the Debezium envelope. Columns named in redact are left out."),
    key("source.*.change_stream.sink", Text, Required, "\"events\"", "The sink that gets them, by name."),
    key("source.*.change_stream.topic", Name(TOPIC_RULE), Depends("required for a kafka sink"), "\"hr.employees\"", "The topic."),
    key("source.*.batch", Table, Optional, "{ rows = 20000 }", "How much is taken at once."),
    key("source.*.batch.rows", Integer(1, 200_000), Default("500"), "20000", "A batch is closed at so many changes, with the transaction that they end in. It is stored whole or not at all, with the position behind it. So it is under load; a quiet log is taken in change by change. While what is behind it is busy, a batch grows, and a commit takes in several, up to ten times as many changes (at most 5000, if `rows` is not more than that itself); a transaction of half of that is never split. A limit stops what a commit takes away before any of it is applied, so smaller batches let more of a mass change pass before it is stopped. Of several sources that bring something, each takes at most 1000 changes at once."),
    key("source.*.batch.size", Size, Default("\"2MiB\""), "\"16MiB\"", "… or at so many bytes of log, whichever comes first."),
    key("source.*.batch.page_rows", Integer(1, 200_000), Default("10000"), "10000", "The most rows that one page of a scan reads; at most 2000 where there are several sources, and while the log brings changes, which wait for a page that is being applied. A page, too, is stored whole or not at all."),
    key("source.*.batch.page_size", Size, Default("\"4MiB\""), "\"16MiB\"", "The most bytes that one page of a scan reads."),
    key("source.*.connect_timeout", Duration, Default("\"10s\""), "\"10s\"", "How long a connection may take to be made."),
    key("source.*.retry_max", Duration, Default("\"60s\""), "\"60s\"", "The longest pause between two attempts while the server can't be reached."),
    key("source.*.quarantine_after", Duration, Default("\"15m\""), "\"1h\"",
        "A source that has failed for so long is quarantined: it is tried ten times more rarely, and at once by `rollcall sync SOURCE`."),
    key("source.*.map", Table, Required, "{ email = \"emp_email\" }", "How columns become attributes, one rule for each attribute."),
    key("source.*.map.*", Rule, Optional, "{ column = \"emp_email\" }",
        "The rule of one attribute: the name of a column, or a table with exactly one of column, columns, expr and constant."),
    key("source.*.map.*.column", Text, Optional, "\"job\"", "Takes a column's value."),
    key("source.*.map.*.columns", Texts, Optional, "[\"company\", \"manager_id\"]",
        "For an attribute that is another user (manager): the columns that hold the key of that user's record, one for each column of the key."),
    key("source.*.map.*.expr", Text, Optional, "\"first_name + ' ' + last_name\"", "Computes the value: a CEL expression over columns."),
    key("source.*.map.*.constant", Constant, Optional, "\"de-DE\"", "The same value for every record."),
    key("source.*.map.*.default", Constant, Optional, "\"Employee\"", "The value when the column or expression gives null."),
    key("source.*.map.*.strength", OneOf(&["always", "on_create", "if_empty"]), Default("\"always\""), "\"on_create\"",
        "always: the source's value counts. on_create: only for a new user. if_empty: only where the user has none."),
    key("source.*.map.*.on_null", OneOf(&["clear", "keep", "default"]), Depends("\"default\" with a default, else \"clear\""), "\"keep\"",
        "What null does: clear the attribute, keep what is there, or set the default."),
    key("source.*.map.*.split", Text, Optional, "\",\"", "Splits a text into the values of a multi-valued attribute."),

    key("sink", Table, Optional, "{ log = { type = \"ndjson\" } }", "Where events go, by name. Each sink has a position of its own."),
    key("sink.*", Table, Optional, "{ type = \"ndjson\" }", "One destination. A sink that is down holds back nothing else."),
    key("sink.*.type", OneOf(&["kafka", "ndjson"]), Required, "\"kafka\"", "What kind of destination it is."),
    kafka("sink.*.brokers", Name(BROKER_RULE), Required, "[\"kafka-1.example.com:9092\"]", "The brokers to begin with."),
    kafka("sink.*.topic", Name(TOPIC_RULE), Default("\"rollcall.identity\""), "\"rollcall.identity\"", "The topic of identity events."),
    kafka("sink.*.cursors_topic", Name(TOPIC_RULE), Default("\"rollcall.cursors\""), "\"rollcall.cursors\"", "The compacted topic with the position that each transaction reached."),
    kafka("sink.*.delivery", OneOf(&["exactly_once", "at_least_once"]), Default("\"exactly_once\""), "\"exactly_once\"",
        "exactly_once: transactions; consumers read with read_committed. at_least_once: an idempotent producer, with less latency."),
    kafka("sink.*.create_topics", Boolean, Default("true"), "false", "Whether missing topics are made; otherwise they are only checked."),
    kafka("sink.*.partitions", Integer(1, 10_000), Depends("the broker's own default"), "6", "The partitions of a topic that is made."),
    kafka("sink.*.replication", Integer(1, 32), Depends("the broker's own default"), "3", "The copies of a topic that is made."),
    kafka("sink.*.transactional_id", Text, Depends("\"rollcall.<organization>.<sink>\""), "\"rollcall.acme.events\"",
        "The producer's identity. A second daemon with the same one fences the first."),
    kafka("sink.*.transaction_timeout", Duration, Default("\"60s\""), "\"60s\"", "When the broker gives up a transaction that nobody ends."),
    kafka("sink.*.tls", Table, Optional, "{ mode = \"verify-full\", ca = \"/etc/rollcall/kafka-ca.pem\" }", "How the connections are protected."),
    kafka("sink.*.tls.mode", OneOf(&["disable", "require", "verify-ca", "verify-full"]),
        Depends("\"verify-full\", or \"disable\" when every broker is on the loopback"), "\"verify-full\"",
        "disable: no TLS. require: TLS with any certificate. verify-ca: with one of the named authority. verify-full: and with the broker's name."),
    kafka("sink.*.tls.ca", Path, Depends("the system's authorities"), "\"/etc/rollcall/kafka-ca.pem\"", "The certificates of the authorities to trust (PEM)."),
    kafka("sink.*.tls.cert", Path, Optional, "\"/etc/rollcall/client.pem\"", "A client certificate (PEM); needs key."),
    kafka("sink.*.tls.key", Path, Optional, "\"/etc/rollcall/client.key\"", "The client certificate's key (PEM); needs cert."),
    kafka("sink.*.tls.key_password", Secret, Optional, "{ env = \"KAFKA_KEY_PASSWORD\" }", "The password of an encrypted key; needs key."),
    kafka("sink.*.sasl", Table, Optional, "{ mechanism = \"SCRAM-SHA-512\", username = \"rollcall\", password = { env = \"KAFKA_PASSWORD\" } }", "How Rollcall logs in."),
    kafka("sink.*.sasl.mechanism", OneOf(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]), Required, "\"SCRAM-SHA-512\"", "The mechanism."),
    kafka("sink.*.sasl.username", Text, Depends("required but for OAUTHBEARER"), "\"rollcall\"", "The user."),
    kafka("sink.*.sasl.password", Secret, Depends("required but for OAUTHBEARER"), "{ env = \"KAFKA_PASSWORD\" }", "The user's password."),
    kafka("sink.*.sasl.token_file", Path, Depends("required for OAUTHBEARER"), "\"/run/rollcall/kafka-token\"", "A file with the bearer token, kept fresh by something else; read again for each refresh."),
    kafka("sink.*.properties", Table, Optional, "{ \"linger.ms\" = 0 }", "Properties of librdkafka, handed on as they are."),
    kafka("sink.*.properties.*", Property, Optional, "\"0\"", "One property. Those that Rollcall sets itself are refused; those that are credentials take a reference."),
    ndjson("sink.*.path", Path, Default("\"-\""), "\"/var/log/rollcall/events.ndjson\"", "The file, or - for standard output."),
    ndjson("sink.*.rotate_size", Size, Depends("\"100MiB\" for a file"), "\"100MiB\"", "The size at which a new file is begun."),
    ndjson("sink.*.rotate_keep", Integer(1, 10_000), Depends("10 for a file"), "10", "How many full files are kept."),
];
