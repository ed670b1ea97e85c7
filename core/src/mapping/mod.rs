//! Rows to attributes.

mod canonical;
mod compile;
mod dry_run;
mod error;
mod expression;
mod function;
mod mapper;
mod operand;
mod predicate;
mod shadow;
mod spec;
mod text;

pub use error::{MappingError, Place};
pub use expression::MAX_EXPRESSION_BYTES;
pub use mapper::Mapper;
pub use shadow::{Shadow, ShadowError};
pub use spec::{ConstValue, DEFAULT_MAX_VALUE_BYTES, MappingSpec, OnNull, RuleKind, RuleSpec};
pub use text::{fold, push_nfc};
