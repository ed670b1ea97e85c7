//! Reading the parsed file key by key, and gathering what is wrong.
//!
//! Nothing here stops at an error. A reader returns `None` for a value only after it has
//! put an error down, and a value that was built from a `None` is itself `None`; so a
//! whole configuration exists exactly when no error was put down. A [`Section`] remembers
//! which keys it was asked for, and what is left over at its end is unknown: the list of
//! known keys is the parser itself.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place};
use super::keys::{self, Key, Kind, Presence};

/// The file under way.
pub(super) struct Document<'a> {
    file: &'a Path,
    text: &'a str,
    line_starts: Vec<usize>,
    errors: RefCell<Vec<ConfigError>>,
    places: RefCell<BTreeMap<String, Place>>,
    #[cfg(test)]
    pub(super) asked: RefCell<BTreeSet<String>>,
}

impl<'a> Document<'a> {
    pub(super) fn new(file: &'a Path, text: &'a str) -> Document<'a> {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Document {
            file,
            text,
            line_starts: std::iter::once(0).chain(breaks).collect(),
            errors: RefCell::default(),
            places: RefCell::default(),
            #[cfg(test)]
            asked: RefCell::default(),
        }
    }

    pub(super) fn file(&self) -> &'a Path {
        self.file
    }

    pub(super) fn place(&self, span: Range<usize>) -> Place {
        let line = self
            .line_starts
            .partition_point(|start| *start <= span.start);
        let start = self
            .line_starts
            .get(line.saturating_sub(1))
            .copied()
            .unwrap_or(0);
        let before = self.text.get(start..span.start).unwrap_or("");
        Place {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(before.chars().count() + 1).unwrap_or(u32::MAX),
        }
    }

    pub(super) fn reject(
        &self,
        place: Place,
        key: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.errors.borrow_mut().push(ConfigError {
            file: self.file.to_path_buf(),
            place: Some(place),
            key: key.into(),
            found: found.into(),
            expected: expected.into(),
            fix: fix.into(),
        });
    }

    /// The top of the file.
    pub(super) fn root(&'a self, table: &'a DeTable<'a>) -> Section<'a> {
        Section {
            document: self,
            path: String::new(),
            pattern: String::new(),
            table: Some(table),
            place: Place::START,
            seen: RefCell::default(),
        }
    }

    pub(super) fn finish(self) -> (Vec<ConfigError>, BTreeMap<String, Place>) {
        (self.errors.into_inner(), self.places.into_inner())
    }

    /// Remembers that the parser knows this key, for the test that holds the parser against
    /// the table of keys.
    fn ask(&self, pattern: &str) {
        #[cfg(test)]
        self.asked.borrow_mut().insert(pattern.to_owned());
        #[cfg(not(test))]
        let _ = pattern;
    }

    fn note(&self, path: &str, place: Place) {
        self.places.borrow_mut().insert(path.to_owned(), place);
    }
}

/// A table of the file, or the place where one could be.
pub(super) struct Section<'a> {
    document: &'a Document<'a>,
    path: String,
    pattern: String,
    table: Option<&'a DeTable<'a>>,
    place: Place,
    seen: RefCell<BTreeSet<String>>,
}

impl<'a> Section<'a> {
    pub(super) fn document(&self) -> &'a Document<'a> {
        self.document
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn pattern(&self) -> &str {
        &self.pattern
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// How an operator calls this table.
    pub(super) fn title(&self) -> String {
        if self.path.is_empty() {
            "the top of the file".to_owned()
        } else {
            format!("[{}]", self.path)
        }
    }

    /// A value that may be absent; its default counts then, if it has one. The outer
    /// option is none after an error.
    #[expect(
        clippy::option_option,
        reason = "absent and wrong are two things: absent is a valid configuration"
    )]
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&Item<'_>) -> Option<T>,
    ) -> Option<Option<T>> {
        if let Some(item) = self.item(key) {
            return parse(&item).map(Some);
        }
        let entry = self.entry(key);
        let Presence::Default(text) = entry.presence else {
            return Some(None);
        };
        let value = DeValue::parse(text).ok()?;
        let item = Item {
            document: self.document,
            path: child(&self.path, key),
            key: entry,
            value: &value,
            place: self.place,
            key_place: self.place,
        };
        parse(&item).map(Some)
    }

    /// A value that has to be there or has a default.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&Item<'_>) -> Option<T>,
    ) -> Option<T> {
        match self.optional(key, parse)? {
            Some(value) => Some(value),
            None => {
                self.missing(key);
                None
            }
        }
    }

    /// Says that a key is missing.
    pub(super) fn missing(&self, key: &'static str) {
        let entry = self.entry(key);
        let fix = match entry.kind {
            Kind::Table => format!("add [{}]", child(&self.path, key)),
            _ => format!("add `{key} = {}` to {}", entry.example, self.title()),
        };
        self.document.reject(
            self.place,
            child(&self.path, key),
            "nothing",
            entry.kind.expected(),
            fix,
        );
    }

    /// The value of a key, if it is there.
    pub(super) fn item(&self, key: &'static str) -> Option<Item<'a>> {
        self.document.ask(&child(&self.pattern, key));
        self.seen.borrow_mut().insert(key.to_owned());
        let (name, value) = self.table?.get_key_value(key)?;
        Some(self.make_item(key, name.span(), value, self.entry(key)))
    }

    /// A table below; an absent one reads as empty.
    pub(super) fn section(&self, key: &'static str) -> Option<Section<'a>> {
        match self.item(key) {
            Some(item) => item.section(),
            None => Some(Section {
                document: self.document,
                path: child(&self.path, key),
                pattern: child(&self.pattern, key),
                table: None,
                place: self.place,
                seen: RefCell::default(),
            }),
        }
    }

    /// Whether the table stands in the file.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Everything in a table whose keys the operator chooses, in the order of the file.
    pub(super) fn entries(&self) -> Vec<(String, Item<'a>)> {
        self.entries_of(&self.pattern)
    }

    /// The same, for a table in a table whose keys count as keys of `pattern`.
    pub(super) fn entries_of(&self, pattern: &str) -> Vec<(String, Item<'a>)> {
        let pattern = child(pattern, "*");
        self.document.ask(&pattern);
        let mut entries: Vec<_> = self.table.map(|t| t.iter().collect()).unwrap_or_default();
        entries.sort_by_key(|(name, _): &(&Spanned<_>, _)| name.span().start);
        let entry = keys::find(&pattern).unwrap_or(&UNLISTED);
        entries
            .into_iter()
            .map(|(name, value)| {
                let text = name.get_ref().to_string();
                let item = self.make_item(&text, name.span(), value, entry);
                self.seen.borrow_mut().insert(text.clone());
                (text, item)
            })
            .collect()
    }

    /// The end of a table: what nobody asked for is unknown.
    pub(super) fn finish(&self) {
        let seen = self.seen.borrow().clone();
        self.reject_all_but(&seen);
    }

    /// The end of a table whose `type` is not known: keys of any type are let through.
    pub(super) fn finish_of_any_type(&self) {
        let prefix = format!("{}.", self.pattern);
        let known = keys::KEYS
            .iter()
            .filter_map(|key| key.pattern.strip_prefix(&prefix))
            .filter(|rest| !rest.contains('.'))
            .map(str::to_owned)
            .collect();
        self.reject_all_but(&known);
    }

    fn reject_all_but(&self, known: &BTreeSet<String>) {
        for (name, _) in self.table.into_iter().flatten() {
            let text: &str = name.get_ref();
            if known.contains(text) {
                continue;
            }
            let pattern = child(&self.pattern, text);
            let (found, fix) = match keys::find(&pattern).filter(|key| !key.only.is_empty()) {
                Some(key) => (
                    format!("a key that only {} has", key.only_in_words()),
                    "remove it".to_owned(),
                ),
                None => (
                    "an unknown key".to_owned(),
                    match suggest(text, known.iter().map(String::as_str)) {
                        Some(near) => format!("write `{near}`"),
                        None => self.elsewhere(text),
                    },
                ),
            };
            self.document.reject(
                self.document.place(name.span()),
                child(&self.path, text),
                found,
                format!("a key of {}", self.title()),
                fix,
            );
        }
    }

    /// Where a key that does not belong here would.
    fn elsewhere(&self, text: &str) -> String {
        let owner = keys::KEYS
            .iter()
            .filter(|key| key.leaf() == text)
            .find_map(|key| key.pattern.strip_suffix(text)?.strip_suffix('.'));
        match owner {
            Some(owner) => format!("move it to [{owner}], where such a key is known"),
            None if self.pattern.is_empty() => {
                "remove it; `rollcall config --explain` lists every key".to_owned()
            }
            None => format!(
                "remove it; `rollcall config --explain '{}'` lists the keys",
                self.pattern
            ),
        }
    }

    fn make_item(
        &self,
        name: &str,
        span: Range<usize>,
        value: &'a Spanned<DeValue<'a>>,
        key: &'static Key,
    ) -> Item<'a> {
        let path = child(&self.path, name);
        let key_place = self.document.place(span);
        self.document.note(&path, key_place);
        Item {
            document: self.document,
            path,
            key,
            value,
            place: self.document.place(value.span()),
            key_place,
        }
    }

    fn entry(&self, key: &str) -> &'static Key {
        keys::find(&child(&self.pattern, key)).unwrap_or(&UNLISTED)
    }
}

/// Stands in for a key that the table lacks; a test makes sure that there is none.
const UNLISTED: Key = Key {
    pattern: "",
    kind: Kind::Text,
    presence: Presence::Optional,
    meaning: "",
    example: "\"\"",
    only: &[],
};

/// A value of the file, with its key.
pub(super) struct Item<'a> {
    document: &'a Document<'a>,
    path: String,
    key: &'static Key,
    value: &'a Spanned<DeValue<'a>>,
    place: Place,
    key_place: Place,
}

impl<'a> Item<'a> {
    pub(super) fn value(&self) -> &'a DeValue<'a> {
        self.value.get_ref()
    }

    pub(super) fn document(&self) -> &'a Document<'a> {
        self.document
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn kind(&self) -> Kind {
        self.key.kind
    }

    /// Where the value begins.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Where the key stands.
    pub(super) fn key_place(&self) -> Place {
        self.key_place
    }

    /// The table that the value is.
    pub(super) fn section(&self) -> Option<Section<'a>> {
        match self.value() {
            DeValue::Table(table) => Some(Section {
                document: self.document,
                path: self.path.clone(),
                pattern: self.key.pattern.to_owned(),
                table: Some(table),
                place: self.key_place,
                seen: RefCell::default(),
            }),
            _ => self.wrong(),
        }
    }

    /// Puts an error down that names the value as it is.
    pub(super) fn wrong<T>(&self) -> Option<T> {
        self.reject(self.found(), self.key.kind.expected(), self.example())
    }

    /// Puts an error down.
    pub(super) fn reject<T>(
        &self,
        found: impl Into<String>,
        expected: impl Into<String>,
        fix: impl Into<String>,
    ) -> Option<T> {
        self.document
            .reject(self.place, self.path.as_str(), found, expected, fix);
        None
    }

    /// A fix that shows what a right value looks like.
    pub(super) fn example(&self) -> String {
        let name = match self.key.leaf() {
            "*" => self.path.rsplit('.').next().unwrap_or(&self.path),
            leaf => leaf,
        };
        format!("write for example `{name} = {}`", self.key.example)
    }

    /// The value in words.
    pub(super) fn found(&self) -> String {
        // A text where a table should be may hold anything, a credential too.
        let is_text = matches!(self.value(), DeValue::String(_));
        if self.key.kind == Kind::Secret || (self.key.kind == Kind::Table && is_text) {
            return format!("a {} (not shown)", self.value().type_str());
        }
        describe(self.value())
    }
}

/// A value in words; a long text is cut.
pub(super) fn describe(value: &DeValue<'_>) -> String {
    const SHOWN_CHARS: usize = 60;
    match value {
        DeValue::String(text) if text.chars().count() > SHOWN_CHARS => {
            let cut: String = text.chars().take(SHOWN_CHARS).collect();
            format!("the text {cut:?}…")
        }
        DeValue::String(text) => format!("the text {text:?}"),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(value) => format!("the date {value}"),
        DeValue::Array(items) if items.is_empty() => "an empty list".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// The nearest of the known words, if one is near enough to have been meant.
pub(super) fn suggest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let limit = (word.chars().count() / 3).max(1);
    known
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(
                &word.to_lowercase().replace('-', "_"),
                &candidate.to_lowercase().replace('-', "_"),
            );
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// A path with one more part, as an operator would write it.
pub(super) fn child(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}
