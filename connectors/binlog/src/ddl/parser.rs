//! From the first words of a statement to its effects.

use rollcall_contract::TableName;

use super::lexer::{Lexer, Token, Unclosed};
use super::{Effect, OwnedXid, Session, Statement, XaVerb};

/// Not understood.
struct Unreadable;

impl From<Unclosed> for Unreadable {
    fn from(_: Unclosed) -> Self {
        Unreadable
    }
}

type Result<T> = std::result::Result<T, Unreadable>;

pub(super) fn statement(text: &str, session: &Session<'_>) -> Statement {
    let mut words = Words {
        lexer: Lexer::new(text, session.sql_mode),
        ahead: None,
        session,
    };
    words.statement().unwrap_or(Statement::Unreadable)
}

/// Statements that cannot touch the rows of a table, by their first word.
const NOTHING: &[&str] = &[
    "ANALYZE",
    "BINLOG",
    "CACHE",
    "CHANGE",
    "CHECK",
    "CHECKSUM",
    "CLONE",
    "DEALLOCATE",
    "DESC",
    "DESCRIBE",
    "EXECUTE",
    "EXPLAIN",
    "FLUSH",
    "GET",
    "GRANT",
    "HELP",
    "INSTALL",
    "KILL",
    "LOCK",
    "OPTIMIZE",
    "PREPARE",
    "PURGE",
    "REPAIR",
    "RESET",
    "RESIGNAL",
    "REVOKE",
    "SHOW",
    "SHUTDOWN",
    "SIGNAL",
    "STOP",
    "UNINSTALL",
    "UNLOCK",
    "USE",
];

/// Statements that change rows; in row format their rows are logged in their place.
const ROWS: &[&str] = &[
    "CALL", "DELETE", "DO", "INSERT", "LOAD", "REPLACE", "SELECT", "TABLE", "UPDATE", "VALUES",
    "WITH",
];

struct Words<'t, 's> {
    lexer: Lexer<'t>,
    ahead: Option<Token<'t>>,
    session: &'s Session<'s>,
}

impl<'t> Words<'t, '_> {
    fn peek(&mut self) -> Result<Option<&Token<'t>>> {
        if self.ahead.is_none() {
            self.ahead = self.lexer.next()?;
        }
        Ok(self.ahead.as_ref())
    }

    fn next(&mut self) -> Result<Option<Token<'t>>> {
        self.peek()?;
        Ok(self.ahead.take())
    }

    /// Takes the word if it comes next.
    fn take(&mut self, word: &str) -> Result<bool> {
        let is_next = self.peek()?.is_some_and(|t| t.is_word(word));
        if is_next {
            self.ahead = None;
        }
        Ok(is_next)
    }

    fn take_mark(&mut self, mark: char) -> Result<bool> {
        let is_next = self.peek()? == Some(&Token::Mark(mark));
        if is_next {
            self.ahead = None;
        }
        Ok(is_next)
    }

    fn take_any(&mut self, words: &[&str]) -> Result<bool> {
        for word in words {
            if self.take(word)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `IF EXISTS` or `IF NOT EXISTS`.
    fn condition(&mut self) -> Result<()> {
        if self.take("IF")? {
            self.take("NOT")?;
            if !self.take("EXISTS")? {
                return Err(Unreadable);
            }
        }
        Ok(())
    }

    fn name(&mut self) -> Result<String> {
        match self.next()? {
            Some(Token::Word(word)) => Ok(word.to_owned()),
            Some(Token::Name(name)) => Ok(name.into_owned()),
            _ => Err(Unreadable),
        }
    }

    fn table(&mut self) -> Result<TableName> {
        // `.t` is an old way to write a table of the default database.
        let first = if self.take_mark('.')? {
            None
        } else {
            Some(self.name()?)
        };
        let (database, table) = match first {
            Some(first) if self.take_mark('.')? => (first, self.name()?),
            Some(table) => (self.session.database.to_owned(), table),
            None => (self.session.database.to_owned(), self.name()?),
        };
        if database.is_empty() {
            return Err(Unreadable);
        }
        Ok(TableName::new(database, table))
    }

    /// MariaDB's `WAIT n` or `NOWAIT` behind the name of a table.
    fn wait(&mut self) -> Result<()> {
        if self.take("WAIT")? {
            self.next()?;
        } else {
            self.take("NOWAIT")?;
        }
        Ok(())
    }

    /// Nothing may follow but a semicolon.
    fn end(&mut self) -> Result<()> {
        while self.take_mark(';')? {}
        match self.peek()? {
            None => Ok(()),
            Some(_) => Err(Unreadable),
        }
    }

    fn statement(&mut self) -> Result<Statement> {
        let first = loop {
            match self.next()? {
                None => return Ok(Statement::Nothing),
                Some(Token::Word(word)) => break word.to_ascii_uppercase(),
                Some(Token::Mark('(' | ';')) => {}
                Some(_) => return Err(Unreadable),
            }
        };
        match first.as_str() {
            "BEGIN" => {
                self.take("WORK")?;
                self.end()?;
                Ok(Statement::Begin)
            }
            "START" if self.take("TRANSACTION")? => Ok(Statement::Begin),
            "START" => Ok(Statement::Nothing),
            "COMMIT" => Ok(Statement::Commit),
            "ROLLBACK" => {
                self.take("WORK")?;
                Ok(if self.take("TO")? {
                    Statement::RollbackToSavepoint
                } else {
                    Statement::Rollback
                })
            }
            "SAVEPOINT" | "RELEASE" => Ok(Statement::Savepoint),
            "XA" => self.xa(),
            "CREATE" => self.create(),
            "DROP" => self.drop(),
            "TRUNCATE" => {
                self.take("TABLE")?;
                let table = self.table()?;
                Ok(Statement::Ddl(vec![Effect::Truncated(table)]))
            }
            "RENAME" => self.rename(),
            "ALTER" => self.alter(),
            // MariaDB: variables for one statement.
            "SET" if self.take("STATEMENT")? => {
                while let Some(token) = self.next()? {
                    if token.is_word("FOR") {
                        return self.statement();
                    }
                }
                Err(Unreadable)
            }
            "SET" => Ok(Statement::Nothing),
            first if ROWS.contains(&first) => Ok(Statement::UnloggedRows),
            first if NOTHING.contains(&first) => Ok(Statement::Nothing),
            _ => Err(Unreadable),
        }
    }

    fn xa(&mut self) -> Result<Statement> {
        let verb = match self.name()?.to_ascii_uppercase().as_str() {
            "START" | "BEGIN" => XaVerb::Start,
            "END" => XaVerb::End,
            "PREPARE" => XaVerb::Prepare,
            "COMMIT" => XaVerb::Commit,
            "ROLLBACK" => XaVerb::Rollback,
            "RECOVER" => return Ok(Statement::Nothing),
            _ => return Err(Unreadable),
        };
        let mut xid = OwnedXid {
            format: 1,
            global: self.bytes()?,
            branch: Vec::new(),
        };
        if self.take_mark(',')? {
            xid.branch = self.bytes()?;
            if self.take_mark(',')? {
                xid.format = self.name()?.parse().map_err(|_| Unreadable)?;
            }
        }
        Ok(Statement::Xa { verb, xid })
    }

    /// `X'6162'`, `0x6162` or `'ab'`.
    fn bytes(&mut self) -> Result<Vec<u8>> {
        match self.next()? {
            Some(Token::Text(text)) => Ok(text.as_bytes().to_vec()),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("x") => match self.next()? {
                Some(Token::Text(digits)) => unhex(&digits),
                _ => Err(Unreadable),
            },
            Some(Token::Word(word)) => unhex(word.strip_prefix("0x").ok_or(Unreadable)?),
            _ => Err(Unreadable),
        }
    }

    fn create(&mut self) -> Result<Statement> {
        let is_replacing = self.take("OR")? && self.take("REPLACE")?;
        if self.take("TEMPORARY")? {
            return Ok(Statement::Nothing);
        }
        if self.take("TABLE")? {
            self.condition()?;
            let table = self.table()?;
            let mut effects = Vec::new();
            if is_replacing {
                effects.push(Effect::Dropped(table.clone()));
            }
            let mut has_rows = false;
            while let Some(token) = self.next()? {
                has_rows |= token.is_word("SELECT") || token.is_word("VALUES");
                // Partitions are described with VALUES too.
                if token.is_word("PARTITION") && !has_rows {
                    break;
                }
            }
            while let Some(token) = self.next()? {
                has_rows |= token.is_word("SELECT");
            }
            effects.push(if has_rows {
                Effect::CreatedWithRows(table)
            } else {
                Effect::Created(table)
            });
            return Ok(Statement::Ddl(effects));
        }
        if self.take_any(&["DATABASE", "SCHEMA"])? {
            if !is_replacing {
                return Ok(Statement::Ddl(Vec::new()));
            }
            self.condition()?;
            return Ok(Statement::Ddl(vec![Effect::DatabaseDropped(self.name()?)]));
        }
        self.take("ONLINE")?;
        self.take("OFFLINE")?;
        self.take_any(&["UNIQUE", "FULLTEXT", "SPATIAL", "VECTOR"])?;
        if self.take("INDEX")? {
            return self.on_table();
        }
        self.other_object()
    }

    /// `… ON table` of CREATE INDEX and DROP INDEX.
    fn on_table(&mut self) -> Result<Statement> {
        while let Some(token) = self.next()? {
            if token.is_word("ON") {
                return Ok(Statement::Ddl(vec![Effect::Altered(self.table()?)]));
            }
        }
        Err(Unreadable)
    }

    /// What CREATE, ALTER and DROP name besides tables, databases and indexes.
    fn other_object(&mut self) -> Result<Statement> {
        const OBJECTS: &[&str] = &[
            "AGGREGATE",
            "ALGORITHM",
            "DEFINER",
            "EVENT",
            "FUNCTION",
            "INSTANCE",
            "JSON",
            "LIBRARY",
            "LOGFILE",
            "PACKAGE",
            "PREPARE",
            "PROCEDURE",
            "RESOURCE",
            "ROLE",
            "SEQUENCE",
            "SERVER",
            "SPATIAL",
            "SQL",
            "TABLESPACE",
            "TRIGGER",
            "UNDO",
            "USER",
            "VIEW",
            "REFERENCE",
            "MATERIALIZED",
        ];
        if self.take_any(OBJECTS)? {
            Ok(Statement::Nothing)
        } else {
            Err(Unreadable)
        }
    }

    fn drop(&mut self) -> Result<Statement> {
        if self.take("TEMPORARY")? {
            return Ok(Statement::Nothing);
        }
        if self.take_any(&["TABLE", "TABLES"])? {
            self.condition()?;
            let mut effects = Vec::new();
            loop {
                effects.push(Effect::Dropped(self.table()?));
                if !self.take_mark(',')? {
                    break;
                }
            }
            self.take_any(&["RESTRICT", "CASCADE"])?;
            self.wait()?;
            self.end()?;
            return Ok(Statement::Ddl(effects));
        }
        if self.take_any(&["DATABASE", "SCHEMA"])? {
            self.condition()?;
            return Ok(Statement::Ddl(vec![Effect::DatabaseDropped(self.name()?)]));
        }
        self.take("ONLINE")?;
        self.take("OFFLINE")?;
        if self.take("INDEX")? {
            return self.on_table();
        }
        self.other_object()
    }

    fn rename(&mut self) -> Result<Statement> {
        if self.take("USER")? {
            return Ok(Statement::Nothing);
        }
        if !self.take_any(&["TABLE", "TABLES"])? {
            return Err(Unreadable);
        }
        self.condition()?;
        let mut effects = Vec::new();
        loop {
            let from = self.table()?;
            self.wait()?;
            if !self.take("TO")? {
                return Err(Unreadable);
            }
            let to = self.table()?;
            effects.push(Effect::Renamed { from, to });
            if !self.take_mark(',')? {
                break;
            }
        }
        self.end()?;
        Ok(Statement::Ddl(effects))
    }

    fn alter(&mut self) -> Result<Statement> {
        self.take("ONLINE")?;
        self.take("OFFLINE")?;
        self.take("IGNORE")?;
        if self.take_any(&["DATABASE", "SCHEMA"])? {
            return Ok(Statement::Ddl(Vec::new()));
        }
        if !self.take("TABLE")? {
            return self.other_object();
        }
        self.condition()?;
        let table = self.table()?;
        self.wait()?;
        let mut effects = vec![Effect::Altered(table.clone())];
        let mut renamed = None;
        let mut is_first = true;
        let mut depth = 0usize;
        // Parts have commas between them; the word behind one says what it does.
        loop {
            if is_first && depth == 0 {
                is_first = false;
                self.part(&table, &mut effects, &mut renamed)?;
            }
            match self.next()? {
                None => break,
                Some(Token::Mark('(')) => depth += 1,
                Some(Token::Mark(')')) => depth = depth.saturating_sub(1),
                Some(Token::Mark(',')) => is_first = true,
                Some(_) => {}
            }
        }
        if let Some(to) = renamed {
            effects.push(Effect::Renamed { from: table, to });
        }
        Ok(Statement::Ddl(effects))
    }

    fn part(
        &mut self,
        table: &TableName,
        effects: &mut Vec<Effect>,
        renamed: &mut Option<TableName>,
    ) -> Result<()> {
        let moved = |effects: &mut Vec<Effect>, table| effects.push(Effect::RowsMoved(table));
        if self.take("RENAME")? {
            if !self.take_any(&["COLUMN", "INDEX", "KEY"])? {
                if !self.take_any(&["TO", "AS"])? {
                    self.take_mark('=')?;
                }
                *renamed = Some(self.table()?);
            }
        } else if self.take_any(&["DROP", "TRUNCATE"])? {
            if self.take("PARTITION")? {
                moved(effects, table.clone());
            }
        } else if self.take_any(&["DISCARD", "IMPORT"])? {
            moved(effects, table.clone());
        } else if self.take("EXCHANGE")? {
            moved(effects, table.clone());
            while let Some(token) = self.next()? {
                if token.is_word("TABLE") {
                    moved(effects, self.table()?);
                    return Ok(());
                }
            }
            return Err(Unreadable);
        } else if self.take("CONVERT")? {
            // MariaDB: a partition becomes a table, or a table a partition.
            if self.take("PARTITION")? {
                moved(effects, table.clone());
                self.name()?;
                if self.take("TO")? && self.take("TABLE")? {
                    effects.push(Effect::CreatedWithRows(self.table()?));
                }
            } else if self.take("TABLE")? {
                let other = self.table()?;
                moved(effects, table.clone());
                effects.push(Effect::Dropped(other));
            }
        }
        Ok(())
    }
}

fn unhex(digits: &str) -> Result<Vec<u8>> {
    let bytes = digits.as_bytes();
    if !bytes.len().is_multiple_of(2) {
        return Err(Unreadable);
    }
    bytes
        .chunks(2)
        .map(|pair| {
            let digit = |b: u8| char::from(b).to_digit(16);
            let (high, low) = (digit(pair[0]), digit(pair[1]));
            Some((high? << 4 | low?) as u8)
        })
        .collect::<Option<_>>()
        .ok_or(Unreadable)
}
