//! What was measured, printed as it comes and kept as JSON.
//!
//! The file is written anew after each figure, so a run that was stopped leaves what it has
//! measured. A figure knows the bound that it must keep; whether it does is said beside it
//! and at the end, and changes nothing about the number.

use std::path::PathBuf;

use serde::Serialize;

use crate::Result;

/// Which side of its bound a figure must be on.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// The promised figures.
const PROMISED: &[(&str, Bound)] = &[
    ("pg_reader_ratio", Bound::AtLeast(1.5)),
    ("pg_reader_cpu_us", Bound::AtMost(3.0)),
    ("pg_reader_allocs", Bound::AtMost(0.1)),
    ("pg_stream_ratio", Bound::AtLeast(0.5)),
    ("pg_stream_cpu_us", Bound::AtMost(16.0)),
    ("pg_stream_rss_mib", Bound::AtMost(128.0)),
    ("pg_load_ratio", Bound::AtLeast(1.0 / 6.0)),
    ("mysql_stream_ratio", Bound::AtLeast(1.0)),
    ("mysql_stream_cpu_us", Bound::AtMost(16.0)),
    ("mysql_stream_rss_mib", Bound::AtMost(128.0)),
    ("mariadb_stream_ratio", Bound::AtLeast(1.0)),
    ("mariadb_stream_cpu_us", Bound::AtMost(16.0)),
    ("mariadb_stream_rss_mib", Bound::AtMost(128.0)),
    ("mysql_reader_cpu_us", Bound::AtMost(3.0)),
    ("mysql_reader_allocs", Bound::AtMost(0.1)),
    ("mysql_decode_ratio", Bound::AtLeast(4.0)),
    ("mysql_load_ratio", Bound::AtLeast(1.0 / 8.0)),
    ("mysql_compressed_1gb_rss_mib", Bound::AtMost(192.0)),
    ("latency_exactly_once_p99_ms", Bound::AtMost(25.0)),
    ("latency_at_least_once_p99_ms", Bound::AtMost(15.0)),
    ("reconcile_unchanged_ratio", Bound::AtLeast(1.0 / 4.0)),
    ("reconcile_one_percent_ratio", Bound::AtLeast(1.0 / 5.0)),
    ("latency_during_reconcile_ratio", Bound::AtMost(3.0)),
    ("idle_rss_mib", Bound::AtMost(48.0)),
    ("idle_cpu_percent", Bound::AtMost(0.5)),
    ("sources_200_rss_mib", Bound::AtMost(256.0)),
    ("sources_200_cpu_percent", Bound::AtMost(2.0)),
    ("neighbour_latency_ratio", Bound::AtMost(5.0)),
    ("growth_ratio", Bound::AtMost(2.5)),
    ("pg_huge_tx_rss_mib", Bound::AtMost(256.0)),
];

#[derive(Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    must: Option<Bound>,
}

/// All figures of a run.
#[derive(Serialize)]
pub(crate) struct Report {
    /// Whether this was only a try: its figures are not valid.
    quick: bool,
    cores: usize,
    figures: Vec<Figure>,
    #[serde(skip)]
    path: PathBuf,
}

impl Report {
    pub(crate) fn new(path: PathBuf, quick: bool) -> Report {
        Report {
            quick,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            figures: Vec::new(),
            path,
        }
    }

    /// Prints `bench <name> <value> <unit>` and keeps it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn figure(&mut self, name: &str, value: f64, unit: &'static str) -> Result<()> {
        let must = PROMISED.iter().find(|(n, _)| *n == name).map(|(_, b)| *b);
        println!("bench {name} {} {unit}", shown(value));
        self.figures.push(Figure {
            name: name.to_owned(),
            value,
            unit,
            must,
        });
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&self.path, serde_json::to_vec_pretty(self)?)
            .map_err(|e| format!("{} cannot be written: {e}", self.path.display()).into())
    }

    /// Says which promised figures missed their bound.
    pub(crate) fn conclude(&self) {
        for figure in &self.figures {
            let missed = match figure.must {
                Some(Bound::AtLeast(bound)) if figure.value < bound => ("at least", bound),
                Some(Bound::AtMost(bound)) if figure.value > bound => ("at most", bound),
                _ => continue,
            };
            println!(
                "# missed: {} is {} {}, must be {} {}",
                figure.name,
                shown(figure.value),
                figure.unit,
                missed.0,
                shown(missed.1)
            );
        }
        println!("# written to {}", self.path.display());
    }
}

/// Three decimals below ten, one below a thousand, none above.
fn shown(value: f64) -> String {
    let decimals = match value.abs() {
        v if v < 10.0 => 3,
        v if v < 1000.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// The middle of some values; of an even number of them, the upper one of the two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value below which this share of the (sorted) values lies.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted
        .get(at.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.5), 100.0);
        assert_eq!(percentile(&values, 0.99), 198.0);
        assert_eq!(percentile(&values[..1], 0.99), 1.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
