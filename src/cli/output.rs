//! How results are printed.
//!
//! What comes from a database may hold anything, sequences that a terminal obeys included.
//! In text every control character is therefore printed as its number; in JSON those that
//! are allowed to stand there are made harmless by the reader.

use std::borrow::Cow;
use std::io::{self, Write as _};

use super::exit::Failure;

/// Prints a result as one JSON document.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// Prints lines that are written already.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn bytes(lines: &[u8]) -> Result<(), Failure> {
    io::stdout().lock().write_all(lines)?;
    Ok(())
}

/// Prints one line of text.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn line(text: impl std::fmt::Display) -> Result<(), Failure> {
    writeln!(io::stdout().lock(), "{}", harmless(&text.to_string()))?;
    Ok(())
}

/// A text of one or more lines without control characters of its own.
fn harmless(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if obeyed(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The same for a cell of a table, which is one line.
fn cell(text: &str) -> Cow<'_, str> {
    if text.contains(['\n', '\t']) {
        return Cow::Owned(harmless(&text.replace(['\n', '\t'], " ")).into_owned());
    }
    harmless(text)
}

/// Prints rows as a table with a head, columns as wide as their widest cell.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    let mut widths: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
    let rows: Vec<Vec<Cow<'_, str>>> = rows
        .iter()
        .map(|row| row.iter().map(|text| cell(text)).collect())
        .collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = io::stdout().lock();
    let mut print = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        writeln!(out, "{}", text.trim_end())
    };
    print(&mut head.iter().copied())?;
    for row in &rows {
        print(&mut row.iter().map(AsRef::as_ref))?;
    }
    Ok(())
}

/// Says on standard error what went wrong.
pub(crate) fn complain(json: bool, failure: &Failure) {
    if failure.sentence.is_empty() {
        return;
    }
    let text = if json {
        serde_json::json!({ "error": failure.sentence, "exit": failure.exit as u8 }).to_string()
    } else {
        format!("error: {}", failure.sentence)
    };
    // There is nobody left to tell when standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_command_the_terminal() {
        assert_eq!(
            harmless("Zo\u{eb} \u{1f600}\n\tx"),
            "Zo\u{eb} \u{1f600}\n\tx"
        );
        let hostile = "a\u{1b}[2Jb\r\u{7}\u{9b}31mc\u{7f}";
        assert_eq!(
            harmless(hostile),
            "a\\u{1b}[2Jb\\u{d}\\u{7}\\u{9b}31mc\\u{7f}"
        );
        assert_eq!(cell("two\nlines\u{1b}"), "two lines\\u{1b}");
    }
}
