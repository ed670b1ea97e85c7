//! Why bytes of the log were not understood.

use rollcall_contract::ConnectorError;

/// Bytes that are not what the server's documentation or source says they are. None of
/// these ever holds a value of a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A field reaches beyond the end of the bytes.
    #[error("{what} is shorter than its fields")]
    Truncated {
        /// Which part of the log.
        what: &'static str,
    },
    /// A field holds what it must not.
    #[error("{what}: {why}")]
    Malformed {
        /// Which part of the log.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The CRC32 of an event is another than that of its bytes.
    #[error("an event's checksum is wrong")]
    Checksum,
    /// The log is right, but this decoder cannot read it.
    #[error("{what}: {why}")]
    Unsupported {
        /// Which part of the log.
        what: &'static str,
        /// Why it cannot be read.
        why: &'static str,
    },
}

impl DecodeError {
    pub(crate) fn malformed(what: &'static str, why: &'static str) -> Self {
        DecodeError::Malformed { what, why }
    }
}

impl From<DecodeError> for ConnectorError {
    /// A wrong checksum may come from the way, so reading again may mend it; everything
    /// else comes out the same each time.
    fn from(error: DecodeError) -> ConnectorError {
        let sentence = format!("The binary log cannot be read: {error}.");
        match error {
            DecodeError::Checksum => ConnectorError::transient("binlog_checksum", sentence),
            DecodeError::Unsupported { .. } => ConnectorError::definite(
                "binlog_unsupported",
                sentence,
                "Change the server's setting that makes it write this, and let the source be \
                 reconciled.",
            ),
            DecodeError::Truncated { .. } | DecodeError::Malformed { .. } => {
                ConnectorError::definite(
                    "binlog_malformed",
                    sentence,
                    "Check the binary log on the server with mysqlbinlog or mariadb-binlog; if it \
                     is sound there, report a fault of this program.",
                )
            }
        }
    }
}
