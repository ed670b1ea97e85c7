//! XA transactions that are prepared and not ended.
//!
//! Their rows come at the PREPARE and count from the COMMIT on, which may be days later.
//! Until then the events that hold rows of the followed tables are put by as they are. The
//! store knows nothing of them: while any is put by, the cursor names the point from which
//! the log has to be read again after a restart ([`Parking::restart`]).
//!
//! What is put by is bounded. When it would grow beyond that, the rows are dropped and only
//! the fact is kept; a COMMIT then becomes a gap.

use crate::position::{Gtids, Point, TxName};

/// Bytes of events that are put by at most.
const MAX_BYTES: usize = 64 << 20;
/// Transactions that are remembered at most; more than any server allows to be prepared.
const MAX_TRANSACTIONS: usize = 10_000;

/// One prepared transaction.
struct Parked {
    xid: Vec<u8>,
    name: TxName,
    /// The point before it.
    before: Point,
    /// Events without their frames; none when they were too large.
    events: Option<Vec<Vec<u8>>>,
    bytes: usize,
}

/// How an XA transaction is found when it ends.
pub(super) enum Found {
    /// Its events.
    Events(Vec<Vec<u8>>),
    /// It was prepared before the log was read, or was too large to be put by.
    Unknown,
}

/// All that are prepared.
#[derive(Default)]
pub(super) struct Parking {
    parked: Vec<Parked>,
    bytes: usize,
    /// The events of the one that is being read.
    open: Vec<Vec<u8>>,
    open_bytes: usize,
    is_too_large: bool,
}

impl Parking {
    /// Begins to put by.
    pub(super) fn begin(&mut self) {
        self.open.clear();
        self.open_bytes = 0;
        self.is_too_large = false;
    }

    /// Puts an event by.
    pub(super) fn add(&mut self, event: &[u8]) {
        if self.is_too_large {
            return;
        }
        if self.bytes + self.open_bytes + event.len() > MAX_BYTES {
            self.is_too_large = true;
            self.open.clear();
            self.open_bytes = 0;
            return;
        }
        self.open_bytes += event.len();
        self.open.push(event.to_vec());
    }

    /// The transaction committed in one phase: its events count now.
    pub(super) fn take_open(&mut self) -> Found {
        if self.is_too_large {
            return Found::Unknown;
        }
        Found::Events(std::mem::take(&mut self.open))
    }

    /// The transaction is prepared.
    pub(super) fn prepare(&mut self, xid: Vec<u8>, name: TxName, before: Point) {
        // Read a second time: the first one counts, since it is further back.
        if self.parked.iter().any(|p| p.xid == xid && p.name == name) {
            return;
        }
        if self.parked.len() >= MAX_TRANSACTIONS {
            // Its COMMIT will be that of an unknown one, and so a gap.
            return;
        }
        let events = (!self.is_too_large).then(|| std::mem::take(&mut self.open));
        let bytes = if events.is_some() { self.open_bytes } else { 0 };
        self.bytes += bytes;
        self.parked.push(Parked {
            xid,
            name,
            before,
            events,
            bytes,
        });
    }

    /// The transaction ends: it is forgotten here.
    pub(super) fn end(&mut self, xid: &[u8]) -> Found {
        let Some(at) = self.parked.iter().position(|p| p.xid == xid) else {
            return Found::Unknown;
        };
        let parked = self.parked.remove(at);
        self.bytes -= parked.bytes;
        match parked.events {
            Some(events) => Found::Events(events),
            None => Found::Unknown,
        }
    }

    /// From where the log has to be read again so that all of these are found again; none
    /// when that is from `whole`.
    pub(super) fn restart(&self, whole: &Point) -> Option<Point> {
        let oldest = self.parked.first()?;
        Some(match &whole.gtids {
            // What is not in the set is sent again, wherever it is.
            Gtids::MySql(set) => {
                let mut set = set.clone();
                set.remove_all(
                    &self
                        .parked
                        .iter()
                        .filter_map(|p| match p.name {
                            TxName::MySql(gtid) => Some(gtid),
                            _ => None,
                        })
                        .collect(),
                );
                Point {
                    gtids: Gtids::MySql(set),
                    place: whole.place.clone(),
                }
            }
            _ => oldest.before.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::position::Place;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn name(n: u64) -> TxName {
        TxName::MySql(format!("{UUID}:{n}").parse().unwrap())
    }

    fn point(text: &str) -> Point {
        Point {
            gtids: Gtids::MySql(format!("{UUID}:{text}").parse().unwrap()),
            place: None,
        }
    }

    fn place(position: u64) -> Point {
        Point {
            gtids: Gtids::None,
            place: Some(Place::new("s", "b.000001", position)),
        }
    }

    fn events(found: Found) -> Option<Vec<Vec<u8>>> {
        match found {
            Found::Events(events) => Some(events),
            Found::Unknown => None,
        }
    }

    #[test]
    fn a_prepared_transaction_is_read_again_after_a_restart() {
        let mut parking = Parking::default();
        assert_eq!(parking.restart(&point("1-9")), None);
        for n in [4, 7] {
            parking.begin();
            parking.add(&[n]);
            parking.prepare(vec![n], name(u64::from(n)), point("1-3"));
        }
        assert_eq!(parking.restart(&point("1-9")), Some(point("1-3:5-6:8-9")));
        assert_eq!(events(parking.end(&[4])), Some(vec![vec![4]]));
        assert_eq!(parking.restart(&point("1-9")), Some(point("1-6:8-9")));
        assert_eq!(events(parking.end(&[7])), Some(vec![vec![7]]));
        assert_eq!(parking.restart(&point("1-9")), None);
        assert_eq!(events(parking.end(&[7])), None, "nobody knows it any more");
    }

    #[test]
    fn without_sets_the_oldest_decides() {
        let mut parking = Parking::default();
        for n in [4u8, 7] {
            parking.begin();
            let at = place(u64::from(n) * 100);
            let name = TxName::Place(at.place.clone().unwrap());
            parking.prepare(vec![n], name, at);
        }
        assert_eq!(parking.restart(&place(2000)), Some(place(400)));
        parking.end(&[4]);
        assert_eq!(parking.restart(&place(2000)), Some(place(700)));
    }

    #[test]
    fn what_is_too_large_is_known_to_be_missing() {
        let mut parking = Parking::default();
        parking.begin();
        parking.add(&[1]);
        parking.add(&vec![0; MAX_BYTES]);
        parking.add(&[2]);
        parking.prepare(vec![1], name(1), point("2"));
        assert!(parking.restart(&point("1-2")).is_some());
        assert_eq!(events(parking.end(&[1])), None);
    }
}
