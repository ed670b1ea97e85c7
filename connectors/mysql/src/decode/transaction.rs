//! The transaction that is open.

use rollcall_contract::{Tx, TxId};
use smallvec::SmallVec;

use crate::position::{Place, TxName, gtid_tx_id};

/// The transaction whose events are arriving.
pub(super) struct OpenTx {
    pub(super) name: TxName,
    /// Where it begins in the log that is read.
    pub(super) begins: Option<Place>,
    /// For visibility questions.
    pub(super) id: TxId,
    /// Microseconds since the Unix epoch.
    pub(super) commit_us: i64,
    /// Changes of the followed tables so far.
    pub(super) changes: u32,
    /// Changes below this were handed over before.
    pub(super) skip_below: u32,
    /// Taken in before, as a whole.
    pub(super) is_known: bool,
    /// Whether the open batch knows this transaction.
    pub(super) is_announced: bool,
    /// A BEGIN has come: only a COMMIT ends it.
    pub(super) is_begun: bool,
    /// It is the first part of an XA transaction; its rows are put by.
    pub(super) is_xa: bool,
}

impl OpenTx {
    pub(super) fn new(name: TxName, begins: Option<Place>, after_head: Option<&Place>) -> OpenTx {
        // MariaDB and servers without GTIDs are asked by place: the end of the first event
        // lies inside of the transaction, so it is before every place behind it.
        let id = match (&name, after_head) {
            (TxName::MySql(gtid), _) => gtid_tx_id(gtid),
            (_, Some(place)) => place.tx_id(),
            (_, None) => TxId::default(),
        };
        OpenTx {
            name,
            begins,
            id,
            commit_us: 0,
            changes: 0,
            skip_below: 0,
            is_known: false,
            is_announced: false,
            is_begun: false,
            is_xa: false,
        }
    }

    /// The contract's form.
    pub(super) fn announce(&mut self) -> Tx {
        self.is_announced = true;
        Tx {
            id: self.id.clone(),
            position: SmallVec::from_slice(self.name.to_string().as_bytes()),
            commit_us: self.commit_us,
        }
    }
}
