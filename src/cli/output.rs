//! How results are printed.

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

/// Prints one line of text.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn line(text: impl std::fmt::Display) -> Result<(), Failure> {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Prints rows as a table with a head, columns as wide as their widest cell.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    let mut widths: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
    for row in rows {
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
    for row in rows {
        print(&mut row.iter().map(String::as_str))?;
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
