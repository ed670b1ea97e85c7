//! The types that a database defines for itself.
//!
//! The log and the catalogs name a column's type by an OID that, for a domain, an
//! enumeration or an extension's type, means something in one database only. What those
//! come down to is read once for all of them and again at intervals, and shared between
//! scan and log, so that both read a value in the same way. A type that appears between
//! two readings is unknown until the next one, and its values are the server's own text.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rollcall_contract::{Class, ConnectorError};
use tokio_postgres::GenericClient;

use crate::query;
use crate::types::{Form, ResolvedKind, ResolvedType, TypeResolver};

/// The types of one database that are not built in; clones share one reading.
#[derive(Clone, Debug, Default)]
pub struct TypeMap(Arc<RwLock<HashMap<u32, ResolvedType>>>);

impl TypeResolver for TypeMap {
    fn resolve(&self, oid: u32) -> Option<ResolvedType> {
        let types = self.0.read().unwrap_or_else(PoisonError::into_inner);
        types.get(&oid).cloned()
    }
}

impl TypeMap {
    /// How values of a type are read.
    pub(crate) fn form(&self, oid: u32) -> Form {
        Form::of(oid, self)
    }

    /// The class of a type's values.
    pub(crate) fn class(&self, oid: u32) -> Class {
        self.form(oid).class()
    }

    /// Reads the types as they are now.
    pub(crate) async fn refresh<C: GenericClient>(&self, client: &C) -> Result<(), ConnectorError> {
        // 16384 is the first OID that a user's object can have (FirstNormalObjectId).
        // Composite types, one for each table, are left out: unknown types read alike.
        let rows = client
            .query_typed(
                "SELECT t.oid, t.typname::text, t.typtype::text, t.typcategory::text, \
                        t.typbasetype, t.typelem, e.typdelim::text \
                 FROM pg_catalog.pg_type t \
                 LEFT JOIN pg_catalog.pg_type e \
                   ON e.oid = t.typelem AND t.typcategory = 'A' AND t.typlen = -1 \
                 WHERE t.oid >= 16384 AND t.typtype IN ('b', 'd', 'e')",
                &[],
            )
            .await
            .map_err(|e| query::failed(&e, "reading the types of columns"))?;
        let types = rows
            .iter()
            .map(|row| {
                let kind = match (row.get(2), row.get(3), row.get::<_, Option<&str>>(6)) {
                    ("e", _, _) => ResolvedKind::Enum,
                    ("d", _, _) => ResolvedKind::Domain(row.get(4)),
                    (_, _, Some(delimiter)) => ResolvedKind::Array {
                        element: row.get(5),
                        delimiter: delimiter.bytes().next().unwrap_or(b','),
                    },
                    (_, "S", _) => ResolvedKind::Text,
                    _ => ResolvedKind::Other,
                };
                (
                    row.get(0),
                    ResolvedType {
                        name: row.get(1),
                        kind,
                    },
                )
            })
            .collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = types;
        Ok(())
    }
}
