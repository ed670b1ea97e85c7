//! The proof that does not lean on the daemon: what the mapping, written here once more by
//! hand, makes of the table on one side, the fold of all events on the other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rollcall_testbed::Kafka;
use serde_json::{Value, json};
use unicode_normalization::UnicodeNormalization as _;

use crate::{PATIENCE, Result, daemon};

/// Users by employee number.
pub(crate) type People = BTreeMap<String, Value>;

/// What the directory has to be, from the table alone.
pub(crate) fn expected(rows: &[Value]) -> People {
    rows.iter()
        .filter(|row| row["employment_type"] != "contractor")
        .map(|row| (row["id"].to_string(), user_of(row)))
        .collect()
}

/// The mapping of the configuration once more, written by hand.
fn user_of(row: &Value) -> Value {
    let text =
        |column: &str| -> Option<String> { row[column].as_str().map(|text| text.nfc().collect()) };
    let [first, last] = ["first_name", "last_name"].map(text);
    let display: Vec<&str> = [&first, &last]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let roles: BTreeSet<String> = text("roles")
        .unwrap_or_default()
        .split(',')
        .map(|role| role.trim().to_owned())
        .filter(|role| !role.is_empty())
        .collect();
    let email = text("email").map(|email| email.trim().to_owned());
    let engineer = row["department"] == "Engineering";
    let mut user = json!({
        "employeeNumber": row["id"].to_string(),
        "name": present(json!({ "givenName": first, "familyName": last })),
        "displayName": display.join(" "),
        "title": text("job_title").unwrap_or_else(|| "Employee".to_owned()),
        "userType": if engineer { "developer" } else { "user" },
        "active": true,
        "email": email.filter(|email| !email.is_empty()),
        "phoneNumber": row["phone"],
        "department": text("department"),
        "custom": present(json!({ "hiredOn": row["hired_on"], "note": text("notes") })),
    });
    if !roles.is_empty() {
        user["roles"] = json!(roles);
    }
    present(user)
}

/// An object without what is null; null when nothing is left.
fn present(value: Value) -> Value {
    match value {
        Value::Object(mut fields) => {
            fields.retain(|_, value| !value.is_null());
            match fields.is_empty() {
                true => Value::Null,
                false => Value::Object(fields),
            }
        }
        other => other,
    }
}

fn number(user: &Value) -> String {
    user["employeeNumber"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Events from one place, in the order of their sequence.
pub(crate) struct Events {
    /// How many were read, repeated ones included.
    pub(crate) lines: usize,
    by_sequence: BTreeMap<u64, Value>,
    ids: HashMap<String, usize>,
}

impl Events {
    fn new() -> Events {
        Events {
            lines: 0,
            by_sequence: BTreeMap::new(),
            ids: HashMap::new(),
        }
    }

    fn add(&mut self, id: &str, sequence: &str, event: Value) -> Result<()> {
        self.lines += 1;
        let sequence = sequence
            .parse()
            .map_err(|_| format!("the event {id} has no sequence"))?;
        *self.ids.entry(id.to_owned()).or_default() += 1;
        if let Some(before) = self.by_sequence.insert(sequence, event.clone())
            && before["id"] != event["id"]
        {
            return Err(format!("sequence {sequence} was given to two events").into());
        }
        Ok(())
    }

    /// How many different events there are.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The events of an NDJSON file. Lines may be repeated after a crash, and one may be cut.
    pub(crate) fn of_file(path: &Path) -> Result<Events> {
        let mut events = Events::new();
        let mut cut = 0;
        for line in daemon::read(path)?.split(|b| *b == b'\n') {
            let Ok(event) = serde_json::from_slice::<Value>(line) else {
                cut += usize::from(!line.is_empty());
                continue;
            };
            let id = event["id"].as_str().unwrap_or_default().to_owned();
            let sequence = event["sequence"].as_str().unwrap_or_default().to_owned();
            events.add(&id, &sequence, event)?;
        }
        if cut > 1 {
            return Err(format!("{cut} lines are no JSON; one crash can cut one").into());
        }
        Ok(events)
    }

    /// The events of a topic as a `read_committed` consumer sees them.
    pub(crate) fn of_topic(kafka: &Kafka, topic: &str) -> Result<Events> {
        const TURN: Duration = Duration::from_secs(20);
        let consumer = |isolation: &str| {
            ClientConfig::new()
                .set("bootstrap.servers", kafka.bootstrap())
                .set("group.id", "demo")
                .set("isolation.level", isolation)
                .set("enable.auto.commit", "false")
                .set("enable.partition.eof", "true")
                .create::<BaseConsumer>()
        };
        let (committed, all) = (consumer("read_committed")?, consumer("read_uncommitted")?);
        let metadata = committed.fetch_metadata(Some(topic), TURN)?;
        let mut assignment = TopicPartitionList::new();
        let mut open = HashSet::new();
        let began = Instant::now();
        for partition in metadata.topics().iter().flat_map(|t| t.partitions()) {
            let id = partition.id();
            // A commit is answered before its markers are in every partition.
            while committed.fetch_watermarks(topic, id, TURN)?.1
                < all.fetch_watermarks(topic, id, TURN)?.1
            {
                if began.elapsed() > PATIENCE {
                    return Err(format!("a transaction stays open in the topic {topic}").into());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            assignment.add_partition_offset(topic, id, Offset::Beginning)?;
            open.insert(id);
        }
        committed.assign(&assignment)?;
        let mut events = Events::new();
        while !open.is_empty() {
            if began.elapsed() > PATIENCE {
                return Err(format!("the topic {topic} could not be read to its end").into());
            }
            let message = match committed.poll(Duration::from_millis(200)) {
                None => continue,
                // It can come again when a partition grows.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                    continue;
                }
                Some(message) => message?,
            };
            let mut event = serde_json::Map::new();
            for header in message.headers().iter().flat_map(|h| h.iter()) {
                let name = header.key.strip_prefix("ce_").unwrap_or(header.key);
                let value = String::from_utf8_lossy(header.value.unwrap_or_default());
                event.insert(name.to_owned(), Value::String(value.into_owned()));
            }
            let body = message.payload().unwrap_or(b"null");
            event.insert("data".to_owned(), serde_json::from_slice(body)?);
            let event = Value::Object(event);
            let id = event["id"].as_str().unwrap_or_default().to_owned();
            let sequence = event["sequence"].as_str().unwrap_or_default().to_owned();
            events.add(&id, &sequence, event)?;
        }
        Ok(events)
    }

    /// Every sequence from 1 on is there, and no id has two of them.
    pub(crate) fn check_sequences(&self) -> Result<()> {
        for (wanted, found) in (1..).zip(self.by_sequence.keys()) {
            if wanted != *found {
                return Err(format!("the event with sequence {wanted} is missing").into());
            }
        }
        if self.ids.len() != self.by_sequence.len() {
            return Err("an event has two sequences".into());
        }
        Ok(())
    }

    /// Exactly once: nothing is repeated.
    pub(crate) fn no_id_twice(&self) -> Result<()> {
        match self.ids.iter().find(|(_, times)| **times > 1) {
            Some((id, times)) => Err(format!("the event {id} came {times} times").into()),
            None => Ok(()),
        }
    }

    /// The same events came to two places.
    pub(crate) fn same_ids(&self, other: &Events) -> Result<()> {
        let mine: HashSet<&String> = self.ids.keys().collect();
        let theirs: HashSet<&String> = other.ids.keys().collect();
        match mine.symmetric_difference(&theirs).count() {
            0 => Ok(()),
            n => Err(format!("{n} events came to one sink and not to the other").into()),
        }
    }

    /// Who is active after all events, by employee number.
    pub(crate) fn fold(&self) -> Result<People> {
        let mut users: HashMap<String, Value> = HashMap::new();
        for event in self.by_sequence.values() {
            let user = &event["data"]["user"];
            if let Some(id) = user["id"].as_str() {
                users.insert(id.to_owned(), user.clone());
            }
        }
        let mut people = People::new();
        for (id, mut user) in users {
            if user["active"] != true {
                continue;
            }
            if let Some(fields) = user.as_object_mut() {
                fields.remove("id");
            }
            if people.insert(number(&user), user).is_some() {
                return Err(format!("the user {id} has the employee number of another").into());
            }
        }
        Ok(people)
    }
}

/// Both are the same; gives how many users that is.
pub(crate) fn compare(wanted: &People, found: &People) -> Result<usize> {
    let mut differing: Vec<String> = Vec::new();
    for (number, user) in wanted {
        match found.get(number) {
            None => differing.push(format!("{number} is missing")),
            Some(other) if other != user => differing.push(format!(
                "{number} differs in {}",
                fields(user, other).join(", ")
            )),
            Some(_) => {}
        }
    }
    for number in found.keys().filter(|n| !wanted.contains_key(*n)) {
        differing.push(format!("{number} is active and not in the table"));
    }
    if differing.is_empty() {
        return Ok(wanted.len());
    }
    let shown = differing.iter().take(5).cloned().collect::<Vec<_>>();
    Err(format!(
        "the fold of the events is not the table: {} people differ: {}",
        differing.len(),
        shown.join("; ")
    )
    .into())
}

fn fields(a: &Value, b: &Value) -> Vec<String> {
    let names: HashSet<&String> = [a, b]
        .iter()
        .filter_map(|v| v.as_object())
        .flat_map(|o| o.keys())
        .collect();
    let mut names: Vec<String> = names
        .into_iter()
        .filter(|name| a[name.as_str()] != b[name.as_str()])
        .cloned()
        .collect();
    names.sort();
    names
}

/// How many attributes were compared.
pub(crate) fn values(people: &People) -> usize {
    fn leaves(value: &Value) -> usize {
        value
            .as_object()
            .map_or(1, |fields| fields.values().map(leaves).sum())
    }
    people.values().map(leaves).sum()
}
