//! Every input of the corpus, and many that are made from it, are decoded or refused: no
//! panic, and no more memory than a multiple of the input.
//!
//! The inputs are the same at every run. `ROLLCALL_FUZZ_SEED` and `ROLLCALL_FUZZ_RUNS` ask
//! for others, and for more of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rollcall_fuzz::allocation::{Counting, peak_of};
use rollcall_fuzz::mutate::Mutator;
use rollcall_fuzz::{LOG, PGOUTPUT, RESULT_ROW, STATEMENT, TARGETS, Target};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SEED: u64 = 20_240_229;
const RUNS: usize = 20_000;

/// How many bytes of an input get a false length.
const CLAIMS: usize = 400;

/// What may be in use at once for each byte of the input: a null is one bit, and a column
/// without a name little more than a byte, but a cell and a column's decoder take room.
const FACTOR: usize = 400;
/// And beside: buffers that are made room for before anything has come.
const ROOM: usize = 1 << 20;

fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap(),
        Err(_) => otherwise,
    }
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target.name);
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Decodes one input, and gives the largest share of what it may use.
fn hold(target: &Target, input: &[u8], which: &str) -> f64 {
    let outcome = catch_unwind(AssertUnwindSafe(|| peak_of(|| (target.run)(input))));
    let fault = match outcome {
        Ok((plain, peak)) => {
            let bound = ROOM + FACTOR * (input.len() + plain);
            if peak <= bound {
                return peak as f64 / bound as f64;
            }
            format!("{peak} bytes were in use at once, {bound} may be")
        }
        Err(_) => "it panics".to_owned(),
    };
    let name = format!("{}-fault", target.name);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, input).unwrap();
    panic!(
        "{} of {} ({} bytes, kept in {}): {fault}",
        which,
        target.name,
        input.len(),
        path.display()
    );
}

fn damaged_and_whole_inputs_are_decoded_or_refused(target: &Target) {
    let corpus = corpus(target);
    assert!(corpus.len() > 10, "{} inputs", corpus.len());
    let (seed, runs) = (
        number("ROLLCALL_FUZZ_SEED", SEED),
        number("ROLLCALL_FUZZ_RUNS", RUNS as u64),
    );
    println!(
        "{}: {} inputs, {runs} made from them with seed {seed}",
        target.name,
        corpus.len()
    );
    let mut largest: f64 = 0.0;
    for (i, input) in corpus.iter().enumerate() {
        largest = largest.max(hold(target, input, &format!("input {i}")));
    }
    // Every place may be that of a length: one far beyond the input, in one order or the
    // other, so that inputs which are much alike have both.
    const CLAIM: u32 = 0x3FFF_FFF0;
    for (i, input) in corpus.iter().enumerate() {
        for at in 0..input.len().min(CLAIMS).saturating_sub(3) {
            let claim = match (i + at) % 2 {
                0 => CLAIM.to_le_bytes(),
                _ => CLAIM.to_be_bytes(),
            };
            let mut input = input.clone();
            input[at..at + 4].copy_from_slice(&claim);
            let which = format!("input {i} with a length at {at}");
            largest = largest.max(hold(target, &input, &which));
        }
    }
    let mut mutator = Mutator::new(seed);
    for run in 0..runs {
        let input = mutator.next(&corpus);
        let which = format!("run {run} with seed {seed}");
        largest = largest.max(hold(target, &input, &which));
    }
    println!("{}: {largest:.3} of the bound at most", target.name);
}

#[test]
fn binary_logs() {
    damaged_and_whole_inputs_are_decoded_or_refused(&LOG);
}

#[test]
fn messages_of_pgoutput() {
    damaged_and_whole_inputs_are_decoded_or_refused(&PGOUTPUT);
}

#[test]
fn rows_of_prepared_statements() {
    damaged_and_whole_inputs_are_decoded_or_refused(&RESULT_ROW);
}

#[test]
fn statements() {
    damaged_and_whole_inputs_are_decoded_or_refused(&STATEMENT);
}

#[test]
fn the_corpus_is_small_enough_to_be_kept() {
    let bytes: usize = TARGETS
        .iter()
        .flat_map(corpus)
        .map(|input| input.len())
        .sum();
    assert!(bytes < 1 << 20, "{bytes} bytes");
}

/// The measure itself: what is only claimed, and allocated, would be seen.
#[test]
fn an_allocation_of_a_claimed_size_is_seen() {
    let (_, peak) = peak_of(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(64 << 20))));
    assert!(peak >= 64 << 20, "{peak}");
}
