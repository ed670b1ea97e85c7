//! The tables that the role can see.
