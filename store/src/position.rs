//! Places in the outbox.
//!
//! Two counts run side by side. Every record of the outbox, raw change records included,
//! has a *position*: what sinks advance along. Only identity and operational events have a
//! *sequence*, so that a consumer can prove from the numbers alone that it missed none.
//! Both begin at 1, rise by one, are handed out at commit (inside of the transaction that
//! stores the events) and are never handed out twice, so neither can have a hole: a
//! transaction that was rolled back has taken none.

use std::fmt;

macro_rules! count {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone,
            Copy,
            Debug,
            Default,
            PartialEq,
            Eq,
            Hash,
            PartialOrd,
            Ord,
            serde::Serialize,
            serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Before the first one: nothing has been seen yet.
            pub const NONE: $name = $name(0);

            /// The next one.
            pub fn next(self) -> $name {
                self.plus(1)
            }

            /// So many further.
            pub fn plus(self, n: u64) -> $name {
                $name(self.0.saturating_add(n))
            }

            /// The one before; [`Self::NONE`] at the beginning.
            pub fn before(self) -> $name {
                $name(self.0.saturating_sub(1))
            }

            pub(crate) fn from_sql(n: i64) -> $name {
                $name(u64::try_from(n).unwrap_or(0))
            }

            pub(crate) fn to_sql(self) -> i64 {
                i64::try_from(self.0).unwrap_or(i64::MAX)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

count!(
    /// The place of a record in the outbox, over all records.
    Position
);
count!(
    /// The number of an identity or operational event; gap-free.
    Sequence
);
