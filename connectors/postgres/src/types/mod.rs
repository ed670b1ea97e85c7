//! Types of the server and the canonical text of their values.
//!
//! The log and a scan both receive the server's text output under the same session
//! settings ([`crate::config::SESSION_OPTIONS`]), and both pass it through the one
//! [`Form`] of its type. Equal values are therefore equal bytes wherever they were read;
//! the contract's table of classes says what the bytes are. A text that does not have the
//! shape which those settings promise is refused, not passed on in another form.

mod text;

use std::borrow::Cow;
use std::ops::Range;

use hashbrown::HashMap;
use rollcall_contract::{BatchBuilder, Class};
use tokio_postgres::types::{Kind, Type};

use text::{Scalar, in_place, list};

/// What the query side knows of types that are not built in.
pub trait TypeResolver: Send + Sync {
    /// A type by its OID; none when it is not known (yet).
    fn resolve(&self, oid: u32) -> Option<ResolvedType>;
}

/// A type as `pg_type` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedType {
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub kind: ResolvedKind,
}

/// What a type is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolvedKind {
    /// `typtype = 'e'`.
    Enum,
    /// `typtype = 'd'`: the OID of `typbasetype`.
    Domain(u32),
    /// An array: the OID of `typelem`, and the element's `typdelim`.
    Array {
        /// The element type.
        element: u32,
        /// The character between elements.
        delimiter: u8,
    },
    /// A type of an extension that reads as text (`citext`).
    Text,
    /// Anything else: kept as the server's own text.
    Other,
}

impl TypeResolver for HashMap<u32, ResolvedType> {
    fn resolve(&self, oid: u32) -> Option<ResolvedType> {
        self.get(&oid).cloned()
    }
}

impl TypeResolver for std::collections::HashMap<u32, ResolvedType> {
    fn resolve(&self, oid: u32) -> Option<ResolvedType> {
        self.get(&oid).cloned()
    }
}

/// How the text of one type becomes canonical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    class: Class,
    rewrite: Rewrite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rewrite {
    Scalar(Scalar),
    List { element: Scalar, delimiter: u8 },
}

/// A text that the session settings do not allow for its type, or that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCanonical {
    /// The server prints this type in another way than it was told to.
    #[error("is not printed in the form that the session settings ask for")]
    Shape,
    /// The canonical text would take more than 1 GiB.
    #[error("is longer than 1 GiB in canonical form")]
    TooLong,
}

/// Domains over domains; the server allows more, nobody uses it.
const MAX_DEPTH: usize = 16;

impl Form {
    const OTHER: Form = Form::scalar(Class::Other, Scalar::AsIs);

    const fn scalar(class: Class, scalar: Scalar) -> Form {
        Form {
            class,
            rewrite: Rewrite::Scalar(scalar),
        }
    }

    /// The form of a type. Unknown types are [`Class::Other`].
    pub fn of(oid: u32, types: &dyn TypeResolver) -> Form {
        Form::at_depth(oid, types, 0)
    }

    fn at_depth(oid: u32, types: &dyn TypeResolver, depth: usize) -> Form {
        if let Some(form) = builtin(oid) {
            return form;
        }
        let (element, delimiter) = match Type::from_oid(oid).as_ref().map(Type::kind) {
            Some(Kind::Array(element)) => {
                // Only `box` has another delimiter (pg_type.typdelim).
                let delimiter = if *element == Type::BOX { b';' } else { b',' };
                (element.oid(), delimiter)
            }
            Some(_) => return Form::OTHER,
            None => match types.resolve(oid).map(|t| t.kind) {
                _ if depth >= MAX_DEPTH => return Form::OTHER,
                Some(ResolvedKind::Enum | ResolvedKind::Text) => {
                    return Form::scalar(Class::Text, Scalar::AsIs);
                }
                Some(ResolvedKind::Domain(base)) => {
                    return Form::at_depth(base, types, depth + 1);
                }
                Some(ResolvedKind::Array { element, delimiter }) => (element, delimiter),
                Some(ResolvedKind::Other) | None => return Form::OTHER,
            },
        };
        let element = match Form::at_depth(element, types, depth + 1).rewrite {
            Rewrite::Scalar(scalar) => scalar,
            Rewrite::List { .. } => Scalar::AsIs,
        };
        Form {
            class: Class::List,
            rewrite: Rewrite::List { element, delimiter },
        }
    }

    /// The class of the values.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The canonical text of one value.
    ///
    /// # Errors
    /// See [`NotCanonical`].
    pub fn canonical<'a>(&self, text: &'a [u8]) -> Result<Cow<'a, [u8]>, NotCanonical> {
        match self.rewrite {
            Rewrite::Scalar(Scalar::AsIs) => Ok(Cow::Borrowed(text)),
            Rewrite::Scalar(scalar) => {
                let mut own = text.to_vec();
                let range = in_place(scalar, &mut own)?;
                own.truncate(range.end);
                own.drain(..range.start);
                Ok(Cow::Owned(own))
            }
            Rewrite::List { element, delimiter } => {
                let mut out = Vec::with_capacity(text.len() + 16);
                list(element, delimiter, text, &mut out)?;
                Ok(Cow::Owned(out))
            }
        }
    }

    /// Adds the value whose text lies at a range of the builder's data as the next cell, in
    /// canonical form. Rewrites it where it lies when it fits, through `scratch` when not.
    ///
    /// # Errors
    /// See [`NotCanonical`]; no cell was added.
    ///
    /// # Panics
    /// When the range is not inside of the builder's data.
    #[inline]
    pub fn add_cell(
        &self,
        builder: &mut BatchBuilder,
        at: Range<usize>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), NotCanonical> {
        match self.rewrite {
            Rewrite::Scalar(Scalar::AsIs) => builder.cell_range(at.start, at.len()),
            Rewrite::Scalar(scalar) => {
                let found = in_place(scalar, &mut builder.data()[at.clone()])?;
                builder.cell_range(at.start + found.start, found.len());
            }
            Rewrite::List { element, delimiter } => {
                scratch.clear();
                list(element, delimiter, &builder.data()[at], scratch)?;
                builder.cell_bytes(scratch);
            }
        }
        Ok(())
    }
}

/// The name of a type for people, as far as it is known.
pub fn type_name(oid: u32, types: &dyn TypeResolver) -> String {
    match Type::from_oid(oid) {
        Some(t) => t.name().to_owned(),
        None => types
            .resolve(oid)
            .map_or_else(|| format!("type {oid}"), |t| t.name),
    }
}

/// Canonical text of a value of the given type: the function that log and scan share.
///
/// # Errors
/// See [`NotCanonical`].
pub fn canonical<'a>(
    type_oid: u32,
    types: &dyn TypeResolver,
    text: &'a [u8],
) -> Result<Cow<'a, [u8]>, NotCanonical> {
    Form::of(type_oid, types).canonical(text)
}

/// OIDs of `pg_type.dat`; they never change.
fn builtin(oid: u32) -> Option<Form> {
    Some(match oid {
        16 => Form::scalar(Class::Bool, Scalar::AsIs),
        17 => Form::scalar(Class::Bytes, Scalar::Bytes),
        // int8, int2, int4, oid, xid, cid, xid8
        20 | 21 | 23 | 26 | 28 | 29 | 5069 => Form::scalar(Class::Int, Scalar::AsIs),
        // "char", name, text, bpchar, varchar
        18 | 19 | 25 | 1042 | 1043 => Form::scalar(Class::Text, Scalar::AsIs),
        // json, jsonb
        114 | 3802 => Form::scalar(Class::Json, Scalar::AsIs),
        // float4, float8
        700 | 701 => Form::scalar(Class::Float, Scalar::AsIs),
        1082 => Form::scalar(Class::Date, Scalar::AsIs),
        // time, timetz
        1083 | 1266 => Form::scalar(Class::Time, Scalar::AsIs),
        1114 => Form::scalar(Class::Timestamp, Scalar::Timestamp),
        1184 => Form::scalar(Class::TimestampTz, Scalar::TimestampTz),
        1700 => Form::scalar(Class::Decimal, Scalar::AsIs),
        2950 => Form::scalar(Class::Uuid, Scalar::AsIs),
        // int2vector and oidvector call themselves arrays and do not print as such
        22 | 30 => Form::OTHER,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
