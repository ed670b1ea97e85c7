//! Which transactions a page has seen.
//!
//! MySQL with GTIDs: the set before the page's snapshot is a lower bound, since a
//! transaction gets into `gtid_executed` only after the engine has committed it; the set
//! after the page was read is an upper bound. What is in the former is in the page for
//! certain, what is in neither is not.
//!
//! MariaDB: the snapshot says itself at which place of the log it was taken, which is exact
//! and both bounds at once. A transaction that was stored from another server was replicated
//! to this one before the log was opened (opening proves it), so a page has it.
//!
//! Where the log is switched off, or its position may not be asked for, a page has no place:
//! it can be applied only while the log is not followed.
//!
//! MySQL without GTIDs: the place before the snapshot is no lower bound, since a transaction
//! is in the log a moment before the engine commits it. A place of at least a minute ago is
//! one for every purpose; what happened since counts as newer, which only means that the
//! log decides.

use rollcall_binlog::gtid::mysql::GtidSet;
use rollcall_contract::{ConnectorError, Cursor, TxId, Window};

use crate::position::{Gtids, Place, Position, gtid_of, is_place};

/// The window of one page.
#[derive(Clone, Debug)]
pub(crate) enum PageWindow {
    /// Between two sets.
    Gtids {
        /// Certainly seen.
        low: GtidSet,
        /// All that may have been seen.
        high: GtidSet,
    },
    /// Between two places.
    Places {
        /// Certainly seen; none when nothing is certain.
        low: Option<Place>,
        /// All that may have been seen.
        high: Place,
        /// Whether what was stored from another server has been seen.
        sees_other_servers: bool,
    },
    /// Nowhere: where the log stands cannot be read.
    Unplaced {
        /// Why.
        obstacle: ConnectorError,
        /// When the page was read, by the server's clock.
        at: String,
    },
}

impl Window for PageWindow {
    fn may_be_newer(&self, tx: &TxId) -> bool {
        if tx.0.is_empty() {
            return true;
        }
        match self {
            // An id of the other kind was stored before positions were of this kind. That
            // change was a gap, and what lies before a gap every page has seen.
            PageWindow::Gtids { low, .. } => {
                !is_place(tx) && gtid_of(tx).is_none_or(|gtid| !low.contains(gtid))
            }
            PageWindow::Places {
                low,
                sees_other_servers,
                ..
            } => {
                is_place(tx)
                    && match low.as_ref().and_then(|low| low.covers_tx(tx)) {
                        Some(is_seen) => !is_seen,
                        None => !sees_other_servers,
                    }
            }
            PageWindow::Unplaced { .. } => true,
        }
    }

    fn is_closed_by(&self, cursor: &Cursor) -> bool {
        let Ok(position) = Position::decode(cursor) else {
            return false;
        };
        match (self, &position.whole.gtids, &position.whole.place) {
            (PageWindow::Gtids { high, .. }, Gtids::MySql(set), _) => set.contains_all(high),
            (PageWindow::Places { high, .. }, _, Some(place)) => {
                place.covers(high).unwrap_or(false)
            }
            _ => false,
        }
    }

    fn obstacle(&self) -> Option<ConnectorError> {
        match self {
            PageWindow::Unplaced { obstacle, .. } => Some(obstacle.clone()),
            PageWindow::Gtids { .. } | PageWindow::Places { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::position::{Point, gtid_tx_id};

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(text: &str) -> GtidSet {
        format!("{UUID}:{text}").parse().unwrap()
    }

    fn cursor(gtids: Gtids, place: Option<Place>) -> Cursor {
        Position::at(Point { gtids, place }).encode()
    }

    #[test]
    fn a_set_sees_what_is_in_its_lower_bound() {
        let window = PageWindow::Gtids {
            low: set("1-10:12"),
            high: set("1-13"),
        };
        let newer = |n: u64| {
            let gtid = format!("{UUID}:{n}").parse().unwrap();
            window.may_be_newer(&gtid_tx_id(&gtid))
        };
        assert_eq!(
            [10, 11, 12, 13, 14].map(newer),
            [false, true, false, true, true]
        );
        assert!(window.may_be_newer(&TxId::default()));
        let of_before = Place::new("s", "binlog.000003", 4).tx_id();
        assert!(!window.may_be_newer(&of_before));
        assert!(!window.is_closed_by(&cursor(Gtids::MySql(set("1-12")), None)));
        assert!(window.is_closed_by(&cursor(Gtids::MySql(set("1-20")), None)));
        assert!(!window.is_closed_by(&Cursor::new(&[], "?")));
    }

    #[test]
    fn a_place_sees_what_lies_before_it() {
        let at = |position| Place::new("s", "binlog.000003", position);
        let window = PageWindow::Places {
            low: Some(at(500)),
            high: at(500),
            sees_other_servers: true,
        };
        assert!(!window.may_be_newer(&at(500).tx_id()));
        assert!(window.may_be_newer(&at(501).tx_id()));
        let elsewhere = Place::new("other", "binlog.000009", 9).tx_id();
        assert!(!window.may_be_newer(&elsewhere));
        assert!(!window.is_closed_by(&cursor(Gtids::None, Some(at(499)))));
        assert!(window.is_closed_by(&cursor(Gtids::None, Some(at(500)))));
        assert!(!window.is_closed_by(&cursor(Gtids::None, None)));
    }

    #[test]
    fn without_a_lower_bound_everything_may_be_newer() {
        let at = |position| Place::new("s", "binlog.000003", position);
        let window = PageWindow::Places {
            low: None,
            high: at(500),
            sees_other_servers: false,
        };
        assert!(window.may_be_newer(&at(4).tx_id()));
    }
}
