//! `rollcall config`: every key explained, and the schema of the file.
//!
//! Both come from the table that the parser reads from, so they cannot describe another
//! program than this one.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::exit::{Exit, Failure};
use crate::config::{KEYS, Key, Presence, explain, json_schema};

/// Explains the configuration file.
#[derive(Args, Clone, Debug)]
#[command(
    arg_required_else_help = true,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  rollcall config --explain\n  rollcall config --explain source.hr.tls\n  rollcall config --explain on_null\n  rollcall config schema > rollcall.schema.json"
)]
pub struct ConfigArgs {
    /// Explains a key, a table of keys, or all keys: full (source.hr.port), as a pattern
    /// (source.*.port) or by the last part (port).
    #[arg(long, value_name = "KEY", num_args = 0..=1)]
    pub explain: Option<Option<String>>,
    /// What else to print.
    #[command(subcommand)]
    pub command: Option<ConfigCommand>,
}

/// What `rollcall config` prints besides explanations.
#[derive(Subcommand, Clone, Copy, Debug)]
pub enum ConfigCommand {
    /// Prints the JSON Schema (draft 2020-12) of rollcall.toml.
    Schema,
}

/// Why nothing was printed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigCommandError {
    /// There is no such key.
    #[error("found no key {question:?}, expected one of the keys of rollcall.toml; fix: {fix}")]
    UnknownKey {
        /// What was asked for.
        question: String,
        /// What to ask for instead.
        fix: String,
    },
    /// Standard output is closed, or its disk is full.
    #[error("{0}")]
    Output(#[from] io::Error),
}

impl From<ConfigCommandError> for Failure {
    fn from(e: ConfigCommandError) -> Failure {
        match e {
            ConfigCommandError::UnknownKey { .. } => Failure::new(Exit::NotFound, e.to_string()),
            ConfigCommandError::Output(e) => e.into(),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When there is no such key, or the output cannot be written.
pub fn run(args: &ConfigArgs, json: bool, out: &mut dyn Write) -> Result<(), ConfigCommandError> {
    if let Some(ConfigCommand::Schema) = args.command {
        // A schema is JSON in any case.
        writeln!(out, "{:#}", json_schema())?;
        return Ok(());
    }
    let question = args.explain.as_ref().and_then(Option::as_deref);
    let keys = explain(question).map_err(|near| ConfigCommandError::UnknownKey {
        question: question.unwrap_or_default().to_owned(),
        fix: match near {
            Some(near) => format!("ask for `{near}`"),
            None => "`rollcall config --explain` lists every key".to_owned(),
        },
    })?;
    if json {
        let keys: Vec<Value> = keys.into_iter().map(as_json).collect();
        writeln!(out, "{:#}", Value::Array(keys))?;
        return Ok(());
    }
    for (index, key) in keys.into_iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{}", key.pattern)?;
        let only = match key.only {
            [] => String::new(),
            _ => format!(", only with {}", key.only_in_words()),
        };
        let presence = match key.presence {
            Presence::Required => ", required".to_owned(),
            Presence::Optional => String::new(),
            Presence::Default(text) => format!(", default {text}"),
            Presence::Depends(sentence) => format!(", default: {sentence}"),
        };
        writeln!(out, "    {}{presence}{only}", key.kind.label())?;
        writeln!(out, "    {}", key.meaning)?;
        let is_table = KEYS.iter().any(|other| other.table() == key.pattern);
        if !is_table {
            writeln!(out, "    example: {}", key.example)?;
        }
    }
    Ok(())
}

fn as_json(key: &Key) -> Value {
    let (default, depends) = match key.presence {
        Presence::Default(text) => (Some(text), None),
        Presence::Depends(sentence) => (None, Some(sentence)),
        Presence::Required | Presence::Optional => (None, None),
    };
    json!({
        "key": key.pattern,
        "type": key.kind.label(),
        "expected": key.kind.expected(),
        "required": key.presence == Presence::Required,
        "default": default,
        "default_depends": depends,
        "only_types": key.only,
        "meaning": key.meaning,
        "example": key.example,
    })
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "a test that cannot go on fails"
    )]

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ConfigArgs,
    }

    fn output(words: &[&str], json: bool) -> Result<String, ConfigCommandError> {
        let words = ["config"].iter().chain(words);
        let line = Line::try_parse_from(words).expect("the line is one of the examples");
        let mut out = Vec::new();
        run(&line.args, json, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn one_key_is_explained_in_four_lines() {
        assert_eq!(
            output(&["--explain", "source.hr.server_id"], false).unwrap(),
            "source.*.server_id\n    integer 1–4294967295, default: made from the names of organization and source, only with type = \"mysql\" or \"mariadb\"\n    The id under which Rollcall reads the log as a replica. No other replica of the server may have it.\n    example: 4711\n"
        );
    }

    #[test]
    fn without_a_key_all_are_explained() {
        let text = output(&["--explain"], false).unwrap();
        assert_eq!(
            text.lines()
                .filter(|l| !l.starts_with(' ') && !l.is_empty())
                .count(),
            KEYS.len()
        );
        let json: Value = serde_json::from_str(&output(&["--explain"], true).unwrap()).unwrap();
        assert_eq!(json.as_array().unwrap().len(), KEYS.len());
    }

    #[test]
    fn an_unknown_key_is_an_error_with_the_nearest() {
        assert_eq!(
            output(&["--explain", "slott"], false)
                .unwrap_err()
                .to_string(),
            "found no key \"slott\", expected one of the keys of rollcall.toml; fix: ask for `slot`"
        );
    }

    struct Closed(io::ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn output_that_cannot_be_written_is_no_key_that_was_not_found() {
        for words in [&["--explain"][..], &["schema"]] {
            let line = Line::try_parse_from(["config"].iter().chain(words)).unwrap();
            let ends = |kind| -> Failure {
                let ended = run(&line.args, false, &mut Closed(kind));
                ended.expect_err("nothing can be written").into()
            };
            let seen_enough = ends(io::ErrorKind::BrokenPipe);
            assert_eq!(seen_enough.exit, Exit::Ok);
            assert_eq!(seen_enough.sentence, "");
            assert_eq!(ends(io::ErrorKind::StorageFull).exit, Exit::Failed);
        }
        let unknown: Failure = output(&["--explain", "slott"], false).unwrap_err().into();
        assert_eq!(unknown.exit, Exit::NotFound);
    }

    #[test]
    fn the_schema_is_json() {
        let schema: Value = serde_json::from_str(&output(&["schema"], false).unwrap()).unwrap();
        assert_eq!(
            schema["$schema"],
            "https://json-schema.org/draft/2020-12/schema"
        );
    }
}
