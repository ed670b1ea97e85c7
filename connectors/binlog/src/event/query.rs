//! QUERY: a statement, with the part of the session that decides how it reads.

use std::borrow::Cow;

use crate::error::DecodeError;
use crate::fields::Fields;

/// The part of `sql_mode` that decides how a statement is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SqlMode(u64);

impl SqlMode {
    /// From the bits that both servers write.
    pub fn from_bits(bits: u64) -> Self {
        SqlMode(bits)
    }

    /// Double quotes enclose names, not strings.
    pub fn ansi_quotes(self) -> bool {
        self.0 & (1 << 2) != 0
    }

    /// A backslash in a string is a backslash.
    pub fn no_backslash_escapes(self) -> bool {
        self.0 & (1 << 20) != 0
    }
}

/// A statement.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The default database; empty for none.
    pub database: &'a str,
    /// The error that the statement ended with; 0 for none.
    pub error: u16,
    /// How the statement is to be read.
    pub sql_mode: SqlMode,
    /// The collation of the client's character set, in which the statement is written.
    pub client_collation: Option<u16>,
    /// The session's default collation for new tables.
    pub server_collation: Option<u16>,
    /// Microseconds of the second in the event's header.
    pub micros: Option<u32>,
    updated: Updated<'a>,
    text: &'a [u8],
    is_compressed: bool,
}

/// Which databases the statement changes.
#[derive(Clone, Copy, Debug)]
enum Updated<'a> {
    /// The server does not say, or they are too many.
    Unknown,
    /// Names with a zero byte behind each.
    Named(&'a [u8]),
}

impl<'a> Query<'a> {
    pub(super) fn parse(body: &'a [u8], is_compressed: bool) -> Result<Self, DecodeError> {
        let mut f = Fields::new("a QUERY event", body);
        let _thread = f.u32()?;
        let _seconds = f.u32()?;
        let database_len = usize::from(f.u8()?);
        let error = f.u16()?;
        let status_len = usize::from(f.u16()?);
        let status = f.bytes(status_len)?;
        let database = f.bytes(database_len)?;
        let database = f.name(database)?;
        if f.u8()? != 0 {
            return Err(f.bad("a database name without its end"));
        }
        let mut query = Query {
            database,
            error,
            sql_mode: SqlMode::default(),
            client_collation: None,
            server_collation: None,
            micros: None,
            updated: Updated::Unknown,
            text: f.rest(),
            is_compressed,
        };
        query.read_status(Fields::new("the status of a QUERY event", status))?;
        Ok(query)
    }

    /// The variables of `Query_event::Query_event_status_vars`. Each has a length of its
    /// own, so what stands behind an unknown one cannot be read; the servers write those
    /// that matter here first.
    fn read_status(&mut self, mut f: Fields<'a>) -> Result<(), DecodeError> {
        while !f.is_empty() {
            match f.u8()? {
                0 => drop(f.u32()?),
                1 => self.sql_mode = SqlMode(f.u64()?),
                2 => {
                    let len = usize::from(f.u8()?);
                    f.bytes(len + 1)?;
                }
                3 => drop(f.u32()?),
                4 => {
                    self.client_collation = Some(f.u16()?);
                    let _connection = f.u16()?;
                    self.server_collation = Some(f.u16()?);
                }
                5 | 6 => {
                    let len = usize::from(f.u8()?);
                    f.bytes(len)?;
                }
                7 | 8 | 18 => drop(f.u16()?),
                9 | 17 | 129 => drop(f.u64()?),
                10 => drop(f.u32()?),
                11 => {
                    for _ in 0..2 {
                        let len = usize::from(f.u8()?);
                        f.bytes(len)?;
                    }
                }
                12 => {
                    // 254 stands for more than are named.
                    let count = f.u8()?;
                    if count != 254 {
                        let mut names = f;
                        for _ in 0..count {
                            f.until_zero()?;
                        }
                        self.updated = Updated::Named(names.bytes(names.len() - f.len())?);
                    }
                }
                13 | 128 => self.micros = Some(f.u24()?),
                16 | 19 | 20 => drop(f.u8()?),
                _ => break,
            }
        }
        Ok(())
    }

    /// The databases that the statement changes, if the server says so. For a statement in
    /// statement format these, and the default database, are what it may have touched.
    pub fn updated_databases(&self) -> Option<impl Iterator<Item = &'a str> + use<'a>> {
        match self.updated {
            Updated::Unknown => None,
            Updated::Named(names) => Some(
                names
                    .split(|b| *b == 0)
                    .filter(|name| !name.is_empty())
                    .filter_map(|name| std::str::from_utf8(name).ok()),
            ),
        }
    }

    /// The statement, in the client's character set.
    ///
    /// # Errors
    /// When it was compressed (MariaDB) and cannot be taken apart.
    pub fn text(&self) -> Result<Cow<'a, [u8]>, DecodeError> {
        if self.is_compressed {
            let mut out = Vec::new();
            crate::compressed::expand(self.text, &mut out)?;
            Ok(Cow::Owned(out))
        } else {
            Ok(Cow::Borrowed(self.text))
        }
    }
}
