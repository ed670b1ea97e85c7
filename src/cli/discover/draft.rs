//! A configuration to begin with, for one table that was found.
//!
//! It is commented, and its mapping is a guess from the names of the columns, each with the
//! reason for it.

use std::fmt::Write as _;

use rollcall_contract::DiscoveredTable;
use rollcall_core::mapping::RuleKind;
use rollcall_core::mapping::guess::guess;

use super::place::{self, Place};
use crate::config::SourceType;

/// Writes it.
pub(super) fn draft(table: &DiscoveredTable, place: &Place) -> String {
    let guess = guess(&table.schema);
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut out = String::new();
    // What a column is called must not end a comment.
    let remark = |text: &str| text.replace(char::is_control, " ");
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "# A configuration to begin with. `rollcall config --explain` explains every key,\n\
         # `rollcall check` says what is missing, `rollcall preview` shows what rows become.\n\
         organization = \"acme\"                # change me: lower-case letters, digits, hyphens\n\n\
         [store]\npath = \"/var/lib/rollcall\"\n\n\
         [source.hr]\ntype = \"{}\"\n",
        place.kind.as_str()
    );
    let server = &place.server;
    let _ = writeln!(
        out,
        "host = {}\nport = {}",
        quoted(&server.host.to_string()),
        server.port
    );
    if let (SourceType::Postgres, Some(database)) = (place.kind, &place.database) {
        let _ = writeln!(out, "database = {}", quoted(database));
    }
    let _ = writeln!(
        out,
        "user = {}\npassword = {{ env = \"{}\" }}   # or {{ sealed = … }}: see `rollcall secret seal`",
        quoted(&server.user),
        place::password_variable(place.kind)
    );
    let name = place.kind.naming().write(&table.schema.table);
    let _ = writeln!(out, "table = {}", quoted(&name));
    let key: Vec<String> = table
        .schema
        .key
        .iter()
        .map(|&i| quoted(&table.schema.columns[i].name))
        .collect();
    if key.is_empty() {
        let _ = writeln!(
            out,
            "# key = [\"…\"]                      # this table has no primary key: name what identifies a record"
        );
    } else {
        let _ = writeln!(out, "key = [{}]", key.join(", "));
    }
    if let Some(obstacle) = &table.obstacle {
        let _ = writeln!(
            out,
            "# It cannot be followed yet, and is polled: {}",
            remark(obstacle)
        );
    }
    if !guess.redact.is_empty() {
        let columns: Vec<String> = guess.redact.iter().map(|c| quoted(c)).collect();
        let _ = writeln!(
            out,
            "redact = [{}]                 # never stored",
            columns.join(", ")
        );
    }
    let _ = writeln!(
        out,
        "# scope = \"status != 'contractor'\"     # which records are users; all by default"
    );
    let _ = writeln!(
        out,
        "\n[source.hr.map]                    # guessed from the names of the columns"
    );
    for guessed in &guess.rules {
        let rule = &guessed.rule;
        let name = if rule.attribute.starts_with("custom.") || !rule.attribute.contains('.') {
            rule.attribute.clone()
        } else {
            quoted(&rule.attribute)
        };
        let column = |c: &str| match &rule.split {
            Some(split) => format!("{{ column = {}, split = {} }}", quoted(c), quoted(split)),
            None => quoted(c),
        };
        let value = match &rule.kind {
            RuleKind::Column(c) => column(c),
            RuleKind::Expr(e) => format!("{{ expr = {} }}", quoted(e)),
            RuleKind::Columns(_) | RuleKind::Constant(_) => continue,
        };
        let _ = writeln!(out, "{name} = {value}   # {}", remark(&guessed.because));
    }
    for (column, why) in &guess.unused {
        let _ = writeln!(out, "# {}: {}", remark(column), remark(why));
    }
    for text in &guess.remarks {
        let _ = writeln!(out, "# {}", remark(text));
    }
    let _ = writeln!(
        out,
        "\n[sink.log]                         # events as lines of JSON\ntype = \"ndjson\"\npath = \"-\""
    );
    out
}
