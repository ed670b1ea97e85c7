//! What the demo prints: plain lines, with colour only on a terminal that wants it.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

/// The printer.
pub(crate) struct Show {
    colour: bool,
    began: Instant,
}

impl Show {
    pub(crate) fn new() -> Show {
        Show {
            colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            began: Instant::now(),
        }
    }

    /// Whether a person watches.
    pub(crate) fn is_terminal(&self) -> bool {
        std::io::stdout().is_terminal()
    }

    fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // A reader that has gone away does not change what the demo proves.
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// A new part.
    pub(crate) fn chapter(&self, title: &str) {
        let at = format!("{:>5.1} s", self.began.elapsed().as_secs_f64());
        self.line("");
        self.line(&format!(
            "{}  {}",
            self.painted("2", &at),
            self.painted("1", title)
        ));
    }

    /// Something that is so.
    pub(crate) fn fact(&self, text: &str) {
        self.line(&format!("         {text}"));
    }

    /// A file or script.
    pub(crate) fn text(&self, text: &str) {
        for line in text.trim().lines() {
            self.line(&format!(
                "         {}",
                self.painted("36", &format!("│ {line}"))
            ));
        }
    }

    /// One event: why, what, who, and how long after the commit.
    pub(crate) fn event(&self, why: &str, what: &str, who: &str, latency: &str) {
        let pad = 24usize.saturating_sub(who.chars().count());
        self.line(&format!(
            "         {why:<22} {} {who}{:pad$} {}",
            self.painted("32", &format!("{what:<24}")),
            "",
            self.painted("1", &format!("{latency:>10}")),
        ));
    }

    /// The last line, exactly.
    pub(crate) fn last(&self, text: &str) {
        self.line("");
        self.line(text);
    }
}
