//! The cursor of MySQL and MariaDB, and what it is made of.
//!
//! Three things can name a position, and which of them counts depends on the server:
//!
//! - MySQL with GTIDs: the set of all transactions that were taken in. It belongs to the
//!   group of servers, so it survives a fail-over.
//! - MariaDB: the last GTID of each domain, for the same reason; beside it the place in the
//!   present server's log, which orders two transactions exactly where GTIDs may not.
//! - MySQL without GTIDs: the place alone, which is worth nothing on another server.
//!
//! A cursor names the end of the last whole transaction and, when a large one was split,
//! that transaction and how many of its changes were handed over. While XA transactions are
//! prepared and not ended, their rows are known to this process only; so the cursor also
//! says from where the log has to be read again for them. What comes a second time on that
//! way is recognised by the position and left out.

use std::fmt;
use std::sync::Arc;

use rollcall_binlog::gtid::mariadb::{self, GtidState};
use rollcall_binlog::gtid::mysql::{self, GtidSet};
use rollcall_contract::{ConnectorError, Cursor, TxId};
use smallvec::SmallVec;

const VERSION: u8 = 1;

/// Names a server together with the base name of its log's files, in 32 bits. Two places
/// are in one order only when these are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ServerTag(pub(crate) u32);

/// A place in the log of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) server: ServerTag,
    pub(crate) file: Arc<str>,
    /// Bytes from the file's beginning.
    pub(crate) position: u64,
    /// When the file was begun, seconds since the Unix epoch; 0 when that is not known.
    /// Files of the same name are the same file only when this is the same.
    pub(crate) created: u32,
}

impl Place {
    /// A place of the server with this identity.
    pub(crate) fn new(identity: &str, file: &str, position: u64) -> Place {
        let base = file.rsplit_once('.').map_or(file, |(base, _)| base);
        // FNV-1a: stable between releases.
        let hash = identity
            .bytes()
            .chain([0])
            .chain(base.bytes())
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        Place {
            server: ServerTag((hash ^ (hash >> 32)) as u32),
            file: file.into(),
            position,
            created: 0,
        }
    }

    /// The number at the end of the file's name.
    fn file_number(&self) -> u32 {
        self.file
            .rsplit_once('.')
            .and_then(|(_, number)| number.parse().ok())
            .unwrap_or(0)
    }

    fn order(&self) -> (u32, u64) {
        (self.file_number(), self.position)
    }

    /// Whether this place is at or behind another one. `None`: they are of two servers.
    pub(crate) fn covers(&self, other: &Place) -> Option<bool> {
        (self.server == other.server).then(|| self.order() >= other.order())
    }

    /// The transaction that ends here, for visibility questions.
    pub(crate) fn tx_id(&self) -> TxId {
        let mut bytes = SmallVec::<[u8; 24]>::new();
        bytes.extend_from_slice(&self.server.0.to_be_bytes());
        bytes.extend_from_slice(&self.file_number().to_be_bytes());
        bytes.extend_from_slice(&self.position.to_be_bytes());
        TxId(bytes)
    }

    /// Whether a transaction ends at or before this place; `None` when that cannot be said.
    pub(crate) fn covers_tx(&self, tx: &TxId) -> Option<bool> {
        let bytes: &[u8; 16] = tx.0.as_slice().try_into().ok()?;
        let (tag, order) = bytes.split_first_chunk::<4>()?;
        if u32::from_be_bytes(*tag) != self.server.0 {
            return None;
        }
        let (file, position) = order.split_first_chunk::<4>()?;
        let position = u64::from_be_bytes(position.try_into().ok()?);
        Some(self.order() >= (u32::from_be_bytes(*file), position))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.position)
    }
}

/// The id of a transaction of MySQL, for visibility questions: the UUID, then the number
/// without leading zeros. A tag needs the number in full, so that the two can be told apart
/// by length.
pub(crate) fn gtid_tx_id(gtid: &mysql::Gtid) -> TxId {
    let origin = gtid.origin();
    let mut bytes = SmallVec::<[u8; 24]>::from_slice(&origin.uuid.0);
    let number = gtid.number().to_be_bytes();
    let tag = origin.tag.as_str().as_bytes();
    let skip = match tag.len() {
        0 => (gtid.number().leading_zeros() / 8).min(7) as usize,
        _ => 0,
    };
    bytes.extend_from_slice(&number[skip..]);
    bytes.extend_from_slice(tag);
    TxId(bytes)
}

/// Whether an id is that of a place: those of GTIDs are longer.
pub(crate) fn is_place(tx: &TxId) -> bool {
    tx.0.len() == 16
}

/// Takes an id back.
pub(crate) fn gtid_of(tx: &TxId) -> Option<mysql::Gtid> {
    let (uuid, rest) = tx.0.split_first_chunk::<16>()?;
    let (number, tag) = rest.split_at(rest.len().min(8));
    let number = number.iter().fold(0, |n, &b| n << 8 | u64::from(b));
    let mut origin = mysql::Origin::from(mysql::ServerUuid(*uuid));
    if !tag.is_empty() {
        origin.tag = std::str::from_utf8(tag).ok()?.parse().ok()?;
    }
    mysql::Gtid::new(origin, number).ok()
}

/// Which transactions were taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gtids {
    /// The server does not number them.
    None,
    /// All of them.
    MySql(GtidSet),
    /// The last one of each domain.
    MariaDb(GtidState),
}

impl Gtids {
    /// Whether a transaction is among them; `None` when that cannot be said.
    pub(crate) fn covers(&self, tx: &TxName) -> Option<bool> {
        match (self, tx) {
            (Gtids::MySql(set), TxName::MySql(gtid)) => Some(set.contains(*gtid)),
            (Gtids::MariaDb(state), TxName::MariaDb(gtid)) => Some(state.covers(*gtid)),
            _ => None,
        }
    }

    /// Takes a transaction in.
    pub(crate) fn add(&mut self, tx: &TxName) {
        match (self, tx) {
            (Gtids::MySql(set), TxName::MySql(gtid)) => set.add(*gtid),
            (Gtids::MariaDb(state), TxName::MariaDb(gtid)) => state.observe(*gtid),
            _ => {}
        }
    }
}

impl fmt::Display for Gtids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gtids::None => Ok(()),
            Gtids::MySql(set) => set.fmt(f),
            Gtids::MariaDb(state) => state.fmt(f),
        }
    }
}

/// The name of a transaction in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TxName {
    MySql(mysql::Gtid),
    MariaDb(mariadb::Gtid),
    /// Where it begins, when it has no other name.
    Place(Place),
}

impl fmt::Display for TxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TxName::MySql(gtid) => gtid.fmt(f),
            TxName::MariaDb(gtid) => gtid.fmt(f),
            TxName::Place(place) => place.fmt(f),
        }
    }
}

/// A point of the log between two transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) gtids: Gtids,
    /// Where it is in the log that is being read; none when that was not said yet.
    pub(crate) place: Option<Place>,
}

impl Point {
    /// Whether a transaction lies before this point. Places decide where they can, since
    /// the numbers of a MariaDB domain may be out of order.
    pub(crate) fn covers(&self, tx: &TxName, begins: Option<&Place>) -> bool {
        let by_place = || {
            let (here, begins) = (self.place.as_ref()?, begins?);
            Some(here.covers(begins)? && here.order() != begins.order())
        };
        let by_gtid = self.gtids.covers(tx);
        match self.gtids {
            Gtids::MySql(_) => by_gtid.unwrap_or(false),
            Gtids::MariaDb(_) => by_place().or(by_gtid).unwrap_or(false),
            Gtids::None => by_place().unwrap_or(false),
        }
    }
}

/// A place inside of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inside {
    pub(crate) tx: TxName,
    /// Changes of the followed table that lie before this place.
    pub(crate) changes: u32,
}

/// A position between two changes of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The end of the last whole transaction.
    pub(crate) whole: Point,
    /// How far into the next transaction.
    pub(crate) inside: Option<Inside>,
    /// From where the log has to be read again, because of XA transactions that are
    /// prepared; none when that is from `whole`.
    pub(crate) restart: Option<Point>,
}

impl Position {
    /// A position between two transactions.
    pub(crate) fn at(whole: Point) -> Position {
        Position {
            whole,
            inside: None,
            restart: None,
        }
    }

    /// From where the log is read.
    pub(crate) fn read_from(&self) -> &Point {
        self.restart.as_ref().unwrap_or(&self.whole)
    }

    /// The contract's form.
    pub(crate) fn encode(&self) -> Cursor {
        let mut out = vec![VERSION];
        put_point(&mut out, &self.whole);
        match &self.inside {
            None => out.push(0),
            Some(inside) => {
                out.push(1);
                put_tx(&mut out, &inside.tx);
                out.extend_from_slice(&inside.changes.to_be_bytes());
            }
        }
        match &self.restart {
            None => out.push(0),
            Some(restart) => {
                out.push(1);
                put_point(&mut out, restart);
            }
        }
        Cursor::new(&out, &self.to_string())
    }

    /// Takes a cursor back.
    ///
    /// # Errors
    /// Definite, when the bytes are not of this version of this connector.
    pub(crate) fn decode(cursor: &Cursor) -> Result<Position, ConnectorError> {
        let bytes = cursor.as_bytes();
        let mut reader = Reader(bytes);
        let read = (|| {
            if reader.u8()? != VERSION {
                return None;
            }
            let whole = reader.point()?;
            let inside = match reader.u8()? {
                0 => None,
                _ => Some(Inside {
                    tx: reader.tx()?,
                    changes: reader.u32()?,
                }),
            };
            let restart = match reader.u8()? {
                0 => None,
                _ => Some(reader.point()?),
            };
            reader.0.is_empty().then_some(Position {
                whole,
                inside,
                restart,
            })
        })();
        read.ok_or_else(|| {
            ConnectorError::definite(
                "cursor_unreadable",
                format!(
                    "The stored position ({} bytes, version {}) was not written by this version \
                     of the MySQL source.",
                    bytes.len(),
                    bytes.first().map_or("none".to_owned(), u8::to_string),
                ),
                "Start the version of Rollcall that wrote the store, or a newer one.",
            )
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.whole.gtids, &self.whole.place) {
            (Gtids::None, Some(place)) => place.fmt(f)?,
            (gtids, _) => gtids.fmt(f)?,
        }
        if let Some(inside) = &self.inside {
            write!(f, "+{}#{}", inside.tx, inside.changes)?;
        }
        Ok(())
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn put_place(out: &mut Vec<u8>, place: &Place) {
    out.extend_from_slice(&place.server.0.to_be_bytes());
    out.extend_from_slice(&place.position.to_be_bytes());
    out.extend_from_slice(&place.created.to_be_bytes());
    put_bytes(out, place.file.as_bytes());
}

fn put_point(out: &mut Vec<u8>, point: &Point) {
    match &point.gtids {
        Gtids::None => out.push(0),
        Gtids::MySql(set) => {
            out.push(1);
            let mut encoded = Vec::new();
            set.encode(&mut encoded);
            put_bytes(out, &encoded);
        }
        Gtids::MariaDb(state) => {
            out.push(2);
            put_bytes(out, state.to_string().as_bytes());
        }
    }
    match &point.place {
        None => out.push(0),
        Some(place) => {
            out.push(1);
            put_place(out, place);
        }
    }
}

fn put_tx(out: &mut Vec<u8>, tx: &TxName) {
    match tx {
        TxName::MySql(gtid) => {
            out.push(1);
            put_bytes(out, gtid.to_string().as_bytes());
        }
        TxName::MariaDb(gtid) => {
            out.push(2);
            put_bytes(out, gtid.to_string().as_bytes());
        }
        TxName::Place(place) => {
            out.push(3);
            put_place(out, place);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()? as usize;
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn place(&mut self) -> Option<Place> {
        Some(Place {
            server: ServerTag(self.u32()?),
            position: self.array().map(u64::from_be_bytes)?,
            created: self.u32()?,
            file: self.text()?.into(),
        })
    }

    fn point(&mut self) -> Option<Point> {
        let gtids = match self.u8()? {
            0 => Gtids::None,
            1 => Gtids::MySql(GtidSet::decode(self.bytes()?).ok()?),
            2 => Gtids::MariaDb(self.text()?.parse().ok()?),
            _ => return None,
        };
        let place = match self.u8()? {
            0 => None,
            _ => Some(self.place()?),
        };
        Some(Point { gtids, place })
    }

    fn tx(&mut self) -> Option<TxName> {
        Some(match self.u8()? {
            1 => TxName::MySql(self.text()?.parse().ok()?),
            2 => TxName::MariaDb(self.text()?.parse().ok()?),
            3 => TxName::Place(self.place()?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn place(file: &str, position: u64) -> Place {
        Place::new("server", file, position)
    }

    fn positions() -> Vec<Position> {
        let set: GtidSet = format!("{UUID}:1-5:7,{UUID}:hr:1-2").parse().unwrap();
        let state: GtidState = "0-1-100,2-1-7".parse().unwrap();
        let at = place("binlog.000007", 1 << 33);
        vec![
            Position::at(Point {
                gtids: Gtids::MySql(set.clone()),
                place: None,
            }),
            Position {
                whole: Point {
                    gtids: Gtids::MySql(set.clone()),
                    place: Some(at.clone()),
                },
                inside: Some(Inside {
                    tx: TxName::MySql(format!("{UUID}:6").parse().unwrap()),
                    changes: 40_000,
                }),
                restart: Some(Point {
                    gtids: Gtids::MySql(GtidSet::new()),
                    place: None,
                }),
            },
            Position {
                whole: Point {
                    gtids: Gtids::MariaDb(state),
                    place: Some(at.clone()),
                },
                inside: Some(Inside {
                    tx: TxName::MariaDb("0-1-101".parse().unwrap()),
                    changes: 1,
                }),
                restart: None,
            },
            Position {
                whole: Point {
                    gtids: Gtids::None,
                    place: Some(at.clone()),
                },
                inside: Some(Inside {
                    tx: TxName::Place(at),
                    changes: 1,
                }),
                restart: None,
            },
        ]
    }

    #[test]
    fn a_cursor_survives_the_store() {
        for position in positions() {
            let stored = position.encode();
            assert_eq!(Position::decode(&stored).unwrap(), position);
        }
        assert_eq!(
            positions()[3].encode().text(),
            "binlog.000007:8589934592+binlog.000007:8589934592#1"
        );
    }

    #[test]
    fn a_foreign_or_cut_cursor_is_refused() {
        for position in positions() {
            let whole = position.encode();
            for len in 0..whole.as_bytes().len() {
                let cut = Cursor::new(&whole.as_bytes()[..len], "?");
                let error = Position::decode(&cut).unwrap_err();
                assert_eq!(error.code(), "cursor_unreadable");
            }
        }
        assert!(Position::decode(&Cursor::new(&[9], "?")).is_err());
    }

    #[test]
    fn places_of_two_servers_have_no_order() {
        let at = place("binlog.000009", 500);
        assert_eq!(at.covers(&place("binlog.000009", 500)), Some(true));
        assert_eq!(at.covers(&place("binlog.000010", 4)), Some(false));
        assert_eq!(at.covers(&place("binlog.1000000", 4)), Some(false));
        assert_eq!(at.covers(&place("other.000001", 4)), None);
        assert_eq!(at.covers(&Place::new("x", "binlog.000009", 4)), None);
        assert_eq!(
            at.covers_tx(&place("binlog.000008", 900).tx_id()),
            Some(true)
        );
        assert_eq!(
            at.covers_tx(&place("binlog.000009", 501).tx_id()),
            Some(false)
        );
        assert_eq!(
            at.covers_tx(&Place::new("x", "binlog.000009", 4).tx_id()),
            None
        );
    }

    #[test]
    fn a_transaction_id_is_small_and_can_be_taken_back() {
        for text in [
            format!("{UUID}:1"),
            format!("{UUID}:72057594037927935"),
            format!("{UUID}:hr_app:9"),
            format!("{UUID}:9223372036854775806"),
        ] {
            let gtid: mysql::Gtid = text.parse().unwrap();
            let id = gtid_tx_id(&gtid);
            assert_eq!(gtid_of(&id), Some(gtid));
        }
        let small: mysql::Gtid = format!("{UUID}:1").parse().unwrap();
        assert_eq!(gtid_tx_id(&small).0.len(), 17);
    }
}
