//! A source's mapping, bound to the schema that its table has now.

use rollcall_contract::{ConnectorError, TableSchema};
use rollcall_core::attribute::Attributes;
use rollcall_core::mapping::{Mapper, MappingSpec};

/// Compiles a mapping for the last of the schemas; the others are those that the table had, and
/// under which stored shadows were written. Rules that fitted one of these and do not fit any
/// more are paused.
///
/// # Errors
/// Definite, with everything that does not fit, when the mapping does not fit the table.
pub fn compile(
    spec: &MappingSpec,
    schemas: &[(u32, TableSchema)],
    attributes: &Attributes,
) -> Result<Mapper, ConnectorError> {
    let Some(((version, schema), older)) = schemas.split_last() else {
        return Err(ConnectorError::transient(
            "no_schema",
            "The table's columns are not known yet.",
        ));
    };
    let compiled = Mapper::compile_over(spec, schema, attributes, *version, older);
    let mut mapper = compiled.map_err(|errors| {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        ConnectorError::definite(
            "mapping_invalid",
            format!(
                "The mapping does not fit the table {}: {}.",
                schema.table,
                all.join("; ")
            ),
            "Correct these rules and restart (`rollcall check` names their lines), or give the table its column back.",
        )
    })?;
    for (version, schema) in older {
        mapper.learn_schema(*version, schema);
    }
    Ok(mapper)
}
