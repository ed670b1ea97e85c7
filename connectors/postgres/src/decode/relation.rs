//! What a Relation message says about a table, against what was known of it.
//!
//! The message carries names, type OIDs and the replica identity; it does not carry
//! nullability, the primary key or readable types. As long as names and types are those of
//! the known schema, that schema itself stays in use, so a change always refers to the
//! richest description there is. Where they differ, the new schema takes over what it can
//! by name.

use std::sync::Arc;

use rollcall_contract::{Column, ConnectorError, TableName, TableNo, TableSchema};

use super::fields::Fields;
use crate::errors::protocol_violation;
use crate::types::{Form, TypeResolver, type_name};

/// A followed table as the query side knows it when the log is opened.
#[derive(Clone, Debug)]
pub struct Followed {
    /// Its columns and key, in the order in which the log carries them (generated columns
    /// and columns outside of the publication's column list left out).
    pub schema: Arc<TableSchema>,
    /// The type OID of each column; a list of another length means unknown.
    pub type_oids: Vec<u32>,
    /// The OID of the table (of a partitioned table, the root); none means unknown.
    pub table_oid: Option<u32>,
    /// The configured key columns; none means that the known key stays.
    pub key: Option<Vec<String>>,
}

/// A Relation message.
pub(crate) struct Relation {
    pub(crate) oid: u32,
    pub(crate) table: TableName,
    columns: Vec<RelationColumn>,
}

struct RelationColumn {
    name: String,
    type_oid: u32,
    in_identity: bool,
}

impl Relation {
    pub(crate) fn parse(body: &[u8]) -> Result<Relation, ConnectorError> {
        let mut f = Fields::new("Relation", body);
        let oid = f.u32()?;
        let schema = f.text()?;
        // System catalogs come with an empty namespace.
        let schema = if schema.is_empty() {
            "pg_catalog"
        } else {
            schema
        };
        let table = TableName::new(schema, f.text()?);
        let _replica_identity = f.u8()?;
        let count = f.u16()?;
        let mut columns = Vec::with_capacity(usize::from(count).min(body.len() / 10));
        for _ in 0..count {
            let in_identity = f.u8()? & 1 != 0;
            let name = f.text()?.to_owned();
            let type_oid = f.u32()?;
            let _modifier = f.i32()?;
            columns.push(RelationColumn {
                name,
                type_oid,
                in_identity,
            });
        }
        Ok(Relation {
            oid,
            table,
            columns,
        })
    }

    fn is_as_known(&self, known: &Followed) -> bool {
        let schema = &known.schema;
        self.table == schema.table
            && self.columns.len() == schema.columns.len()
            && self.columns.len() == known.type_oids.len()
            && self
                .columns
                .iter()
                .zip(&schema.columns)
                .zip(&known.type_oids)
                .all(|((found, column), &oid)| found.name == column.name && found.type_oid == oid)
    }

    /// How rows of this relation are read. `known` is brought up to date; the answer says
    /// whether the schema is another one than before.
    pub(crate) fn layout(
        &self,
        no: TableNo,
        known: &mut Followed,
        types: &dyn TypeResolver,
    ) -> Result<(Layout, bool), ConnectorError> {
        let forms: Vec<Form> = self
            .columns
            .iter()
            .map(|c| Form::of(c.type_oid, types))
            .collect();
        let changed = !self.is_as_known(known)
            || forms
                .iter()
                .zip(&known.schema.columns)
                .any(|(form, column)| form.class() != column.class);
        if changed {
            let schema = self.schema(known, &forms, types)?;
            known.schema = Arc::new(schema);
            known.type_oids = self.columns.iter().map(|c| c.type_oid).collect();
        }
        known.table_oid = Some(self.oid);
        let layout = Layout {
            no,
            index: None,
            oid: self.oid,
            schema: Arc::clone(&known.schema),
            columns: self
                .columns
                .iter()
                .zip(forms)
                .map(|(column, form)| ColumnLayout {
                    form,
                    in_identity: column.in_identity,
                })
                .collect(),
        };
        Ok((layout, changed))
    }

    fn schema(
        &self,
        known: &Followed,
        forms: &[Form],
        types: &dyn TypeResolver,
    ) -> Result<TableSchema, ConnectorError> {
        let old = &known.schema;
        let columns = self
            .columns
            .iter()
            .zip(forms)
            .map(|(found, form)| {
                let before = old.position(&found.name);
                let same_type = before.is_some_and(|i| {
                    known.type_oids.get(i) == Some(&found.type_oid)
                        && old.columns[i].class == form.class()
                });
                Column {
                    name: found.name.clone(),
                    class: form.class(),
                    type_name: match before {
                        Some(i) if same_type => old.columns[i].type_name.clone(),
                        _ => type_name(found.type_oid, types),
                    },
                    nullable: before.is_none_or(|i| old.columns[i].nullable),
                }
            })
            .collect();
        let position = |name: &str| self.columns.iter().position(|c| c.name == name);
        let key = match &known.key {
            Some(names) => names
                .iter()
                .map(|n| position(n))
                .collect::<Option<Vec<_>>>(),
            // The key that was known, as long as all of it is there; then the identity.
            None => old
                .key
                .iter()
                .map(|&i| position(&old.columns.get(i)?.name))
                .collect::<Option<Vec<_>>>()
                .filter(|key| !key.is_empty())
                .or_else(|| {
                    Some(
                        (0..self.columns.len())
                            .filter(|&i| self.columns[i].in_identity)
                            .collect(),
                    )
                }),
        };
        match key {
            Some(key) if !key.is_empty() => Ok(TableSchema {
                table: self.table.clone(),
                columns,
                key,
            }),
            _ => Err(ConnectorError::definite(
                "key_lost",
                format!(
                    "The table {} no longer has the columns of its key.",
                    self.table
                ),
                "Name the columns that identify a record in `key`, or give the table its \
                 primary key back.",
            )),
        }
    }
}

/// How the rows of a followed table are read, chosen once for each Relation message.
pub(crate) struct Layout {
    pub(crate) no: TableNo,
    /// The table's index in the open batch.
    pub(crate) index: Option<u16>,
    pub(crate) oid: u32,
    pub(crate) schema: Arc<TableSchema>,
    pub(crate) columns: Vec<ColumnLayout>,
}

pub(crate) struct ColumnLayout {
    pub(crate) form: Form,
    pub(crate) in_identity: bool,
}

impl Layout {
    /// Whether an old row that is only a key tells which record it was.
    pub(crate) fn names_records(&self) -> bool {
        let mut key = self.schema.key.iter();
        key.all(|&at| self.columns.get(at).is_some_and(|c| c.in_identity))
    }
}

/// The OIDs of a Truncate message.
pub(crate) fn truncated(body: &[u8]) -> Result<Vec<u32>, ConnectorError> {
    let mut f = Fields::new("Truncate", body);
    let count = f.u32()? as usize;
    let _options = f.u8()?;
    if count > body.len() / 4 {
        return Err(protocol_violation("a Truncate message that is too short"));
    }
    (0..count).map(|_| f.u32()).collect()
}
