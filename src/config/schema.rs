//! The JSON Schema of the file, built from the table of keys.
//!
//! Editors that know TOML and JSON Schema complete and check with it while typing. It
//! accepts everything that the parser accepts; the parser is stricter where keys depend
//! on one another.

use serde_json::{Map, Value, json};

use super::keys::{KEYS, Key, Kind, Presence};
use super::mapping::GROUPS;

/// A schema of draft 2020-12.
pub fn json_schema() -> Value {
    let mut schema = table("");
    schema.insert(
        "$schema".into(),
        "https://json-schema.org/draft/2020-12/schema".into(),
    );
    schema.insert("title".into(), "rollcall.toml".into());
    schema.insert(
        "$defs".into(),
        json!({
            "secret": {
                "description": "A reference to a credential; plain text is refused.",
                "oneOf": [reference("sealed"), reference("env"), reference("file")],
            },
            "constant": { "anyOf": [
                { "type": ["string", "number", "boolean"] },
                { "type": "array", "items": { "type": "string" } },
            ] },
        }),
    );
    Value::Object(schema)
}

fn reference(key: &str) -> Value {
    json!({
        "type": "object",
        "properties": { key: { "type": "string", "minLength": 1 } },
        "required": [key],
        "additionalProperties": false,
    })
}

/// The schema of a table from the keys right below it.
fn table(pattern: &str) -> Map<String, Value> {
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    let children: Vec<&Key> = KEYS.iter().filter(|key| key.table() == pattern).collect();
    if let [any] = children.as_slice()
        && any.leaf() == "*"
    {
        schema.insert("properties".into(), Value::Object(groups(any)));
        schema.insert("additionalProperties".into(), Value::Object(entry(any)));
        return schema;
    }
    let properties: Map<String, Value> = children
        .iter()
        .map(|key| (key.leaf().to_owned(), Value::Object(entry(key))))
        .collect();
    schema.insert("properties".into(), Value::Object(properties));
    schema.insert("additionalProperties".into(), false.into());
    let required = |of: &dyn Fn(&Key) -> bool| -> Vec<&str> {
        children
            .iter()
            .filter(|key| key.presence == Presence::Required && of(key))
            .map(|key| key.leaf())
            .collect()
    };
    let always = required(&|key| key.only.is_empty());
    if !always.is_empty() {
        schema.insert("required".into(), json!(always));
    }
    let kinds = children.iter().find(|key| key.leaf() == "type");
    if let Some(Kind::OneOf(kinds)) = kinds.map(|key| key.kind) {
        let rules: Vec<Value> = kinds
            .iter()
            .map(|kind| {
                let others: Map<String, Value> = children
                    .iter()
                    .filter(|key| !key.is_of(kind))
                    .map(|key| (key.leaf().to_owned(), false.into()))
                    .collect();
                json!({
                    "if": { "properties": { "type": { "const": kind } }, "required": ["type"] },
                    "then": { "required": required(&|key| key.only.contains(kind)), "properties": others },
                })
            })
            .collect();
        schema.insert("allOf".into(), rules.into());
    }
    schema
}

/// Parts of names that stand there as tables: `name.givenName` without quotes is one.
fn groups(any: &Key) -> Map<String, Value> {
    if !matches!(any.kind, Kind::Rule) && any.table() != "field" {
        return Map::new();
    }
    GROUPS
        .iter()
        .map(|group| {
            let parts = json!({ "type": "object", "additionalProperties": entry(any) });
            ((*group).to_owned(), parts)
        })
        .collect()
}

fn entry(key: &Key) -> Map<String, Value> {
    let mut schema = match key.kind {
        Kind::Table => table(key.pattern),
        Kind::Rule => object(json!({ "anyOf": [
            { "type": "string", "minLength": 1 },
            table(key.pattern),
        ] })),
        kind => object(scalar(kind)),
    };
    schema.insert("description".into(), key.meaning.into());
    if let Presence::Default(text) = key.presence
        && let Some(value) = from_toml(text)
    {
        schema.insert("default".into(), value);
    }
    if let Some(value) = from_toml(key.example) {
        schema.insert("examples".into(), json!([value]));
    }
    schema
}

fn scalar(kind: Kind) -> Value {
    match kind {
        Kind::Table | Kind::Rule => json!({ "type": "object" }),
        // The one list that has a rule for its texts.
        Kind::Name(super::keys::BROKER_RULE) | Kind::Texts => json!({
            "type": "array",
            "items": { "type": "string", "minLength": 1 },
            "minItems": 1,
            "uniqueItems": true,
        }),
        Kind::Command => json!({
            "type": "array",
            "items": { "type": "string" },
            "minItems": 1,
        }),
        Kind::Text | Kind::Name(_) | Kind::Path | Kind::Address => {
            json!({ "type": "string", "minLength": 1 })
        }
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Integer(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Percent => json!({ "type": "number", "minimum": 0, "maximum": 100 }),
        Kind::Duration => json!({ "type": "string", "pattern": "^[0-9]+ *(ms|s|m|h|d)$" }),
        Kind::Size => json!({ "type": "string", "pattern": "^[0-9]+ *(B|KiB|MiB|GiB)$" }),
        Kind::Paths => json!({ "type": "array", "items": { "type": "string", "minLength": 1 } }),
        Kind::Secret => json!({ "$ref": "#/$defs/secret" }),
        Kind::OneOf(words) => json!({ "enum": words }),
        Kind::Constant => json!({ "$ref": "#/$defs/constant" }),
        // An object: a reference to a credential, or a part of a name with dots.
        Kind::Property => json!({ "type": ["string", "number", "boolean", "object"] }),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn from_toml(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    serde_json::to_value(table.get("value")?).ok()
}
