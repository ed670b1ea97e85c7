//! `rollcall status`: from the running daemon, or from the store when none runs.

use rollcall_store::StoreError;

use super::exit::{Exit, Failure};
use super::runs::duration;
use super::{Cli, output, socket};
use crate::api::views::{self, ProofView, Status};

pub(super) fn run(cli: &Cli) -> Result<Exit, Failure> {
    let outline = cli.outline()?;
    let status: Status = match socket::get(&outline.store.socket(), "/v1/status")? {
        Some(status) => status,
        None => views::status(&cli.readers()?)?,
    };
    if status.organization != outline.organization {
        return Err(Failure::from(StoreError::OtherOrganization {
            path: outline.store.path,
            found: status.organization,
            expected: outline.organization,
        }));
    }
    if cli.json {
        output::json(&status)?;
        return Ok(Exit::Ok);
    }
    let daemon = if status.running {
        "running"
    } else {
        "not running (this is what it left)"
    };
    output::line(format_args!(
        "organization {} · daemon {daemon}",
        status.organization
    ))?;
    output::line(format_args!(
        "users {} ({} active) · conflicts {} · records without a user {} · outbox at {}",
        status.users,
        status.active,
        status.conflicts.values().sum::<u64>(),
        status.held.values().sum::<u64>(),
        status.outbox_head
    ))?;
    let rows: Vec<Vec<String>> = status
        .sources
        .iter()
        .map(|s| {
            let lag = s
                .live
                .as_ref()
                .and_then(|l| l.server.lag_bytes)
                .map_or("–".to_owned(), |b| b.to_string());
            vec![
                s.name.clone(),
                s.state.clone(),
                s.position.clone().unwrap_or_default(),
                lag,
                s.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    output::line("")?;
    output::table(
        &["SOURCE", "STATE", "POSITION", "LAG BYTES", "REASON"],
        &rows,
    )?;
    for source in &status.sources {
        if let Some(run) = &source.last_run {
            let c = &run.counters;
            output::line(format_args!(
                "  {}: run {} ({}) {} · took {} · processed {} · skipped {} · errored {}",
                source.name,
                run.run,
                run.kind,
                run.outcome,
                duration(run.duration_ms),
                c.processed,
                c.skipped,
                c.errored
            ))?;
        }
        if let Some(scan) = source.live.as_ref().and_then(|l| l.scan.as_ref()) {
            output::line(format_args!(
                "  {} run {} ({}): {scan}",
                scan.kind, scan.run, scan.cause
            ))?;
        }
        if let Some(due) = source.live.as_ref().and_then(|l| l.next_due_us) {
            output::line(format_args!(
                "  {}: is reconciled next at {}",
                source.name,
                views::rfc3339(due)
            ))?;
        }
        if let Some(proof) = &source.proof {
            print_proof(&source.name, proof)?;
        }
        for gap in &source.gaps {
            output::line(format_args!(
                "  gap since {}: {} ({})",
                gap.detected, gap.detail, gap.reason
            ))?;
        }
        for paused in &source.paused {
            output::line(format_args!(
                "  {} is paused since {}",
                paused.field, paused.since
            ))?;
        }
        if source.references_waiting > 0 {
            output::line(format_args!(
                "  {} people name somebody (a manager) of whom no record is known yet",
                source.references_waiting
            ))?;
        }
        if source.leavers.suspected > 0 {
            output::line(format_args!(
                "  {} people are gone and active until their grace is over",
                source.leavers.suspected
            ))?;
        }
        if let Some(plan) = &source.plan {
            output::line(format_args!(
                "  {} changes wait for approval since {}: rollcall plan show {}",
                plan.records, plan.changed, source.name
            ))?;
        }
        if source.telling > 0 {
            output::line(format_args!(
                "  a change of related rows is being told to people: {} left",
                source.telling
            ))?;
        }
        for warning in source.live.iter().flat_map(|l| &l.server.warnings) {
            output::line(format_args!("  warning: {warning}"))?;
        }
    }
    if !status.sinks.is_empty() {
        let rows: Vec<Vec<String>> = status
            .sinks
            .iter()
            .map(|s| {
                vec![
                    s.name.clone(),
                    s.state.clone(),
                    s.position.to_string(),
                    s.parked.to_string(),
                    s.reason.clone().unwrap_or_default(),
                ]
            })
            .collect();
        output::line("")?;
        output::table(&["SINK", "STATE", "POSITION", "PARKED", "REASON"], &rows)?;
    }
    Ok(Exit::Ok)
}

/// When everything was compared last, and what differs.
fn print_proof(source: &str, proof: &ProofView) -> Result<(), Failure> {
    const SHOWN: usize = 20;
    let age = duration(proof.age_seconds * 1000);
    let round = match proof.run {
        Some(run) => format!(" · run {run} has compared {} rows", proof.rows),
        None => String::new(),
    };
    match &proof.proved {
        Some(_) => output::line(format_args!("  {source}: proved {age} ago{round}"))?,
        None => output::line(format_args!(
            "  {source}: not proved yet; the first proof began {age} ago{round}"
        ))?,
    }
    if proof.drifted.is_empty() {
        return Ok(());
    }
    output::line(format_args!(
        "  {source}: {} records differ from the source; `rollcall sync {source} --key KEY` brings one in step, `rollcall reconcile {source}` all",
        proof.drifted.len()
    ))?;
    for drift in proof.drifted.iter().take(SHOWN) {
        let fields = match drift.fields.is_empty() {
            true => String::new(),
            false => format!(" ({})", drift.fields.join(", ")),
        };
        output::line(format_args!("    {}: {}{fields}", drift.record, drift.what))?;
    }
    let unnamed = proof.drifted.len().saturating_sub(SHOWN);
    if unnamed > 0 {
        output::line(format_args!("    and {unnamed} more (--json names them)"))?;
    }
    Ok(())
}
