//! The records and users of a conflict, as one value.

use rollcall_core::id::UserId;
use rollcall_core::state::KeyBytes;
use smallvec::SmallVec;

use crate::error::StoreError;

/// Count of records, each preceded by its length; then the users' ids.
pub(crate) fn encode(records: &[KeyBytes], users: &[UserId]) -> Vec<u8> {
    let mut out = (records.len() as u32).to_le_bytes().to_vec();
    for key in records {
        out.extend_from_slice(&(key.len() as u32).to_le_bytes());
        out.extend_from_slice(key);
    }
    for user in users {
        out.extend_from_slice(&user.0);
    }
    out
}

pub(crate) fn decode(bytes: &[u8]) -> Result<(Vec<KeyBytes>, Vec<UserId>), StoreError> {
    read(bytes).ok_or_else(|| StoreError::Damaged {
        detail: "a conflict names its records in no known form".to_owned(),
    })
}

fn read(mut bytes: &[u8]) -> Option<(Vec<KeyBytes>, Vec<UserId>)> {
    fn word(bytes: &mut &[u8]) -> Option<usize> {
        let (head, tail) = bytes.split_first_chunk::<4>()?;
        *bytes = tail;
        Some(u32::from_le_bytes(*head) as usize)
    }
    let n = word(&mut bytes)?;
    let mut records = Vec::new();
    for _ in 0..n {
        let len = word(&mut bytes)?;
        let (key, rest) = bytes.split_at_checked(len)?;
        bytes = rest;
        records.push(SmallVec::from_slice(key));
    }
    let (users, rest) = bytes.as_chunks::<16>();
    rest.is_empty()
        .then(|| (records, users.iter().map(|u| UserId(*u)).collect()))
}
