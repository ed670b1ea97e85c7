//! From a value of the file to a value of a type: the small parsers.
//!
//! Each returns `None` only after it has put an error down. Numbers with units are whole
//! numbers with one unit, so that each has one reading: `90s`, not `1m30s` or `1.5m`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::keys::Kind;
use super::reader::{Item, describe};

/// A text that is not empty.
pub(super) fn text(item: &Item<'_>) -> Option<String> {
    match item.value() {
        DeValue::String(text) if text.contains('\0') => item.reject(
            "a text with a zero byte",
            item.kind().expected(),
            "remove it; no server takes one",
        ),
        DeValue::String(text) if !text.trim().is_empty() => Some(text.to_string()),
        DeValue::String(_) => item.reject("an empty text", item.kind().expected(), item.example()),
        _ => item.wrong(),
    }
}

/// A text that follows a rule.
pub(super) fn text_where(
    rule: impl FnOnce(&str) -> bool,
) -> impl FnOnce(&Item<'_>) -> Option<String> {
    move |item| match item.value() {
        DeValue::String(text) if rule(text) => Some(text.to_string()),
        _ => item.wrong(),
    }
}

pub(super) fn boolean(item: &Item<'_>) -> Option<bool> {
    match item.value() {
        DeValue::Boolean(value) => Some(*value),
        _ => item.wrong(),
    }
}

/// A whole number within the limits that the table of keys names.
pub(super) fn integer<T: TryFrom<i64>>(item: &Item<'_>) -> Option<T> {
    let Kind::Integer(min, max) = item.kind() else {
        return item.wrong();
    };
    let number = match item.value() {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    };
    match number.filter(|number| (min..=max).contains(number)) {
        Some(number) => match T::try_from(number) {
            Ok(number) => Some(number),
            Err(_) => item.wrong(),
        },
        None => item.wrong(),
    }
}

/// A number from 0 to 100.
pub(super) fn percent(item: &Item<'_>) -> Option<f64> {
    let number: Option<f64> = match item.value() {
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
        DeValue::Float(number) => number.as_str().parse().ok(),
        _ => None,
    };
    match number.filter(|number| (0.0..=100.0).contains(number)) {
        Some(number) => Some(number),
        None => item.wrong(),
    }
}

/// A duration, at most a hundred years.
pub(super) fn duration(item: &Item<'_>) -> Option<Duration> {
    const MOST_MS: u64 = 100 * 366 * 86_400_000;
    const UNITS: &[(&str, u64)] = &[
        ("ms", 1),
        ("s", 1_000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    with_unit(item, UNITS)
        .filter(|ms| *ms <= MOST_MS)
        .map(Duration::from_millis)
        .or_else(|| item.wrong())
}

/// A duration that is not zero.
pub(super) fn positive_duration(item: &Item<'_>) -> Option<Duration> {
    let duration = duration(item)?;
    if duration.is_zero() {
        return item.reject(item.found(), "a duration above zero", item.example());
    }
    Some(duration)
}

/// A size in bytes, above zero.
pub(super) fn size_bytes(item: &Item<'_>) -> Option<u64> {
    const UNITS: &[(&str, u64)] = &[
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];
    with_unit(item, UNITS)
        .filter(|bytes| *bytes > 0 && *bytes <= i64::MAX as u64)
        .or_else(|| item.wrong())
}

fn with_unit(item: &Item<'_>, units: &[(&str, u64)]) -> Option<u64> {
    let DeValue::String(text) = item.value() else {
        return None;
    };
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// One of a few words.
pub(super) fn choice<T: Copy>(
    options: &'static [(&'static str, T)],
) -> impl Fn(&Item<'_>) -> Option<T> {
    move |item| {
        let DeValue::String(text) = item.value() else {
            return item.wrong();
        };
        if let Some((_, value)) = options.iter().find(|(word, _)| *word == text.as_ref()) {
            return Some(*value);
        }
        let near = super::reader::suggest(text, options.iter().map(|(word, _)| *word));
        let fix = near.map_or_else(|| item.example(), |near| format!("write \"{near}\""));
        item.reject(item.found(), item.kind().expected(), fix)
    }
}

/// A path; a relative one counts from the folder of the configuration file.
pub(super) fn path(item: &Item<'_>) -> Option<PathBuf> {
    let text = text(item)?;
    Some(beside(item.document().file(), Path::new(&text)))
}

/// Several paths.
pub(super) fn paths(item: &Item<'_>) -> Option<Vec<PathBuf>> {
    let file = item.document().file();
    let DeValue::Array(items) = item.value() else {
        return item.wrong();
    };
    let mut paths = Vec::with_capacity(items.len());
    for value in items {
        match value.get_ref() {
            DeValue::String(text) if !text.is_empty() => {
                paths.push(beside(file, Path::new(text.as_ref())));
            }
            other => {
                return item.reject(
                    format!("{} in the list", describe(other)),
                    item.kind().expected(),
                    item.example(),
                );
            }
        }
    }
    Some(paths)
}

/// A relative path counts from the folder of the configuration file.
fn beside(file: &Path, path: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if path.is_relative() => folder.join(path),
        _ => path.to_path_buf(),
    }
}

pub(super) fn address(item: &Item<'_>) -> Option<SocketAddr> {
    match item.value() {
        DeValue::String(text) => text.parse().ok().or_else(|| item.wrong()),
        _ => item.wrong(),
    }
}

/// A list of texts, at least one, none twice.
pub(super) fn texts(item: &Item<'_>) -> Option<Vec<String>> {
    texts_where(item, |text| !text.trim().is_empty() && !text.contains('\0'))
}

/// A list of texts that follow a rule, at least one, none twice.
pub(super) fn texts_where(item: &Item<'_>, rule: impl Fn(&str) -> bool) -> Option<Vec<String>> {
    let DeValue::Array(items) = item.value() else {
        return item.wrong();
    };
    let mut texts: Vec<String> = Vec::with_capacity(items.len());
    for value in items {
        match value.get_ref() {
            DeValue::String(text) if texts.iter().any(|t| t == text.as_ref()) => {
                return item.reject(
                    format!("{text:?} twice"),
                    item.kind().expected(),
                    "remove one of the two",
                );
            }
            DeValue::String(text) if rule(text) => texts.push(text.to_string()),
            other => {
                return item.reject(
                    format!("{} in the list", describe(other)),
                    item.kind().expected(),
                    item.example(),
                );
            }
        }
    }
    if texts.is_empty() {
        return item.wrong();
    }
    Some(texts)
}

/// A program and its arguments.
pub(super) fn command(item: &Item<'_>) -> Option<Vec<String>> {
    let DeValue::Array(items) = item.value() else {
        return item.wrong();
    };
    let mut command = Vec::with_capacity(items.len());
    for value in items {
        match value.get_ref() {
            DeValue::String(text) if !text.contains('\0') => command.push(text.to_string()),
            _ => return item.wrong(),
        }
    }
    match command.first().is_some_and(|program| !program.is_empty()) {
        true => Some(command),
        false => item.wrong(),
    }
}

/// Letters, digits and `_`, beginning with a letter.
pub(super) fn is_attribute_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A name of a source or sink.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

pub(super) fn is_organization(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A slot's name, as PostgreSQL allows it.
pub(super) fn is_slot(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// A topic's name, as Kafka allows it.
pub(super) fn is_topic(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// `level` or `target=level`, separated by commas.
pub(super) fn is_log_level(text: &str) -> bool {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    !text.is_empty()
        && text.split(',').all(|part| match part.split_once('=') {
            Some((target, level)) => {
                let named = target
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':');
                !target.is_empty() && named && LEVELS.contains(&level)
            }
            None => LEVELS.contains(&part),
        })
}
