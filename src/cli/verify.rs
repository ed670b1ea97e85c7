//! `rollcall verify`: the directory against its source, record by record.
//!
//! The source is read in pages while everything goes on, so a record that changes just then
//! can differ for a moment. What differs is therefore read again, several times, and only
//! what stays different is named: by key and field, without values unless they are asked
//! for. Records that are held because of a conflict, or that failed, are counted apart:
//! they differ by rule, and are listed by `rollcall conflicts` and `rollcall runs`.

use std::collections::HashSet;
use std::time::Duration;

use rollcall_contract::{ConnectorError, Key, Page, PageRequest, Source};
use rollcall_core::attribute::{ACTIVE, AttrType, Attributes};
use rollcall_core::document::{Document, LinkState, Record};
use rollcall_core::id::SourceId;
use rollcall_core::mapped::{Assigned, MappedRow, MappedRows, Outcome, Strength};
use rollcall_core::mapping::Mapper;
use rollcall_core::reason::{LeaverReason, SkipReason};
use rollcall_store::{Readers, StoreError};
use xxhash_rust::xxh3::xxh3_64;

use super::exit::{Exit, Failure};
use super::{Cli, output};
use crate::config::{Config, SourceConfig};
use crate::{connect, sync};

/// What to verify.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source; may be left out when there is only one.
    source: Option<String>,
    /// Show the differing values too.
    #[arg(long)]
    show_values: bool,
    /// How long a difference may last before it counts, in seconds.
    #[arg(long, default_value_t = 10)]
    patience: u64,
}

/// How the proof ended.
#[derive(Debug, Default, serde::Serialize)]
struct Proof {
    source: String,
    equal: bool,
    position: String,
    records: u64,
    applied: u64,
    out_of_scope: u64,
    held: u64,
    failed: u64,
    drifted: Vec<Drift>,
}

/// A record that differs.
#[derive(Clone, Debug, serde::Serialize)]
struct Drift {
    record: String,
    what: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<FieldDrift>,
}

#[derive(Clone, Debug, serde::Serialize)]
struct FieldDrift {
    attribute: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<String>,
}

/// The named source, or the only one.
pub(super) fn one_source<'c>(
    config: &'c Config,
    name: Option<&str>,
) -> Result<&'c SourceConfig, Failure> {
    match (name, config.sources.as_slice()) {
        (Some(name), _) => config.source(name).ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("there is no source named {name:?}"))
        }),
        (None, [only]) => Ok(only),
        (None, _) => Err(Failure::new(
            Exit::Usage,
            "there are several sources: name one of them",
        )),
    }
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let config = cli.load()?;
    let source = one_source(&config, args.source.as_deref())?;
    let readers = Readers::open_readonly(&config.store.path)?;
    let proof = super::runtime()?.block_on(prove(&config.organization, source, &readers, args))?;
    if cli.json {
        output::json(&proof)?;
    } else {
        print(&proof)?;
    }
    Ok(if proof.equal { Exit::Ok } else { Exit::Differs })
}

fn print(proof: &Proof) -> Result<(), Failure> {
    let counts = format!(
        "{} records: {} applied, {} out of scope, {} held, {} failed",
        proof.records, proof.applied, proof.out_of_scope, proof.held, proof.failed
    );
    if proof.equal {
        return output::line(format_args!(
            "directory = source as of position {} ({counts})",
            proof.position
        ));
    }
    output::line(format_args!(
        "{} records differ as of position {} ({counts})",
        proof.drifted.len(),
        proof.position
    ))?;
    for drift in &proof.drifted {
        output::line(format_args!("  {}: {}", drift.record, drift.what))?;
        for field in &drift.fields {
            let values = match (&field.source, &field.directory) {
                (None, None) => String::new(),
                (source, directory) => format!(
                    ": source {:?}, directory {:?}",
                    source.as_deref().unwrap_or("–"),
                    directory.as_deref().unwrap_or("–")
                ),
            };
            output::line(format_args!("    {}{values}", field.attribute))?;
        }
    }
    Ok(())
}

struct Prover<'a> {
    readers: &'a Readers,
    source: SourceId,
    mapper: Mapper,
    attributes: Attributes,
    show_values: bool,
    proof: Proof,
    mapped: MappedRows,
}

/// What one record turned out to be.
enum Verdict {
    Applied,
    OutOfScope,
    Held,
    Failed,
    Differs(Drift),
}

async fn prove(
    organization: &str,
    source: &SourceConfig,
    readers: &Readers,
    args: &Args,
) -> Result<Proof, Failure> {
    let Some(row) = readers.source(&source.name)? else {
        return Err(Failure::new(
            Exit::NotFound,
            format!("the store knows nothing of {:?} yet", source.name),
        ));
    };
    let connector = connect::source(organization, source);
    let attributes = Attributes::new(readers.custom_attributes()?);
    let schema = connector.schema().await?;
    let mapper = sync::mapper::compile(
        &connect::mapping_spec(source),
        &[(1, (*schema).clone())],
        &attributes,
    )?;
    let mut prover = Prover {
        readers,
        source: row.id,
        mapper,
        attributes,
        show_values: args.show_values,
        proof: Proof {
            source: source.name.clone(),
            ..Proof::default()
        },
        mapped: MappedRows::default(),
    };
    let (seen, mut doubtful) = prover.read_all(&*connector, source).await?;
    doubtful.extend(prover.unseen(&seen)?);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(args.patience);
    loop {
        let drifted = prover.read_again(&*connector, &doubtful).await?;
        if drifted.is_empty() || tokio::time::Instant::now() >= deadline {
            prover.proof.drifted = drifted.into_iter().map(|(_, drift)| drift).collect();
            break;
        }
        doubtful = drifted.into_iter().map(|(key, _)| key).collect();
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    prover.proof.equal = prover.proof.drifted.is_empty();
    Ok(prover.proof)
}

impl Prover<'_> {
    /// Reads the whole table; gives the hashes of its keys and the keys that differ.
    async fn read_all(
        &mut self,
        connector: &dyn Source,
        config: &SourceConfig,
    ) -> Result<(HashSet<u64>, Vec<Key>), Failure> {
        let mut seen = HashSet::new();
        let mut doubtful = Vec::new();
        let mut after = None;
        loop {
            let request = PageRequest {
                after: after.take(),
                limit_rows: config.batch.page_rows,
                limit_bytes: usize::try_from(config.batch.page_size_bytes).unwrap_or(usize::MAX),
                only: None,
            };
            let page = connector.page(request).await?;
            for (key, verdict) in self.judge(&page)? {
                seen.insert(xxh3_64(key.as_bytes()));
                self.proof.records += 1;
                if !self.counted(&verdict) {
                    doubtful.push(key);
                }
            }
            page.rows
                .cursor()
                .text()
                .clone_into(&mut self.proof.position);
            after = page.last;
            if after.is_none() {
                return Ok((seen, doubtful));
            }
        }
    }

    /// Counts a verdict; `false` when it is a difference.
    fn counted(&mut self, verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Applied => self.proof.applied += 1,
            Verdict::OutOfScope => self.proof.out_of_scope += 1,
            Verdict::Held => self.proof.held += 1,
            Verdict::Failed => self.proof.failed += 1,
            Verdict::Differs(_) => return false,
        }
        true
    }

    fn judge(&mut self, page: &Page) -> Result<Vec<(Key, Verdict)>, StoreError> {
        let mut verdicts = Vec::with_capacity(page.rows.len());
        for change in page.rows.changes() {
            let Some(row) = change.after() else { continue };
            let Some(key) = Key::of_row(change.table(), &row) else {
                continue;
            };
            self.mapped.clear();
            self.mapper.map(&row, Some(&[]), &mut self.mapped);
            let verdict = self.compare(&key, self.mapped.row(0))?;
            verdicts.push((key, verdict));
        }
        Ok(verdicts)
    }

    fn compare(&self, key: &Key, row: MappedRow<'_>) -> Result<Verdict, StoreError> {
        let differs = |what, fields| {
            Ok(Verdict::Differs(Drift {
                record: key.display(),
                what,
                fields,
            }))
        };
        let outcome = row.outcome();
        let user = match self.readers.user_by_record(self.source, key.as_bytes())? {
            None if outcome == Outcome::OutOfScope => return Ok(Verdict::OutOfScope),
            None => return differs("not in the directory", Vec::new()),
            Some(None) => return self.compare_record(key, row),
            Some(Some(user)) => user,
        };
        let document = Document::decode(&user.document).map_err(|e| StoreError::Damaged {
            detail: e.to_string(),
        })?;
        let Some(at) = document.find_link(self.source, key.as_bytes()) else {
            return differs("linked to a user that does not know it", Vec::new());
        };
        match (document.links[at].state, outcome) {
            (LinkState::Held(reason), _) if reason.is_error() => Ok(Verdict::Failed),
            (LinkState::Held(_), _) => Ok(Verdict::Held),
            (LinkState::Gone(LeaverReason::OutOfScope), Outcome::OutOfScope) => {
                Ok(Verdict::OutOfScope)
            }
            (LinkState::Live, Outcome::Mapped) => {
                let fields = self.differing(&document, at, &row);
                if fields.is_empty() {
                    Ok(Verdict::Applied)
                } else {
                    differs("values differ", fields)
                }
            }
            (LinkState::Live, Outcome::OutOfScope) => {
                differs("out of scope, and still applied", Vec::new())
            }
            (LinkState::Live, _) => differs("cannot be mapped, and still applied", Vec::new()),
            (LinkState::Gone(_), _) => differs("taken for gone", Vec::new()),
        }
    }

    fn compare_record(&self, key: &Key, row: MappedRow<'_>) -> Result<Verdict, StoreError> {
        let stored = self
            .readers
            .record(self.source, key.as_bytes())?
            .unwrap_or_default();
        let record = Record::decode(&stored).map_err(|e| StoreError::Damaged {
            detail: e.to_string(),
        })?;
        if record.reason == SkipReason::OutOfScope {
            let differs = Drift {
                record: key.display(),
                what: "taken for out of scope",
                fields: Vec::new(),
            };
            let fits = row.outcome() == Outcome::OutOfScope;
            return Ok(if fits {
                Verdict::OutOfScope
            } else {
                Verdict::Differs(differs)
            });
        }
        Ok(if record.reason.is_error() {
            Verdict::Failed
        } else {
            Verdict::Held
        })
    }

    /// The fields whose mapped value is not what this record gives to its user.
    fn differing(
        &self,
        document: &Document<'_>,
        at: usize,
        row: &MappedRow<'_>,
    ) -> Vec<FieldDrift> {
        let mut fields = Vec::new();
        for field in row.fields() {
            if field.attribute == ACTIVE || field.strength != Strength::Always {
                continue;
            }
            let own = document
                .group(field.attribute)
                .iter()
                .find(|c| c.link == Some(at as u16))
                .map(|c| c.value);
            let wanted = match field.assigned {
                Assigned::Value(value) => Some(value),
                Assigned::Clear => None,
                Assigned::Keep => continue,
            };
            if own != wanted {
                let known = self.attributes.get(field.attribute);
                let kind = known.map_or(AttrType::Text, |a| a.kind);
                let shown = |v: Option<&[u8]>| {
                    v.filter(|_| self.show_values)
                        .map(|v| super::preview::text_of(v, kind))
                };
                fields.push(FieldDrift {
                    attribute: known.map_or_else(String::new, |a| a.name.clone()),
                    source: shown(wanted),
                    directory: shown(own),
                });
            }
        }
        fields
    }

    /// Records that the directory takes for present and that the table did not show.
    fn unseen(&self, seen: &HashSet<u64>) -> Result<Vec<Key>, StoreError> {
        let mut unseen = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            let links = self
                .readers
                .links_after(self.source, after.as_ref(), 5_000)?;
            for (key, _) in &links {
                if !seen.contains(&xxh3_64(key))
                    && self.is_present(key)?
                    && let Some(key) = Key::from_bytes(key)
                {
                    unseen.push(key);
                }
            }
            match links.last() {
                Some((key, _)) => after = Key::from_bytes(key),
                None => return Ok(unseen),
            }
        }
    }

    fn is_present(&self, key: &[u8]) -> Result<bool, StoreError> {
        Ok(match self.readers.user_by_record(self.source, key)? {
            None => false,
            Some(None) => true,
            Some(Some(user)) => Document::decode(&user.document).is_ok_and(|d| {
                d.find_link(self.source, key)
                    .is_some_and(|i| d.links[i].state.is_present())
            }),
        })
    }

    /// Looks at these records again; gives those that still differ.
    async fn read_again(
        &mut self,
        connector: &dyn Source,
        keys: &[Key],
    ) -> Result<Vec<(Key, Drift)>, Failure> {
        let mut drifted = Vec::new();
        for chunk in keys.chunks(1000) {
            let page = connector
                .reread(chunk)
                .await
                .map_err(|e: ConnectorError| Failure::from(e))?;
            let verdicts = self.judge(&page)?;
            let found: HashSet<Key> = verdicts.iter().map(|(key, _)| key.clone()).collect();
            for (key, verdict) in verdicts {
                if !self.counted(&verdict)
                    && let Verdict::Differs(drift) = verdict
                {
                    drifted.push((key, drift));
                }
            }
            for key in chunk.iter().filter(|k| !found.contains(*k)) {
                if self.is_present(key.as_bytes())? {
                    let what = "in the directory, not in the source";
                    drifted.push((
                        key.clone(),
                        Drift {
                            record: key.display(),
                            what,
                            fields: Vec::new(),
                        },
                    ));
                }
            }
        }
        Ok(drifted)
    }
}
