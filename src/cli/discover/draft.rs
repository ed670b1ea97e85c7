//! A configuration to begin with, for one table that was found.
//!
//! It is commented, and its mapping is a guess from the names of the columns, each with the
//! reason for it.

use std::fmt::Write as _;

use rollcall_contract::{Class, DiscoveredTable};
use rollcall_core::mapping::RuleKind;
use rollcall_core::mapping::guess::guess;

use super::place::{self, Place};
use crate::config::SourceType;

/// A configuration that can be read, whatever the columns are called.
pub(super) struct Draft {
    /// The file.
    pub(super) text: String,
    /// What a person has to fill in, because no column's name told it.
    pub(super) fill_in: Option<String>,
}

/// What records are matched by, best first; by the first one when the configuration names none.
const MATCHED: [&str; 3] = ["email", "userName", "employeeNumber"];

/// A column that stands in where no other one was recognised: of the key, else any that reads
/// as text.
fn stand_in<'t>(table: &'t DiscoveredTable, redact: &[String]) -> Option<&'t str> {
    let columns = &table.schema.columns;
    let key = table.schema.key.iter().filter_map(|&at| columns.get(at));
    key.chain(columns)
        .find(|c| {
            !matches!(c.class, Class::Json | Class::Bytes | Class::List)
                && !redact.contains(&c.name)
        })
        .map(|c| c.name.as_str())
}

/// Writes it.
pub(super) fn draft(table: &DiscoveredTable, place: &Place) -> Draft {
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
    let mapped = |a: &&&str| guess.rules.iter().any(|r| r.rule.attribute == **a);
    let matched = MATCHED.iter().find(mapped).copied();
    let stand_in = match matched {
        Some(_) => None,
        None => stand_in(table, &guess.redact),
    };
    match matched {
        Some("email") => {}
        Some(attribute) => {
            let _ = writeln!(
                out,
                "match = [{}]                 # no column looks like an e-mail address",
                quoted(attribute)
            );
        }
        None => {
            let _ = writeln!(
                out,
                "match = [\"employeeNumber\"]         # change me: the attributes that tell whose record it is"
            );
        }
    }
    let _ = writeln!(
        out,
        "# scope = \"status != 'contractor'\"     # which records are users; all by default"
    );
    let _ = writeln!(
        out,
        "\n[source.hr.map]                    # guessed from the names of the columns"
    );
    let fill_in = matched.is_none().then(|| match stand_in {
        Some(column) => format!(
            "No column looks like an e-mail address, a login name or an employee number. \
             `employeeNumber` reads `{}` until you name the right column in [source.hr.map], and \
             in `match` the attribute that tells whose record it is.",
            remark(column)
        ),
        None => "No column can be mapped as it is. Give `employeeNumber` in [source.hr.map] an \
                 expression over a column, and name in `match` the attribute that tells whose \
                 record it is."
            .to_owned(),
    });
    if let Some(sentence) = &fill_in {
        let value = match stand_in {
            Some(column) => quoted(column),
            None => "{ constant = \"fill me in\" }".to_owned(),
        };
        let _ = writeln!(out, "# {sentence}\nemployeeNumber = {value}   # change me");
    }
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
    for column in &table.generated {
        let _ = writeln!(
            out,
            "# {}: left out, because it is generated: the log does not carry it",
            remark(column)
        );
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
    Draft { text: out, fill_in }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test that cannot go on fails"
    )]

    use std::collections::BTreeMap;
    use std::path::Path;

    use rollcall_contract::{Column, RelationKind, TableName, TableSchema};

    use super::*;
    use crate::config::{Config, ConfigErrors};

    fn drafted(columns: &[(&str, Class)], key: &[usize], generated: &[&str]) -> Draft {
        let table = DiscoveredTable {
            schema: TableSchema {
                table: TableName::new("public", "people"),
                columns: columns
                    .iter()
                    .map(|(name, class)| Column {
                        name: (*name).to_owned(),
                        class: *class,
                        type_name: "text".to_owned(),
                        nullable: true,
                    })
                    .collect(),
                key: key.to_vec(),
            },
            generated: generated.iter().map(|n| (*n).to_owned()).collect(),
            kind: RelationKind::Table,
            estimated_rows: None,
            obstacle: None,
        };
        let place = Place::parse("postgres://reader@localhost/hr", |_| None).unwrap();
        draft(&table, &place)
    }

    fn read(text: &str) -> Result<Config, ConfigErrors> {
        let environment = BTreeMap::from([("PGPASSWORD".to_owned(), "x".to_owned())]);
        Config::parse(Path::new("rollcall.toml"), text, &environment)
    }

    #[test]
    fn a_draft_can_be_read_whatever_was_recognised() {
        use Class::{Bytes, Int, Json, Text};
        for (columns, matched) in [
            (&[("id", Int), ("email", Text)][..], None),
            (&[("id", Int), ("login", Text)], Some("userName")),
            (&[("id", Int), ("empno", Int)], Some("employeeNumber")),
            (&[("id", Int), ("city", Text)], Some("employeeNumber")),
            (&[("id", Int), ("x\ny", Text)], Some("employeeNumber")),
            (&[("a", Json), ("b", Bytes)], Some("employeeNumber")),
        ] {
            for key in [&[0][..], &[]] {
                let draft = drafted(columns, key, &[]);
                let config = read(&draft.text);
                assert!(config.is_ok(), "{:?}\n{}", config.err(), draft.text);
                let line = matched.map(|a| format!("\nmatch = [\"{a}\"]"));
                let is_there = line.as_ref().is_some_and(|l| draft.text.contains(l));
                assert_eq!(is_there, matched.is_some(), "{}", draft.text);
                let told = ["email", "login", "empno"].contains(&columns[1].0);
                assert_eq!(draft.fill_in.is_none(), told, "{}", draft.text);
            }
        }
    }

    #[test]
    fn a_generated_column_is_left_out_and_named() {
        let columns = [("id", Class::Int), ("login", Class::Text)];
        let draft = drafted(&columns, &[0], &["email", "a\nb"]);
        assert!(
            draft
                .text
                .contains("# email: left out, because it is generated"),
            "{}",
            draft.text
        );
        assert!(read(&draft.text).is_ok(), "{}", draft.text);
    }
}
