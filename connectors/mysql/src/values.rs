//! Values that cannot be read, and what is said about them. Never the value.

use rollcall_binlog::DecodeError;
use rollcall_binlog::types::{self, Reading, Unreadable};
use rollcall_contract::ConnectorError;

use crate::config::ZeroDates;

/// How values are read under this choice.
pub(crate) fn reading(zero_dates: ZeroDates) -> Reading {
    Reading::new(match zero_dates {
        ZeroDates::Null => types::ZeroDates::Null,
        ZeroDates::Text => types::ZeroDates::Text,
    })
}

/// What makes the server write fractions of a second in a format that says its length.
pub(crate) const OLD_FRACTION_FIX: &str =
    "SET GLOBAL mysql56_temporal_format = ON; ALTER TABLE … FORCE;";

/// A column whose values cannot be read at all.
pub(crate) fn unreadable_column(column: &str, why: Unreadable) -> ConnectorError {
    let fix = match why {
        Unreadable::Sign | Unreadable::Members => "Set binlog_row_metadata = FULL.",
        Unreadable::Charset | Unreadable::Type(_) => {
            "Give the column a type and character set that Rollcall knows (utf8mb4), or upgrade \
             Rollcall."
        }
        Unreadable::Compressed => "ALTER TABLE … MODIFY … without COMPRESSED.",
        Unreadable::OldFraction => OLD_FRACTION_FIX,
    };
    ConnectorError::definite(
        "unreadable_column",
        format!("The column \"{column}\" cannot be read: {why}."),
        fix,
    )
}

/// A value, or a whole event, that is not what its description says.
pub(crate) fn unreadable_value(column: Option<&str>, error: &DecodeError) -> ConnectorError {
    let of = column.map_or_else(String::new, |c| format!(" (column \"{c}\")"));
    ConnectorError::definite(
        "unreadable_value",
        format!("What the server sent cannot be read{of}: {error}."),
        "Report this with the server's version.",
    )
}
