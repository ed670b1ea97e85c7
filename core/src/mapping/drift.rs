//! A table that changed under its mapping.
//!
//! A column that a rule uses may be dropped, renamed, or become another type. Everything else
//! about a record can still be said then, so only the rules concerned are *paused*: they keep
//! what they gave, clear nothing, and are named. A mapping that never fitted the table is no
//! drift but a mistake in the file, and an error: a rule is paused only if the whole mapping
//! fitted a schema that the table had before.
//!
//! The scope and the key decide who a record is about and whether it counts; without them
//! nothing can be said, so they are never paused.

use rollcall_contract::TableSchema;

use super::error::{MappingError, Place};
use super::mapper::Mapper;
use super::spec::MappingSpec;
use crate::attribute::{AttrId, Attributes};

/// A rule that is paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PausedRule {
    /// The attribute that keeps what it has.
    pub attribute: AttrId,
    /// Its name.
    pub name: String,
    /// What does not fit, for people.
    pub why: String,
}

/// What of a mapping is left out, by index.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    pub(super) rules: Vec<usize>,
    pub(super) redacted: Vec<usize>,
}

impl Mapper {
    /// As [`Mapper::compile`], for a table that had these schemas before: rules that fitted
    /// one of them and do not fit any more are paused ([`Mapper::paused`]).
    ///
    /// # Errors
    /// As [`Mapper::compile`], for what cannot be paused.
    pub fn compile_over(
        spec: &MappingSpec,
        schema: &TableSchema,
        attributes: &Attributes,
        schema_version: u32,
        older: &[(u32, TableSchema)],
    ) -> Result<Mapper, Vec<MappingError>> {
        let errors = match Mapper::compile(spec, schema, attributes, schema_version) {
            Ok(mapper) => return Ok(mapper),
            Err(errors) => errors,
        };
        let fitted = |(version, schema): &(u32, TableSchema)| {
            Mapper::compile(spec, schema, attributes, *version).is_ok()
        };
        let mut pauses = Pauses::default();
        for error in &errors {
            match error.place {
                Place::Rule(index) => pauses.rules.push(index),
                Place::Redact(index) => pauses.redacted.push(index),
                _ => return Err(errors),
            }
        }
        if !older.iter().any(fitted) {
            return Err(errors);
        }
        let mut mapper =
            Mapper::compile_without(spec, schema, attributes, schema_version, &pauses)?;
        pauses.rules.sort_unstable();
        pauses.rules.dedup();
        for index in pauses.rules {
            let of_rule = errors.iter().filter(|e| e.place == Place::Rule(index));
            let why: Vec<String> = of_rule
                .map(|e| format!("{}, where {} is expected", e.found, e.expected))
                .collect();
            let name = spec.rules[index].attribute.clone();
            if let Some(attribute) = attributes.by_name(&name) {
                mapper.pause(PausedRule {
                    attribute: attribute.id,
                    name,
                    why: why.join("; "),
                });
            }
        }
        Ok(mapper)
    }
}
