//! `rollcall check`: one line for each finding with its fix, and the operator's script.

use rollcall_contract::{ConnectorError, Finding, Report, Severity, Source, TableSchema};
use rollcall_core::attribute::Attributes;
use rollcall_core::mapping::related::Join;
use rollcall_core::mapping::{Mapper, Place};

use super::exit::{Exit, Failure};
use super::{Cli, output};
use crate::config::{Config, PollConfig, PollMode, SourceConfig};
use crate::connect;
use crate::sync::joined::Tables;
use crate::sync::polling::LogKept;

/// What to check.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these sources and sinks; all when none is named.
    names: Vec<String>,
    /// Print nothing but the statements that an operator has to run.
    #[arg(long)]
    script: bool,
}

#[derive(serde::Serialize)]
struct Checked {
    name: String,
    kind: &'static str,
    usable: bool,
    #[serde(flatten)]
    report: Report,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let config = cli.load()?;
    for name in &args.names {
        if config.source(name).is_none() && config.sink(name).is_none() {
            return Err(Failure::new(
                Exit::NotFound,
                format!("there is no source or sink named {name:?}"),
            ));
        }
    }
    let wanted = |name: &str| args.names.is_empty() || args.names.iter().any(|n| n == name);
    let checked = super::runtime()?.block_on(async {
        let mut all = Vec::new();
        for source in config.sources.iter().filter(|s| wanted(&s.name)) {
            let report = check_source(&config, source).await;
            all.push(Checked {
                name: source.name.clone(),
                kind: "source",
                usable: report.is_usable(),
                report,
            });
        }
        for sink in config.sinks.iter().filter(|s| wanted(&s.name)) {
            let report = connect::check_sink(&config.organization, sink).await;
            all.push(Checked {
                name: sink.name.clone(),
                kind: "sink",
                usable: report.is_usable(),
                report,
            });
        }
        all
    });
    if args.script && cli.json {
        let scripts: std::collections::BTreeMap<&str, &str> = checked
            .iter()
            .filter(|c| !c.report.script.is_empty())
            .map(|c| (c.name.as_str(), c.report.script.as_str()))
            .collect();
        output::json(&scripts)?;
    } else if args.script {
        for one in checked.iter().filter(|c| !c.report.script.is_empty()) {
            output::line(&one.report.script)?;
        }
    } else if cli.json {
        output::json(&checked)?;
    } else {
        print(&config, &checked)?;
    }
    Ok(if checked.iter().all(|c| c.usable) {
        Exit::Ok
    } else {
        Exit::CheckFailed
    })
}

fn print(config: &Config, checked: &[Checked]) -> Result<(), Failure> {
    output::line(format_args!(
        "{}: the configuration is valid",
        config.file.display()
    ))?;
    for one in checked {
        output::line(format_args!("\n{} {}", one.kind, one.name))?;
        for finding in &one.report.findings {
            let mark = match finding.severity {
                Severity::Ok => "ok     ",
                Severity::Note => "note   ",
                Severity::Warning => "warning",
                Severity::Unfollowable => "polled ",
                Severity::Error => "ERROR  ",
            };
            let fix = if finding.fix.is_empty() {
                String::new()
            } else {
                format!(" → {}", finding.fix)
            };
            output::line(format_args!(
                "  {mark} {}: {}{fix}",
                finding.code, finding.found
            ))?;
        }
        if one.report.findings.is_empty() {
            output::line("  ok      nothing to remark")?;
        }
        if !one.report.script.is_empty() {
            output::line("\n  To be run by an operator (never run by rollcall):")?;
            for text in one.report.script.lines() {
                output::line(format_args!("    {text}"))?;
            }
        }
    }
    Ok(())
}

/// The connector's report, and whether the mapping fits the table.
async fn check_source(config: &Config, source: &SourceConfig) -> Report {
    let connector = connect::source(&config.organization, source);
    let mut report = connector.check().await;
    polling(&mut report, &*connector, &source.poll).await;
    let spec = crate::daemon::mapping_of(config, source);
    let Ok(tables) = Tables::of(&*connector, &spec).await else {
        return report;
    };
    for ambiguous in Join::ambiguous(&spec.related, &tables.related) {
        let name = &ambiguous.name;
        let found = format!(
            "Rows of the related table \"{name}\" are not joined by their key, so several may match one record. The one with the lowest key counts then."
        );
        let fix = format!(
            "Join it by its key, or set `many = true` in [source.{}.related.{name}].",
            source.name
        );
        report.findings.push(Finding::new(
            Severity::Warning,
            "related_ambiguous",
            found,
            fix,
        ));
    }
    let attributes = declared_attributes(config);
    let flaws = Join::flaws(&spec.related, &tables.main, &tables.related);
    let join = Join::new(&spec.related, &tables.main, &tables.related);
    let compiled = match join {
        _ if !flaws.is_empty() => Err(flaws),
        Err(errors) => Err(errors),
        Ok(join) => Mapper::compile(&spec, join.schema(), &attributes, 1),
    };
    let schema = &tables.main;
    match compiled {
        Ok(mapper) => {
            for warning in mapper.warnings() {
                report.findings.push(Finding::new(
                    Severity::Note,
                    "mapping",
                    warning.to_string(),
                    "",
                ));
            }
            let found = format!(
                "The mapping of {} fields fits the table {}.",
                spec.rules.len(),
                schema.table
            );
            report
                .findings
                .push(Finding::new(Severity::Ok, "mapping", found, ""));
        }
        Err(errors) => {
            let generated = generated_columns(&*connector, schema).await;
            for error in errors {
                let error = error.of_generated(&generated);
                let (name, rule) = (&source.name, &error.rule);
                let key = match error.place {
                    Place::Scope | Place::Redact(_) => format!("source.{name}.{rule}"),
                    Place::Rule(_) => format!("source.{name}.map.{rule}"),
                    Place::Changed(_) => format!("field.{rule}.changed.{name}"),
                    Place::Related(_) => format!("source.{name}.related.{rule}"),
                };
                let place = format!("{}:{}", config.file.display(), config.locate(&key));
                let said = format!("found {}, expected {}", error.found, error.expected);
                let fix = error.suggestion;
                report.findings.push(Finding::new(
                    Severity::Error,
                    "mapping",
                    format!("{place}: {key}: {said}"),
                    fix.unwrap_or_else(|| "Correct it there.".to_owned()),
                ));
            }
        }
    }
    report
}

/// The columns that the log does not carry; none where the server does not tell.
async fn generated_columns(connector: &dyn Source, schema: &TableSchema) -> Vec<String> {
    let tables = connector.discover().await.unwrap_or_default();
    let table = tables.into_iter().find(|t| t.schema.table == schema.table);
    table.map(|t| t.generated).unwrap_or_default()
}

/// What stands against the log alone is an error only when the table may not be polled.
async fn polling(report: &mut Report, connector: &dyn Source, poll: &PollConfig) {
    let is_polled = match poll.mode {
        PollMode::Never => {
            for finding in &mut report.findings {
                if finding.severity == Severity::Unfollowable {
                    finding.severity = Severity::Error;
                }
            }
            false
        }
        PollMode::WhenNeeded => report.is_usable() && !report.is_followable(),
        PollMode::Always => report.is_usable(),
    };
    if !is_polled {
        return;
    }
    let (severity, found, fix) = match poll.mode {
        PollMode::Always => (
            Severity::Note,
            "The table is polled, and its log is not asked for.",
            "",
        ),
        _ => (
            Severity::Warning,
            "The log cannot be followed: the table is polled until it can.",
            "Mend what is named above, or accept it with mode = \"always\" in `poll`.",
        ),
    };
    let mut add = |severity, code, found: &str, fix: &str| {
        report
            .findings
            .push(Finding::new(severity, code, found, fix));
    };
    add(severity, "polling", found, fix);
    // A server that does not tell keeps nothing.
    let status = connector.status().await.unwrap_or_default();
    if let Some(kept) = LogKept::of(&status) {
        add(Severity::Warning, "log_kept", &kept.found, kept.fix);
    }
    let Some(column) = &poll.change_column else {
        return;
    };
    match connector.change_mark(column).await {
        Ok(_) => add(
            Severity::Ok,
            "change_column",
            &format!("Polls read the rows that \"{column}\" names."),
            "",
        ),
        Err(ConnectorError::Definite(e) | ConnectorError::Unfollowable(e)) => {
            add(Severity::Error, e.code, &e.sentence, &e.fix);
        }
        Err(ConnectorError::Transient(e)) => add(Severity::Error, e.code, &e.sentence, ""),
    }
}

/// The organization's attributes, numbered as they are declared (commands that do not write
/// need no lasting numbers).
pub(super) fn declared_attributes(config: &Config) -> Attributes {
    use rollcall_core::attribute::{AttrId, FIRST_CUSTOM};
    Attributes::new(
        config
            .attributes
            .iter()
            .zip(FIRST_CUSTOM..)
            .map(|((name, kind), n)| (AttrId(n), name.clone(), connect::attribute_type(*kind))),
    )
}
