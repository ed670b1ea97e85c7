//! `rollcall preview`: real rows, what they become, and which rule made each value.

use rollcall_contract::{Key, PageRequest, TableNo};
use rollcall_core::attribute::{AttrType, Attributes};
use rollcall_core::mapped::{
    Assigned, MappedRow, MappedRows, Outcome, key_columns, key_text, value_text,
};
use rollcall_core::mapping::Mapper;

use super::exit::{Exit, Failure};
use super::{Cli, output};
use crate::sync::joined::{Bound, Fetched, Tables, joined};
use crate::{connect, sync};

/// What to preview.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source; may be left out when there is only one.
    source: Option<String>,
    /// How many rows.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

#[derive(serde::Serialize)]
struct Previewed {
    record: String,
    /// The columns of the key, when they are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    key: Vec<String>,
    outcome: String,
    fields: Vec<Field>,
}

#[derive(serde::Serialize)]
struct Field {
    attribute: String,
    value: Option<String>,
    rule: String,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let config = cli.load()?;
    let source = super::verify::one_source(&config, args.source.as_deref())?;
    let attributes = super::check::declared_attributes(&config);
    let spec = connect::mapping_spec(source);
    let connector = connect::source(&config.organization, source);
    let page = super::runtime()?.block_on(async {
        let Bound { schema, join } = Tables::of(&*connector, &spec).await?.bound(&spec)?;
        let mapper = sync::mapper::compile(&spec, &[(1, (*schema).clone())], &attributes)?;
        let request = PageRequest {
            after: None,
            limit_rows: args.limit as usize,
            limit_bytes: 16 << 20,
            only: None,
            since: None,
        };
        let page = connector.page(TableNo::MAIN, request).await?;
        let rows = match join {
            None => page.rows,
            Some(join) => {
                let mut related = Fetched::of(&*connector, &join, &page.rows).await?;
                match joined(&join, &page.rows, &mut related) {
                    Ok(rows) => rows,
                    Err(never) => match never {},
                }
            }
        };
        Ok::<_, rollcall_contract::ConnectorError>((mapper, rows))
    });
    let (mapper, page) = page?;
    let mut mapped = MappedRows::default();
    let mut rows = Vec::new();
    for change in page.changes() {
        let Some(row) = change.after() else { continue };
        mapped.clear();
        mapper.map(&row, Some(&[]), &mut mapped);
        let key = Key::of_row(change.table(), &row);
        rows.push(preview(key.as_ref(), mapped.row(0), &mapper, &attributes));
    }
    if cli.json {
        output::json(&rows)?;
    } else {
        for row in &rows {
            output::line(format_args!("{} ({})", row.record, row.outcome))?;
            for field in &row.fields {
                let value = field.value.as_deref().unwrap_or("–");
                output::line(format_args!(
                    "  {:<20} {value:<32} {}",
                    field.attribute, field.rule
                ))?;
            }
        }
    }
    Ok(Exit::Ok)
}

fn preview(
    key: Option<&Key>,
    row: MappedRow<'_>,
    mapper: &Mapper,
    attributes: &Attributes,
) -> Previewed {
    let rule = |n: u16| mapper.rule_text(n).unwrap_or("?").to_owned();
    let outcome = match row.outcome() {
        Outcome::Mapped => "mapped".to_owned(),
        Outcome::OutOfScope => "out of scope".to_owned(),
        Outcome::Deferred => "incomplete".to_owned(),
        Outcome::Failed {
            reason,
            rule: Some(n),
        } => format!("skipped: {} in {}", reason.as_str(), rule(n)),
        Outcome::Failed { reason, rule: None } => format!("skipped: {}", reason.as_str()),
    };
    let fields = row
        .fields()
        .map(|f| {
            let known = attributes.get(f.attribute);
            let value = match f.assigned {
                Assigned::Value(bytes) => {
                    Some(value_text(bytes, known.map_or(AttrType::Text, |a| a.kind)))
                }
                Assigned::Reference(key) => Some(format!("the user of record {}", key_text(key))),
                Assigned::Clear | Assigned::Keep => None,
            };
            Field {
                attribute: known.map_or_else(String::new, |a| a.name.clone()),
                value,
                rule: rule(f.rule),
            }
        })
        .collect();
    Previewed {
        record: key.map_or_else(String::new, Key::display),
        key: key.map_or_else(Vec::new, |key| key_columns(key.as_bytes())),
        outcome,
        fields,
    }
}
