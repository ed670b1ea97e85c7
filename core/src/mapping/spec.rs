//! What an operator asks of a mapping, as plain data.
//!
//! Nothing here is checked; [`Mapper::compile`](super::Mapper::compile) turns it into a
//! mapper, or into a list of everything that is wrong with it.

use super::related::RelatedSpec;
use crate::mapped::Strength;

/// The longest value of an attribute, in bytes, unless the configuration says otherwise.
pub const DEFAULT_MAX_VALUE_BYTES: usize = 64 * 1024;

/// The mapping of one source.
#[derive(Clone, Debug, PartialEq)]
pub struct MappingSpec {
    /// One rule for each attribute. Its index here is the rule's number in provenance.
    pub rules: Vec<RuleSpec>,
    /// A boolean expression; records for which it is not true are out of scope.
    pub scope: Option<String>,
    /// Columns whose values may be computed with but never stored.
    pub redact: Vec<String>,
    /// The longest value of an attribute, in bytes; a longer one fails its record.
    pub max_value_bytes: usize,
    /// What decides which source's value wins, in any form: not used in mapping, but with
    /// another one every record has to be applied again.
    pub precedence: String,
    /// For an attribute, the column that says when its value was changed.
    pub changed: Vec<(String, String)>,
    /// Tables whose rows are joined to those of the source's own.
    pub related: Vec<RelatedSpec>,
}

impl MappingSpec {
    /// All of it as one text. What was added to mappings later stands there only where it is
    /// used, so that a mapping without it has the name that it always had.
    pub(super) fn said(&self) -> String {
        let mut said = format!(
            "MappingSpec {{ rules: {:?}, scope: {:?}, redact: {:?}, max_value_bytes: {:?}, \
             precedence: {:?} }}",
            self.rules, self.scope, self.redact, self.max_value_bytes, self.precedence
        );
        if !self.changed.is_empty() {
            said.push_str(&format!(" changed: {:?}", self.changed));
        }
        if !self.related.is_empty() {
            said.push_str(&format!(" related: {:?}", self.related));
        }
        said
    }
}

impl Default for MappingSpec {
    fn default() -> Self {
        MappingSpec {
            rules: Vec::new(),
            scope: None,
            redact: Vec::new(),
            max_value_bytes: DEFAULT_MAX_VALUE_BYTES,
            precedence: String::new(),
            changed: Vec::new(),
            related: Vec::new(),
        }
    }
}

/// How one attribute gets its value.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSpec {
    /// The attribute's full name: `email`, `name.givenName`, `custom.badge`.
    pub attribute: String,
    /// Where the value comes from.
    pub kind: RuleKind,
    /// For lists: the text that separates the values within one text.
    pub split: Option<String>,
    /// Used where the value is null.
    pub default: Option<ConstValue>,
    /// How the value is used.
    pub strength: Strength,
    /// What null means.
    pub on_null: OnNull,
}

impl RuleSpec {
    /// A rule with everything beside its value left at the defaults.
    pub fn new(attribute: impl Into<String>, kind: RuleKind) -> Self {
        RuleSpec {
            attribute: attribute.into(),
            kind,
            split: None,
            default: None,
            strength: Strength::Always,
            on_null: OnNull::Clear,
        }
    }

    /// A rule that copies a column.
    pub fn column(attribute: impl Into<String>, column: impl Into<String>) -> Self {
        RuleSpec::new(attribute, RuleKind::Column(column.into()))
    }

    /// A rule that computes its value.
    pub fn expr(attribute: impl Into<String>, expression: impl Into<String>) -> Self {
        RuleSpec::new(attribute, RuleKind::Expr(expression.into()))
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleKind {
    /// The column of this name.
    Column(String),
    /// The columns of these names: together the key of another record.
    Columns(Vec<String>),
    /// This CEL expression over columns.
    Expr(String),
    /// This value, for every record.
    Constant(ConstValue),
}

/// A value written into the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConstValue {
    /// `true` or `false`.
    Boolean(bool),
    /// An integer.
    Integer(i64),
    /// A number with a fraction, as it is written.
    Decimal(String),
    /// Text; also dates and timestamps.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
}

impl ConstValue {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            ConstValue::Boolean(_) => "a boolean",
            ConstValue::Integer(_) => "an integer",
            ConstValue::Decimal(_) => "a number",
            ConstValue::Text(_) => "a text",
            ConstValue::List(_) => "a list",
        }
    }
}

/// What null means to a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNull {
    /// There is no value: the attribute loses what this source gave it.
    #[default]
    Clear,
    /// Nothing is said: the attribute keeps its value.
    Keep,
    /// The rule's default is the value. The rule must have one.
    Default,
}
