//! The name of a table, as an operator writes it and as a server reads it.
//!
//! PostgreSQL folds what is not in double quotes to small letters, and a name there begins
//! with no digit. MySQL and MariaDB keep a name as it is written: in backticks, in double
//! quotes (as with `ANSI_QUOTES`), or in none. Inside quotes, a doubled quote stands for
//! one.

use rollcall_contract::TableName;

/// How a kind of server reads names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// As PostgreSQL.
    Postgres,
    /// As MySQL and MariaDB.
    MySql,
}

impl Naming {
    /// Reads `schema.table`.
    pub fn parse(self, text: &str) -> Option<TableName> {
        let (schema, rest) = self.part(text)?;
        let (name, end) = self.part(rest.strip_prefix('.')?)?;
        end.is_empty().then(|| TableName::new(schema, name))
    }

    /// Whether it is the name of a table without its schema.
    pub(super) fn is_one_name(self, text: &str) -> bool {
        self.part(text).is_some_and(|(_, rest)| rest.is_empty())
    }

    /// Writes it so that [`Naming::parse`] reads the same, with quotes only where they are
    /// needed.
    pub fn write(self, table: &TableName) -> String {
        let part = |name: &str| {
            let quote = self.quotes()[0];
            match self.part(name) {
                Some((read, "")) if read == name && !name.starts_with(self.quotes()) => {
                    name.to_owned()
                }
                _ => {
                    let inner = name.replace(quote, &format!("{quote}{quote}"));
                    format!("{quote}{inner}{quote}")
                }
            }
        };
        format!("{}.{}", part(&table.schema), part(&table.name))
    }

    fn quotes(self) -> [char; 2] {
        match self {
            Naming::Postgres => ['"', '"'],
            Naming::MySql => ['`', '"'],
        }
    }

    /// One name, and what comes behind it.
    fn part(self, text: &str) -> Option<(String, &str)> {
        let Some(quote) = text.chars().next().filter(|c| self.quotes().contains(c)) else {
            let end = text.find(['.', '"', '`']).unwrap_or(text.len());
            let (name, rest) = text.split_at(end);
            let folds = self == Naming::Postgres;
            let first = name.chars().next()?;
            let plain = !(folds && first.is_ascii_digit())
                && name
                    .chars()
                    .all(|c| c.is_alphanumeric() || matches!(c, '_' | '$'));
            let read = match folds {
                true => name.to_ascii_lowercase(),
                false => name.to_owned(),
            };
            return plain.then_some((read, rest));
        };
        let mut rest = text.strip_prefix(quote)?;
        let mut name = String::new();
        loop {
            let (part, behind) = rest.split_once(quote)?;
            name.push_str(part);
            match behind.strip_prefix(quote) {
                Some(more) => {
                    name.push(quote);
                    rest = more;
                }
                None => return (!name.is_empty()).then_some((name, behind)),
            }
        }
    }
}
