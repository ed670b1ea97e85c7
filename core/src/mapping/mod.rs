//! Rows to attributes.
//!
//! A mapping is compiled once, against the schema of its table and the attributes of the
//! organization, and evaluated for every row. Compiling finds every error that needs no
//! record ([`Mapper::compile`]); evaluating is a pure function of a row's cells and the
//! stored shadow of the same record ([`Mapper::map`]), so a row maps to the same attributes
//! whenever and however often it is read: live, in a scan, after a crash, in a preview.
//!
//! The parts: [`MappingSpec`] is what an operator asks; `compile` checks it; `mapper`
//! applies it; `canonical` gives values their one form, `reference` keys of other records; `expression` with `operand`,
//! `predicate`, `function` and `dry_run` is everything about CEL; [`Shadow`] is the stored
//! row; [`related`] joins the rows of further tables to those of the source's own; [`fold`] is how match keys are compared; [`guess`] proposes a mapping for a table;
//! [`fixture`] runs an operator's own tests of one.

mod canonical;
mod compile;
mod drift;
mod dry_run;
mod error;
mod expression;
pub mod fixture;
mod function;
pub mod guess;
mod mapper;
mod moment;
mod operand;
mod predicate;
mod reference;
pub mod related;
mod shadow;
mod spec;
mod text;

pub use canonical::push_written;
pub use drift::PausedRule;
pub use error::{MappingError, Place};
pub use expression::{Flaw, MAX_EXPRESSION_BYTES, unreadable};
pub use mapper::{Mapper, StoredCells};
pub use shadow::{Shadow, ShadowError};
pub(crate) use shadow::{ShadowValues, shadow_values};
pub use spec::{ConstValue, DEFAULT_MAX_VALUE_BYTES, MappingSpec, OnNull, RuleKind, RuleSpec};
pub use text::{fold, push_nfc, search_form};

#[cfg(test)]
mod tests;
