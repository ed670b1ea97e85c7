//! The two sides of every promise: the fold of the events, and the mapping of `SELECT *`,
//! written here once more by hand.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde_json::{Map, Value, json};
use unicode_normalization::UnicodeNormalization as _;

/// Active users by employee number.
pub(crate) type People = BTreeMap<String, Value>;

/// The mapping of `SELECT *`, for people whose addresses are all different.
pub(crate) fn expected(rows: &[Value]) -> People {
    rows.iter()
        .filter(|row| row["kind"] != "contractor")
        .map(|row| (row["id"].to_string(), user_of(row)))
        .collect()
}

fn user_of(row: &Value) -> Value {
    let text =
        |column: &str| -> Option<String> { row[column].as_str().map(|text| text.nfc().collect()) };
    let mut user = Map::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            user.insert(name.to_owned(), Value::String(value));
        }
    };
    put("employeeNumber", Some(row["id"].to_string()));
    let names = [text("first_name"), text("last_name")];
    let names: Vec<String> = names
        .into_iter()
        .flatten()
        .filter(|n| !n.is_empty())
        .collect();
    put(
        "displayName",
        Some(names.join(" ")).filter(|n| !n.is_empty()),
    );
    put("title", text("job_title").or(Some("Employee".to_owned())));
    let engineer = row["department"] == "Engineering";
    put(
        "userType",
        Some(if engineer { "developer" } else { "user" }.to_owned()),
    );
    put(
        "email",
        text("email")
            .map(|e| e.trim().to_owned())
            .filter(|e| !e.is_empty()),
    );
    put("department", text("department"));
    let mut name = Map::new();
    for (attribute, column) in [("givenName", "first_name"), ("familyName", "last_name")] {
        if let Some(value) = text(column) {
            name.insert(attribute.to_owned(), Value::String(value));
        }
    }
    if !name.is_empty() {
        user.insert("name".to_owned(), Value::Object(name));
    }
    let roles: BTreeSet<String> = text("roles")
        .unwrap_or_default()
        .split(',')
        .map(|role| role.trim().to_owned())
        .filter(|role| !role.is_empty())
        .collect();
    if !roles.is_empty() {
        user.insert("roles".to_owned(), json!(roles));
    }
    let mut custom = Map::new();
    if let Some(note) = text("note") {
        custom.insert("note".to_owned(), Value::String(note));
    }
    if let Some(level) = text("level").and_then(|level| level.parse::<i64>().ok()) {
        custom.insert("level".to_owned(), json!(level));
    }
    if !custom.is_empty() {
        user.insert("custom".to_owned(), Value::Object(custom));
    }
    user.insert("active".to_owned(), Value::Bool(true));
    Value::Object(user)
}

/// Events from one place.
#[derive(Default)]
pub(crate) struct Events {
    /// In the order of their sequence; repeated ones once.
    pub(crate) by_sequence: BTreeMap<u64, Value>,
    /// How often each id came.
    pub(crate) ids: HashMap<String, usize>,
}

impl Events {
    /// Adds an event in the structured form of CloudEvents.
    pub(crate) fn add(&mut self, event: Value) {
        let id = event["id"].as_str().expect("an event has an id").to_owned();
        let sequence = event["sequence"].as_str().expect("an event has a sequence");
        let sequence = sequence.parse().expect("a sequence is a number");
        *self.ids.entry(id.clone()).or_default() += 1;
        if let Some(before) = self.by_sequence.insert(sequence, event) {
            assert_eq!(
                before["id"], id,
                "sequence {sequence} belongs to two events"
            );
        }
    }

    /// The events of an NDJSON file and of those that were rotated away from it. As many
    /// lines as there were crashes may be cut.
    pub(crate) fn of_files(path: &Path, crashes: usize) -> Events {
        let mut events = Events::default();
        let mut cut = 0;
        let folder = path.parent().unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if !entry.file_name().to_str().unwrap().starts_with(name) {
                continue;
            }
            for line in std::fs::read(entry.path()).unwrap().split(|b| *b == b'\n') {
                match serde_json::from_slice(line) {
                    Ok(event) => events.add(event),
                    Err(_) => cut += usize::from(!line.is_empty()),
                }
            }
        }
        assert!(
            cut <= crashes,
            "{cut} lines are cut after {crashes} crashes"
        );
        events
    }

    /// Sequences are 1, 2, 3, … without a hole, and no event has two of them.
    pub(crate) fn assert_whole(&self) {
        for (wanted, found) in (1..).zip(self.by_sequence.keys()) {
            assert_eq!(
                wanted, *found,
                "the event with sequence {wanted} is missing"
            );
        }
        assert_eq!(
            self.ids.len(),
            self.by_sequence.len(),
            "an event has two sequences"
        );
    }

    /// No event came twice.
    pub(crate) fn assert_once(&self) {
        let twice: Vec<_> = self.ids.iter().filter(|(_, n)| **n > 1).collect();
        assert!(
            twice.is_empty(),
            "{} events came more than once: {twice:?}",
            twice.len()
        );
    }

    /// Active users after all events.
    pub(crate) fn fold(&self) -> People {
        let mut users: HashMap<&str, &Value> = HashMap::new();
        for event in self.by_sequence.values() {
            let user = &event["data"]["user"];
            if let Some(id) = user["id"].as_str() {
                users.insert(id, user);
            }
            if event["type"] == "io.rollcall.user.deleted.v1" {
                users.remove(event["data"]["id"].as_str().unwrap());
            }
        }
        let mut people = People::new();
        for user in users.into_values().filter(|user| user["active"] == true) {
            let mut user = user.clone();
            user.as_object_mut().unwrap().remove("id");
            let number = user["employeeNumber"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            assert!(
                people.insert(number.clone(), user).is_none(),
                "two active users have the employee number {number}"
            );
        }
        people
    }

    /// All events, in the order of their sequences.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = &Value> {
        self.by_sequence.values()
    }

    /// Events of a type, named without `io.rollcall.` and `.v1`.
    pub(crate) fn of_type(&self, name: &str) -> Vec<&Value> {
        let name = format!("io.rollcall.{name}.v1");
        self.by_sequence
            .values()
            .filter(|e| e["type"] == name)
            .collect()
    }

    /// The reasons of all gaps, in order.
    pub(crate) fn gaps(&self) -> Vec<String> {
        self.of_type("source.gap")
            .iter()
            .map(|e| e["data"]["reason"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The id of the user that an employee number belongs to, active or not.
    pub(crate) fn user_id(&self, number: u64) -> Option<String> {
        let number = number.to_string();
        let mut found = None;
        for event in self.by_sequence.values() {
            let user = &event["data"]["user"];
            if user["employeeNumber"] == number {
                found = user["id"].as_str().map(str::to_owned);
            }
        }
        found
    }
}

/// Both are the same; if not, says who differs, and in what.
pub(crate) fn assert_same(found: &People, wanted: &People) {
    let mut differing = Vec::new();
    for (number, user) in wanted {
        match found.get(number) {
            None => differing.push(format!("{number} is missing")),
            Some(other) if other != user => {
                let fields: BTreeSet<&String> = [user, other]
                    .iter()
                    .flat_map(|v| v.as_object().unwrap().keys())
                    .filter(|name| user[name.as_str()] != other[name.as_str()])
                    .collect();
                differing.push(format!("{number} differs in {fields:?}"));
            }
            Some(_) => {}
        }
    }
    for number in found.keys().filter(|number| !wanted.contains_key(*number)) {
        differing.push(format!("{number} is active and not in the table"));
    }
    let n = differing.len();
    differing.truncate(8);
    assert!(n == 0, "{n} people differ: {differing:#?}");
}
