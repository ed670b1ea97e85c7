//! The transaction that is open, and its names in the contract.

use std::fmt::Write as _;

use rollcall_contract::{BatchBuilder, Op, Tx, TxId};
use smallvec::SmallVec;

use super::relation::Layout;
use crate::lsn::{Lsn, Xid};

/// The transaction whose messages are arriving.
pub(crate) struct OpenTx {
    pub(crate) final_lsn: Lsn,
    pub(crate) commit_us: i64,
    pub(crate) xid: Xid,
    /// Row messages so far.
    pub(crate) rows: u32,
    /// Row messages below this were handed over before.
    pub(crate) skip_below: u32,
    /// Taken in before, as a whole.
    pub(crate) is_known: bool,
    /// Whether the open batch knows this transaction.
    pub(crate) is_announced: bool,
}

/// Begins a change, and makes its table and its transaction known to the batch.
#[inline]
pub(crate) fn open_change(
    builder: &mut BatchBuilder,
    tx: &mut Option<OpenTx>,
    layout: &mut Layout,
    op: Op,
    ordinal: u32,
) {
    let table = match layout.index {
        Some(index) => index,
        None => *layout
            .index
            .insert(builder.table(layout.no, &layout.schema)),
    };
    if let Some(tx) = tx
        && !tx.is_announced
    {
        tx.is_announced = true;
        builder.tx(Tx {
            id: tx_id(tx.xid),
            position: position_text(tx.final_lsn),
            commit_us: tx.commit_us,
        });
    }
    builder.begin(table, op, ordinal);
}

/// The contract's form of a transaction id: eight bytes, big-endian.
pub fn tx_id(xid: Xid) -> TxId {
    TxId(SmallVec::from_slice(&xid.0.to_be_bytes()))
}

/// Takes a transaction id back; none when it is not one of ours.
pub fn xid_of(id: &TxId) -> Option<Xid> {
    Some(Xid(u64::from_be_bytes(id.0.as_slice().try_into().ok()?)))
}

fn position_text(lsn: Lsn) -> SmallVec<[u8; 32]> {
    struct Text(SmallVec<[u8; 32]>);
    impl std::fmt::Write for Text {
        fn write_str(&mut self, s: &str) -> std::fmt::Result {
            self.0.extend_from_slice(s.as_bytes());
            Ok(())
        }
    }
    let mut text = Text(SmallVec::new());
    // Writing to memory cannot fail.
    let _ = write!(text, "{lsn}");
    text.0
}
