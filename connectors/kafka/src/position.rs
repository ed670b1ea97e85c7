//! The position record: what stands in the cursors topic.
//!
//! It is written in the same transaction as the records up to its sequence. It also names
//! the records of that block that were refused: if the daemon dies between the commit and
//! its own note of them, the next start still knows them, so a refused record can't get
//! lost.

use std::collections::BTreeMap;

use rollcall_contract::Refused;

/// The version of the record that this crate writes.
const VERSION: u32 = 1;

/// Everything up to and including `sequence` is in the topics, but for the refused.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Position {
    version: u32,
    pub(crate) sequence: u64,
    /// Reason to sequences, of the block that ended here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    refused: BTreeMap<String, Vec<u64>>,
}

/// Reasons are static, so they are found again by name.
const REASONS: &[&str] = &["too_large", "invalid_record"];

impl Position {
    /// The position after a block.
    pub(crate) fn after(sequence: u64, refused: &[Refused]) -> Self {
        let mut by_reason: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for one in refused {
            by_reason
                .entry(one.reason.to_owned())
                .or_default()
                .push(one.sequence);
        }
        Position {
            version: VERSION,
            sequence,
            refused: by_reason,
        }
    }

    /// As it stands in the topic.
    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From the topic; the error is a sentence.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        #[derive(serde::Deserialize)]
        struct Versioned {
            version: u32,
        }
        let versioned: Versioned = serde_json::from_slice(bytes)
            .map_err(|_| "the position record is not one of ours".to_owned())?;
        if versioned.version > VERSION {
            return Err(format!(
                "the position record has version {}, this daemon knows {VERSION}",
                versioned.version
            ));
        }
        serde_json::from_slice(bytes).map_err(|_| "the position record is damaged".to_owned())
    }

    /// The refused records of the block that ended here.
    pub(crate) fn refused(&self) -> Vec<Refused> {
        let mut all: Vec<Refused> = self
            .refused
            .iter()
            .flat_map(|(reason, sequences)| {
                let reason = REASONS
                    .iter()
                    .find(|known| *known == reason)
                    .copied()
                    .unwrap_or("refused");
                sequences.iter().map(move |sequence| Refused {
                    sequence: *sequence,
                    reason,
                    detail: "refused before the last restart".to_owned(),
                })
            })
            .collect();
        all.sort_by_key(|one| one.sequence);
        all
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
    use super::*;

    #[test]
    fn a_position_comes_back_with_what_was_refused() {
        let refused = [Refused {
            sequence: 41,
            reason: "too_large",
            detail: String::new(),
        }];
        let position = Position::after(42, &refused);
        let back = Position::decode(&position.encode()).unwrap();
        assert_eq!(back, position);
        assert_eq!(back.refused()[0].sequence, 41);
        assert_eq!(back.refused()[0].reason, "too_large");
        assert_eq!(
            Position::after(7, &[]).encode(),
            br#"{"version":1,"sequence":7}"#
        );
    }

    #[test]
    fn a_newer_or_foreign_record_is_an_error_and_not_a_new_start() {
        assert!(
            Position::decode(br#"{"version":2,"position":"x"}"#)
                .unwrap_err()
                .contains("version 2")
        );
        assert!(Position::decode(b"17").is_err());
    }
}
