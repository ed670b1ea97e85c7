//! Users: correlation, conflicts, leavers.
