//! The words of a statement.
//!
//! Comments are left out, except those that the server runs: `/*! … */`, with a version or
//! without, and MariaDB's `/*M! … */`. Which of them a server ran need not be known: both
//! servers spoil the mark of a comment that they did not run before they log it.

use std::borrow::Cow;

use crate::event::SqlMode;

/// One word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token<'t> {
    /// A keyword, or a name without quotes.
    Word(&'t str),
    /// A name in quotes.
    Name(Cow<'t, str>),
    /// A string.
    Text(Cow<'t, str>),
    /// Any other character.
    Mark(char),
}

impl Token<'_> {
    pub(super) fn is_word(&self, wanted: &str) -> bool {
        matches!(self, Token::Word(word) if word.eq_ignore_ascii_case(wanted))
    }
}

/// A quote or a comment that does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unclosed;

/// The words that are left.
#[derive(Clone)]
pub(super) struct Lexer<'t> {
    rest: &'t str,
    sql_mode: SqlMode,
    /// Inside of a comment that the server runs.
    is_run: bool,
}

fn is_name_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii()
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str, sql_mode: SqlMode) -> Self {
        Lexer {
            rest: text,
            sql_mode,
            is_run: false,
        }
    }

    /// The next word; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Token<'t>>, Unclosed> {
        self.space()?;
        let Some(first) = self.rest.chars().next() else {
            return if self.is_run { Err(Unclosed) } else { Ok(None) };
        };
        let token = match first {
            '`' => Token::Name(self.quoted('`', false)?),
            '"' if self.sql_mode.ansi_quotes() => Token::Name(self.quoted('"', false)?),
            '"' | '\'' => {
                let has_escapes = !self.sql_mode.no_backslash_escapes();
                Token::Text(self.quoted(first, has_escapes)?)
            }
            c if is_name_part(c) => {
                let len = self.rest.find(|c| !is_name_part(c));
                let (word, rest) = self.rest.split_at(len.unwrap_or(self.rest.len()));
                self.rest = rest;
                Token::Word(word)
            }
            c => {
                self.rest = &self.rest[c.len_utf8()..];
                Token::Mark(c)
            }
        };
        Ok(Some(token))
    }

    fn space(&mut self) -> Result<(), Unclosed> {
        loop {
            let rest = self
                .rest
                .trim_start_matches(|c: char| c.is_ascii_whitespace() || c < ' ');
            self.rest = rest;
            let is_dashes =
                rest.starts_with("--") && rest[2..].chars().next().is_none_or(|c| c <= ' ');
            if rest.starts_with('#') || is_dashes {
                let line = rest.find('\n').map_or(rest.len(), |at| at + 1);
                self.rest = &rest[line..];
            } else if let Some(run) = rest
                .strip_prefix("/*!")
                .or_else(|| rest.strip_prefix("/*M!"))
                .or_else(|| rest.strip_prefix("/*m!"))
            {
                let digits = run.bytes().take(6).take_while(u8::is_ascii_digit).count();
                self.rest = &run[if digits >= 5 { digits } else { 0 }..];
                self.is_run = true;
            } else if let Some(comment) = rest.strip_prefix("/*") {
                let end = comment.find("*/").ok_or(Unclosed)?;
                self.rest = &comment[end + 2..];
            } else if self.is_run && rest.starts_with("*/") {
                self.rest = &rest[2..];
                self.is_run = false;
            } else {
                return Ok(());
            }
        }
    }

    /// What is between quotes; a doubled quote is one.
    fn quoted(&mut self, quote: char, has_escapes: bool) -> Result<Cow<'t, str>, Unclosed> {
        let mut rest = &self.rest[1..];
        let mut text = Cow::Borrowed("");
        loop {
            let at = rest.find(|c| c == quote || has_escapes && c == '\\');
            let at = at.ok_or(Unclosed)?;
            let (plain, tail) = rest.split_at(at);
            if text.is_empty() {
                text = Cow::Borrowed(plain);
            } else {
                text.to_mut().push_str(plain);
            }
            let mut following = tail.chars();
            let is_escape = following.next() == Some('\\');
            let escaped = following.next();
            match escaped {
                Some(c) if is_escape => {
                    text.to_mut().push(c);
                    rest = &tail[1 + c.len_utf8()..];
                }
                Some(c) if c == quote => {
                    text.to_mut().push(quote);
                    rest = &tail[2..];
                }
                _ if is_escape => return Err(Unclosed),
                _ => {
                    self.rest = &tail[1..];
                    return Ok(text);
                }
            }
        }
    }
}
