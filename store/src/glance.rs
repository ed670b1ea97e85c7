//! Records set beside what a batch brings of them, without keeping what was read.
//!
//! A reconciliation asks of every record whether it is as it was, and nearly always it is.
//! So nothing is copied out of the database here: links and documents are read in the order
//! of the keys by one statement for a run of them, and shown where they lie. A run whose keys lie
//! too far apart in the store is asked for key by key; so are some runs behind it.

use std::cmp::Ordering;

use rollcall_core::id::{SourceId, UserRow};
use rusqlite::Connection;

use crate::error::StoreError;

/// Keys that one statement asks for.
const RUN: usize = 256;
/// Behind a run whose keys lay far apart, so many others are taken to be like it.
const SINGLY: usize = 15;

const BETWEEN: &str = "SELECT link.key, user.id, user.document FROM link CROSS JOIN user \
     ON user.id = link.user WHERE link.source = ?1 AND link.key BETWEEN ?2 AND ?3 \
     ORDER BY link.key LIMIT ?4";
const ONE: &str = "SELECT user.id, user.document FROM link CROSS JOIN user \
     ON user.id = link.user WHERE link.source = ?1 AND link.key = ?2";

/// Shows the document of each user that a record leads to, with the record's index in `keys`.
/// Records that lead to no user are not shown.
pub(crate) fn documents(
    connection: &Connection,
    source: SourceId,
    keys: &[&[u8]],
    mut show: impl FnMut(usize, UserRow, &[u8]),
) -> Result<(), StoreError> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    if !keys.is_sorted() {
        order.sort_unstable_by_key(|at| keys[*at]);
    }
    let mut between = connection.prepare_cached(BETWEEN)?;
    let mut one = connection.prepare_cached(ONE)?;
    let mut singly = 0;
    for run in order.chunks(RUN) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            continue;
        };
        let mut left = run;
        if singly > 0 {
            singly -= 1;
        } else {
            let at_most = run.len() + run.len() / 2;
            let limit = i64::try_from(at_most).unwrap_or(i64::MAX);
            let mut rows = between.query((source.0, keys[*first], keys[*last], limit))?;
            let mut read = 0;
            while let Some(row) = rows.next()? {
                read += 1;
                let key = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
                while let Some((at, behind)) = left.split_first() {
                    match keys[*at].cmp(key) {
                        Ordering::Less => left = behind,
                        Ordering::Equal => {
                            let document = row.get_ref(2)?;
                            let document = document.as_blob().map_err(rusqlite::Error::from)?;
                            show(*at, UserRow(row.get(1)?), document);
                            left = behind;
                            break;
                        }
                        Ordering::Greater => break,
                    }
                }
            }
            if read < at_most {
                continue;
            }
            singly = SINGLY;
        }
        for at in left {
            one.raw_bind_parameter(1, source.0)?;
            one.raw_bind_parameter(2, keys[*at])?;
            let mut rows = one.raw_query();
            if let Some(row) = rows.next()? {
                let document = row.get_ref(1)?;
                let document = document.as_blob().map_err(rusqlite::Error::from)?;
                show(*at, UserRow(row.get(0)?), document);
            }
        }
    }
    Ok(())
}
