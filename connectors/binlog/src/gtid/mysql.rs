//! MySQL's positions: the set of all transactions that were applied.
//!
//! A set is, for each origin (server UUID and, since 8.3, tag), a list of intervals that are
//! sorted, not empty, and neither overlap nor touch. Every operation keeps that form, so
//! equal sets are equal values, and equal values print and encode as equal bytes. Holes are
//! legal and are never closed: a number that is missing was not applied.
//!
//! The binary form is the server's (`sql/rpl_gtid_set.cc`): a count, then for each origin
//! its UUID, its tag where the format is the tagged one, and intervals whose end is not part
//! of them. It is what COM_BINLOG_DUMP_GTID takes and what PREVIOUS_GTIDS holds. Servers
//! before 8.3 know the untagged format only, so that is what a set without tags becomes.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use smallvec::SmallVec;

use super::NotAGtid;
use crate::error::DecodeError;
use crate::fields::Fields;

/// The first number that no transaction can have (`GNO_END` of the server).
const NUMBER_END: u64 = i64::MAX as u64;

/// The UUID of a server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerUuid(pub [u8; 16]);

impl fmt::Display for ServerUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ServerUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ServerUuid {
    type Err = NotAGtid;

    /// With its hyphens or without them, as the server takes it.
    fn from_str(s: &str) -> Result<ServerUuid, NotAGtid> {
        const ERROR: NotAGtid = NotAGtid {
            what: "server UUID",
            expected: "32 hexadecimal digits, as in 3e11fa47-71ca-11e1-9e33-c80aa9429562",
        };
        let bytes = s.as_bytes();
        let has_hyphens = match bytes.len() {
            36 => true,
            32 => false,
            _ => return Err(ERROR),
        };
        let mut out = [0u8; 16];
        let mut digits = 0;
        for (at, &b) in bytes.iter().enumerate() {
            if has_hyphens && matches!(at, 8 | 13 | 18 | 23) {
                if b != b'-' {
                    return Err(ERROR);
                }
                continue;
            }
            let digit = char::from(b).to_digit(16).ok_or(ERROR)? as u8;
            let slot = out.get_mut(digits / 2).ok_or(ERROR)?;
            *slot = *slot << 4 | digit;
            digits += 1;
        }
        Ok(ServerUuid(out))
    }
}

/// The tag of a GTID (8.3 and later): empty, or a letter or underscore and up to 31 letters,
/// digits and underscores. Kept in lower case, as the server does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tag {
    /// Padded with zeros, so that the order of the arrays is that of the texts.
    text: [u8; Tag::MAX_LEN],
}

impl Tag {
    /// The longest tag.
    pub const MAX_LEN: usize = 32;
    /// No tag.
    pub const NONE: Tag = Tag {
        text: [0; Tag::MAX_LEN],
    };

    /// Whether there is no tag.
    pub fn is_empty(&self) -> bool {
        self.text[0] == 0
    }

    /// The tag's text.
    pub fn as_str(&self) -> &str {
        let len = self.text.iter().position(|&b| b == 0);
        let text = &self.text[..len.unwrap_or(Tag::MAX_LEN)];
        std::str::from_utf8(text).unwrap_or_default()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Tag> {
        let mut tag = Tag::NONE;
        let is_allowed = |(at, b): (usize, &u8)| {
            b.is_ascii_alphabetic() || *b == b'_' || (at > 0 && b.is_ascii_digit())
        };
        if !bytes.iter().enumerate().all(is_allowed) {
            return None;
        }
        tag.text.get_mut(..bytes.len())?.copy_from_slice(bytes);
        tag.text.make_ascii_lowercase();
        Some(tag)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Tag {
    type Err = NotAGtid;

    fn from_str(s: &str) -> Result<Tag, NotAGtid> {
        Tag::from_bytes(s.as_bytes()).ok_or(NotAGtid {
            what: "GTID tag",
            expected: "up to 32 letters, digits and underscores, not beginning with a digit",
        })
    }
}

/// Where a sequence of numbers comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The server on which the transactions were committed first.
    pub uuid: ServerUuid,
    /// Their tag.
    pub tag: Tag,
}

impl From<ServerUuid> for Origin {
    fn from(uuid: ServerUuid) -> Origin {
        Origin {
            uuid,
            tag: Tag::NONE,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid.fmt(f)?;
        if !self.tag.is_empty() {
            write!(f, ":{}", self.tag.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One transaction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gtid {
    origin: Origin,
    number: u64,
}

const NOT_A_GTID: NotAGtid = NotAGtid {
    what: "GTID",
    expected: "uuid:number or uuid:tag:number",
};

impl Gtid {
    /// A transaction of an origin.
    ///
    /// # Errors
    /// When the number is not one that a transaction can have (1 up to 2^63-2).
    pub fn new(origin: Origin, number: u64) -> Result<Gtid, NotAGtid> {
        if (1..NUMBER_END).contains(&number) {
            Ok(Gtid { origin, number })
        } else {
            Err(NOT_A_GTID)
        }
    }

    /// Where it comes from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Its number within its origin, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.origin, self.number)
    }
}

impl fmt::Debug for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Gtid {
    type Err = NotAGtid;

    fn from_str(s: &str) -> Result<Gtid, NotAGtid> {
        let (origin, n) = s.trim_ascii().rsplit_once(':').ok_or(NOT_A_GTID)?;
        let (uuid, tag) = match origin.split_once(':') {
            Some((_, "")) => return Err(NOT_A_GTID),
            Some((uuid, tag)) => (uuid.parse()?, tag.parse()?),
            None => (origin.parse()?, Tag::NONE),
        };
        Gtid::new(Origin { uuid, tag }, number(n).ok_or(NOT_A_GTID)?)
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// Numbers from `start` up to but not including `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interval {
    /// The first number, at least 1.
    pub start: u64,
    /// The first number behind it.
    pub end: u64,
}

/// Sorted, not empty, neither overlapping nor touching.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct Intervals(SmallVec<[Interval; 2]>);

impl Intervals {
    fn contains(&self, number: u64) -> bool {
        let behind = self.0.partition_point(|i| i.start <= number);
        behind > 0 && number < self.0[behind - 1].end
    }

    fn add(&mut self, new: Interval) {
        if new.start >= new.end {
            return;
        }
        // What happens for each transaction: the next number of the last interval.
        if let Some(last) = self.0.last_mut()
            && new.start == last.end
        {
            last.end = new.end;
            return;
        }
        let first = self.0.partition_point(|i| i.end < new.start);
        let behind = self.0.partition_point(|i| i.start <= new.end);
        if first == behind {
            self.0.insert(first, new);
            return;
        }
        let merged = Interval {
            start: new.start.min(self.0[first].start),
            end: new.end.max(self.0[behind - 1].end),
        };
        self.0[first] = merged;
        self.0.drain(first + 1..behind);
    }

    fn subtract(&mut self, gone: &Intervals) {
        if gone.0.is_empty() {
            return;
        }
        let mut left = SmallVec::new();
        let mut from = 0;
        for &whole in &self.0 {
            let mut start = whole.start;
            while gone.0.get(from).is_some_and(|g| g.end <= start) {
                from += 1;
            }
            for g in gone.0[from..].iter().take_while(|g| g.start < whole.end) {
                if g.start > start {
                    left.push(Interval {
                        start,
                        end: g.start,
                    });
                }
                start = start.max(g.end);
            }
            if start < whole.end {
                left.push(Interval {
                    start,
                    end: whole.end,
                });
            }
        }
        self.0 = left;
    }

    fn covers(&self, other: &Intervals) -> bool {
        other.0.iter().all(|o| {
            let behind = self.0.partition_point(|i| i.start <= o.start);
            behind > 0 && o.end <= self.0[behind - 1].end
        })
    }
}

/// A set of transactions.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct GtidSet {
    /// No origin without an interval.
    origins: BTreeMap<Origin, Intervals>,
}

impl GtidSet {
    /// The empty set.
    pub fn new() -> Self {
        GtidSet::default()
    }

    /// Whether there is no transaction in it.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// Whether the transaction is in it.
    pub fn contains(&self, gtid: Gtid) -> bool {
        self.origins
            .get(&gtid.origin)
            .is_some_and(|i| i.contains(gtid.number))
    }

    /// Whether every transaction of the other set is in this one.
    pub fn contains_all(&self, other: &GtidSet) -> bool {
        other.origins.iter().all(|(origin, theirs)| {
            self.origins
                .get(origin)
                .is_some_and(|ours| ours.covers(theirs))
        })
    }

    /// Adds one transaction.
    pub fn add(&mut self, gtid: Gtid) {
        self.add_interval(
            gtid.origin,
            Interval {
                start: gtid.number,
                end: gtid.number + 1,
            },
        );
    }

    fn add_interval(&mut self, origin: Origin, interval: Interval) {
        if interval.start < interval.end {
            self.origins.entry(origin).or_default().add(interval);
        }
    }

    /// Adds every transaction of the other set.
    pub fn add_all(&mut self, other: &GtidSet) {
        for (origin, theirs) in &other.origins {
            let ours = self.origins.entry(*origin).or_default();
            for &interval in &theirs.0 {
                ours.add(interval);
            }
        }
    }

    /// Takes every transaction of the other set out.
    pub fn remove_all(&mut self, other: &GtidSet) {
        for (origin, theirs) in &other.origins {
            if let Some(ours) = self.origins.get_mut(origin) {
                ours.subtract(theirs);
                if ours.0.is_empty() {
                    self.origins.remove(origin);
                }
            }
        }
    }

    /// What is in this set and not in the other (the server's `GTID_SUBTRACT`).
    #[must_use]
    pub fn minus(&self, other: &GtidSet) -> GtidSet {
        let mut left = self.clone();
        left.remove_all(other);
        left
    }

    /// How many transactions are in it; `u64::MAX` when they are more.
    pub fn count(&self) -> u64 {
        self.origins
            .values()
            .flat_map(|i| &i.0)
            .fold(0, |sum: u64, i| sum.saturating_add(i.end - i.start))
    }

    /// The origins, in order, with their intervals.
    pub fn origins(&self) -> impl Iterator<Item = (Origin, &[Interval])> {
        self.origins.iter().map(|(o, i)| (*o, i.0.as_slice()))
    }

    /// Whether any of its origins has a tag: only servers from 8.3 on take such a set.
    pub fn has_tags(&self) -> bool {
        self.origins.keys().any(|o| !o.tag.is_empty())
    }

    /// Appends the server's binary form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let count = self.origins.len() as u64;
        let is_tagged = self.has_tags();
        let head = if is_tagged {
            TAGGED << 56 | count << 8 | TAGGED
        } else {
            count
        };
        out.extend(head.to_le_bytes());
        for (origin, intervals) in &self.origins {
            out.extend(origin.uuid.0);
            if is_tagged {
                let tag = origin.tag.as_str().as_bytes();
                // A length below 128 in the library's form of variable length.
                out.push((tag.len() as u8) << 1);
                out.extend(tag);
            }
            out.extend((intervals.0.len() as u64).to_le_bytes());
            for interval in &intervals.0 {
                out.extend(interval.start.to_le_bytes());
                out.extend(interval.end.to_le_bytes());
            }
        }
    }

    /// Reads the server's binary form.
    ///
    /// # Errors
    /// When the bytes are not one.
    pub fn decode(bytes: &[u8]) -> Result<GtidSet, DecodeError> {
        let mut f = Fields::new("an encoded GTID set", bytes);
        let head = f.u64()?;
        let (is_tagged, count) = match head >> 56 {
            0 => (false, head),
            TAGGED => (true, head << 8 >> 16),
            _ => return Err(f.bad("an unknown format")),
        };
        let mut set = GtidSet::new();
        for _ in 0..count {
            let uuid = ServerUuid(f.array()?);
            let tag = if is_tagged {
                let len = f.varlen()?;
                let len = usize::try_from(len).map_err(|_| f.short())?;
                Tag::from_bytes(f.bytes(len)?).ok_or_else(|| f.bad("a tag that is none"))?
            } else {
                Tag::NONE
            };
            let intervals = f.u64()?;
            for _ in 0..intervals {
                let interval = Interval {
                    start: f.u64()?,
                    end: f.u64()?,
                };
                if interval.start < 1 || interval.end <= interval.start || interval.end > NUMBER_END
                {
                    return Err(f.bad("an interval that is none"));
                }
                set.add_interval(Origin { uuid, tag }, interval);
            }
        }
        if !f.is_empty() {
            return Err(f.bad("bytes behind its end"));
        }
        Ok(set)
    }
}

/// The format byte of a set with tags.
const TAGGED: u64 = 1;

impl FromIterator<Gtid> for GtidSet {
    fn from_iter<I: IntoIterator<Item = Gtid>>(gtids: I) -> Self {
        let mut set = GtidSet::new();
        for gtid in gtids {
            set.add(gtid);
        }
        set
    }
}

/// As the server prints it, on one line: it breaks the line behind each comma.
impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut uuid = None;
        for (origin, intervals) in &self.origins {
            if uuid != Some(origin.uuid) {
                if uuid.is_some() {
                    f.write_str(",")?;
                }
                uuid = Some(origin.uuid);
                origin.uuid.fmt(f)?;
            }
            if !origin.tag.is_empty() {
                write!(f, ":{}", origin.tag.as_str())?;
            }
            for i in &intervals.0 {
                write!(f, ":{}", i.start)?;
                if i.end - i.start > 1 {
                    write!(f, "-{}", i.end - 1)?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const NOT_A_SET: NotAGtid = NotAGtid {
    what: "GTID set",
    expected: "uuid:interval[:interval]…[:tag:interval…], with commas between",
};

impl FromStr for GtidSet {
    type Err = NotAGtid;

    /// Takes what the server takes: spaces and line breaks between parts, empty parts,
    /// intervals in any order, overlapping or empty.
    fn from_str(s: &str) -> Result<GtidSet, NotAGtid> {
        let mut set = GtidSet::new();
        for part in s.split(',').map(str::trim_ascii) {
            if part.is_empty() {
                continue;
            }
            let mut parts = part.split(':').map(str::trim_ascii);
            let uuid = parts.next().ok_or(NOT_A_SET)?.parse()?;
            let mut origin = Origin {
                uuid,
                tag: Tag::NONE,
            };
            let mut is_expected = true;
            for text in parts {
                if text.is_empty() {
                    return Err(NOT_A_SET);
                }
                if !text.as_bytes()[0].is_ascii_digit() {
                    origin.tag = text.parse()?;
                    is_expected = true;
                    continue;
                }
                let (start, last) = match text.split_once('-') {
                    Some((start, last)) => (number(start.trim_ascii()), number(last.trim_ascii())),
                    None => (number(text), number(text)),
                };
                let (Some(start), Some(last)) = (start, last) else {
                    return Err(NOT_A_SET);
                };
                if start < 1 || last >= NUMBER_END {
                    return Err(NOT_A_SET);
                }
                is_expected = false;
                let end = last + 1;
                set.add_interval(origin, Interval { start, end });
            }
            if is_expected {
                return Err(NOT_A_SET);
            }
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests;
