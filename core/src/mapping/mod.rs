//! Rows to attributes.

mod text;

pub use text::{fold, push_nfc};
