//! Expressions over the columns of a row.
//!
//! An expression is parsed and checked once. Its names are resolved against the schema
//! then, with the scopes of comprehensions respected, so an evaluation meets no unknown
//! name; `row["any name"]` and `row.name` reach columns whose names are no identifiers, by
//! being rewritten to the column itself. Size, nesting and the depth of comprehensions are
//! bounded, so that no expression costs more than its source suggests.
//!
//! An evaluation reads the referenced columns only. All of them are converted first: when
//! one is missing the answer is "missing", whatever branch the expression would have taken,
//! because which branch it takes may depend on what is missing.
//!
//! The interpreter's errors hold the values of operands. They never leave this module; the
//! caller learns that the expression failed, and the dry run that explains a failure uses
//! made-up values only.

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::common::types::CelBool;
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{ExecutionError, Value};
use rollcall_contract::{Cell, Class, TableName, TableSchema};
use smallvec::SmallVec;
use unicode_normalization::UnicodeNormalization;

use super::error::{did_you_mean, unknown};
use super::function;
use super::operand::{NoOperand, Operand};
use super::predicate::Predicate;

/// The longest expression, in bytes.
pub const MAX_EXPRESSION_BYTES: usize = 4096;

/// How many operations may stand in one another: the interpreter recurses for each.
const MAX_DEPTH: usize = 32;

/// Address space, of which a usual expression touches a few pages.
const PARSER_STACK_BYTES: usize = 64 << 20;

/// How deep comprehensions may stand in one another: each level multiplies the cost.
const MAX_COMPREHENSION_DEPTH: usize = 2;

/// Names that CEL gives to types.
const TYPES: &[&str] = &[
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
];

/// Words that CEL reads as something else than a name (language definition, section "Syntax").
const WORDS: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Whether a word of the language stands where a name should.
pub(super) fn is_word(name: &str) -> bool {
    WORDS.contains(&name)
}

/// Whether a name means something to the language.
pub(super) fn is_reserved(name: &str) -> bool {
    TYPES.contains(&name) || is_word(name)
}

/// A checked expression.
#[derive(Debug)]
pub(super) struct Expression {
    /// Column index of each variable.
    columns: Vec<usize>,
    /// Name and class of each variable, in the same order.
    variables: Vec<(String, Class)>,
    expr: IdedExpr,
    direct: Option<Predicate>,
    /// Whether the types of its values depend on data (a part of a JSON document).
    dynamic: bool,
}

/// Something wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// What was found.
    pub found: String,
    /// What should be there instead.
    pub expected: String,
    /// A way to put it right.
    pub suggestion: Option<String>,
}

/// Why an evaluation gave nothing.
#[derive(Debug)]
pub(super) enum Stop {
    /// A column that it needs is missing.
    Missing,
    /// A cell is not a value of its column's class.
    Bad,
    /// The interpreter failed. Holds values: for dry runs only.
    Failed(ExecutionError),
}

impl Expression {
    /// Parses and checks; all flaws are reported.
    pub(super) fn compile(source: &str, schema: &TableSchema) -> Result<Expression, Vec<Flaw>> {
        let (expr, columns, dynamic) = with_room(source, || parse(source, schema))?;
        let variables: Vec<(String, Class)> = columns
            .iter()
            .map(|&i| (schema.columns[i].name.clone(), schema.columns[i].class))
            .collect();
        let direct = Predicate::of(&expr, &variables);
        Ok(Expression {
            columns,
            variables,
            expr,
            direct,
            dynamic,
        })
    }

    /// Whether no made-up row can tell the types of its values.
    pub(super) fn is_dynamic(&self) -> bool {
        self.dynamic
    }

    /// The indexes of the columns that it reads.
    pub(super) fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Whether it is evaluated without the interpreter.
    #[cfg(test)]
    pub(super) fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Evaluates over the cells of a row, and hands the value on.
    pub(super) fn evaluate<R>(
        &self,
        cells: &[Cell<'_>],
        with: impl FnOnce(&(dyn Val + '_)) -> R,
    ) -> Result<R, Stop> {
        let operands = self.operands(cells)?;
        match &self.direct {
            Some(predicate) => Ok(with(&CelBool::from(predicate.holds(&operands)))),
            None => self.interpret(&operands, with),
        }
    }

    fn operands<'a>(&self, cells: &[Cell<'a>]) -> Result<SmallVec<[Operand<'a>; 8]>, Stop> {
        let mut operands = SmallVec::new();
        let mut missing = false;
        for (&column, (_, class)) in self.columns.iter().zip(&self.variables) {
            let cell = cells.get(column).copied().unwrap_or(Cell::Missing);
            match Operand::of(*class, cell) {
                Ok(operand) => operands.push(operand),
                Err(NoOperand::Missing) => missing = true,
                Err(NoOperand::Bad) => return Err(Stop::Bad),
            }
        }
        if missing {
            return Err(Stop::Missing);
        }
        Ok(operands)
    }

    fn interpret<R>(
        &self,
        operands: &[Operand<'_>],
        with: impl FnOnce(&(dyn Val + '_)) -> R,
    ) -> Result<R, Stop> {
        let row = RowScope {
            variables: &self.variables,
            operands,
        };
        let mut scope = function::root().new_inner_scope();
        scope.set_variable_resolver(&row);
        match Value::resolve_val(&self.expr, &scope) {
            Ok(value) => Ok(with(value.as_ref())),
            Err(error) => Err(Stop::Failed(error)),
        }
    }

    /// As [`Expression::evaluate`], by the interpreter always.
    #[cfg(test)]
    pub(super) fn evaluate_slowly<R>(
        &self,
        cells: &[Cell<'_>],
        with: impl FnOnce(&(dyn Val + '_)) -> R,
    ) -> Result<R, Stop> {
        self.interpret(&self.operands(cells)?, with)
    }
}

/// What keeps an expression from being read, whatever columns there are; nothing when it can be.
pub fn unreadable(source: &str) -> Vec<Flaw> {
    with_room(source, || read(source).map(drop))
        .err()
        .unwrap_or_default()
}

/// Runs the parser on a source that is no longer than it may be. The parser's own recursion takes
/// much stack for each bracket; on a thread of its own even the deepest source that fits the
/// limit is refused instead of fatal.
fn with_room<T: Send>(
    source: &str,
    parser: impl FnOnce() -> Result<T, Vec<Flaw>> + Send,
) -> Result<T, Vec<Flaw>> {
    if source.len() > MAX_EXPRESSION_BYTES {
        return Err(vec![Flaw {
            found: format!("an expression of {} bytes", source.len()),
            expected: format!("at most {MAX_EXPRESSION_BYTES} bytes"),
            suggestion: Some("compute the value in a view of the source".into()),
        }]);
    }
    on_thread(parser).unwrap_or_else(|| {
        Err(vec![Flaw {
            found: "an expression that the parser could not be run on".into(),
            expected: "memory for a thread".into(),
            suggestion: None,
        }])
    })
}

/// The names with a dot that an expression reads, as far as it can be read: `dept.name` for
/// `dept.name` and for `dept["name"]`, unless `dept` is a variable of the expression's own.
pub(super) fn dotted_names(source: &str) -> Vec<String> {
    if source.len() > MAX_EXPRESSION_BYTES {
        return Vec::new();
    }
    let nothing = TableSchema {
        table: TableName::new("", ""),
        columns: Vec::new(),
        key: Vec::new(),
    };
    on_thread(|| resolve(source, &nothing).map(|(_, names)| names.dotted))
        .and_then(Result::ok)
        .unwrap_or_default()
}

/// Runs the parser where it has room; none when there is no such thread.
fn on_thread<T: Send>(parser: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|threads| {
        let thread = std::thread::Builder::new()
            .name("expression-parser".into())
            .stack_size(PARSER_STACK_BYTES)
            .spawn_scoped(threads, parser);
        thread.ok()?.join().ok()
    })
}

/// Reads an expression, and resolves its names to the indexes of columns.
fn parse(source: &str, schema: &TableSchema) -> Result<(IdedExpr, Vec<usize>, bool), Vec<Flaw>> {
    let (expr, names) = resolve(source, schema)?;
    match names.flaws.is_empty() {
        true => Ok((expr, names.columns, names.dynamic)),
        false => Err(names.flaws),
    }
}

fn read(source: &str) -> Result<IdedExpr, Vec<Flaw>> {
    let source: String = source.nfc().collect();
    let parsed = function::environment().parser().parse(&source);
    parsed.map_err(|errors| {
        let flaws = errors.errors.iter().map(|e| Flaw {
            found: format!(
                "an expression that cannot be read at line {}, column {} ({})",
                e.pos.0,
                e.pos.1,
                e.msg.lines().next().unwrap_or_default()
            ),
            expected: "a CEL expression over columns".into(),
            suggestion: None,
        });
        flaws.collect()
    })
}

/// Reads an expression, and says what of its names is known.
fn resolve<'s>(source: &str, schema: &'s TableSchema) -> Result<(IdedExpr, Names<'s>), Vec<Flaw>> {
    let mut expr = read(source)?;
    let mut names = Names {
        schema,
        bound: Vec::new(),
        columns: Vec::new(),
        comprehensions: 0,
        depth: 0,
        deepest: 0,
        dynamic: false,
        dotted: Vec::new(),
        flaws: Vec::new(),
    };
    names.visit(&mut expr);
    if names.deepest > MAX_DEPTH {
        names.flaws.push(Flaw {
            found: format!(
                "an expression of {} operations in one another",
                names.deepest
            ),
            expected: format!("at most {MAX_DEPTH}"),
            suggestion: Some("use `concat`, `join` or `in` instead of a long chain".into()),
        });
    }
    Ok((expr, names))
}

struct RowScope<'s, 'a> {
    variables: &'s [(String, Class)],
    operands: &'s [Operand<'a>],
}

impl VariableResolver for RowScope<'_, '_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let at = self.variables.iter().position(|(n, _)| n == variable)?;
        Some(CowVal::Borrowed(self.operands[at].as_val()))
    }
}

/// Resolves the names of an expression.
struct Names<'s> {
    schema: &'s TableSchema,
    /// Variables of the comprehensions around.
    bound: Vec<String>,
    columns: Vec<usize>,
    /// Comprehensions around.
    comprehensions: usize,
    depth: usize,
    deepest: usize,
    dynamic: bool,
    /// Names with a dot that are no columns' but may be.
    dotted: Vec<String>,
    flaws: Vec<Flaw>,
}

impl Names<'_> {
    fn visit(&mut self, e: &mut IdedExpr) {
        if let Some(name) = self.row_access(&e.expr) {
            e.expr = Expr::Ident(name);
        } else if let Some(name) = self.related_access(&e.expr) {
            match self.schema.position(&name) {
                Some(_) => e.expr = Expr::Ident(name),
                None => self.dotted.push(name),
            }
        }
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        self.parts(&mut e.expr);
        self.depth -= 1;
    }

    fn parts(&mut self, expr: &mut Expr) {
        match expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => {
                let name = name.clone();
                self.name(&name);
            }
            Expr::Call(call) => {
                self.dynamic |= function::is_dynamic(&call.func_name);
                if !function::is_known(&call.func_name) {
                    self.flaws.push(Flaw {
                        found: format!("an unknown function `{}`", call.func_name),
                        expected: "a function of the mapping reference".into(),
                        suggestion: did_you_mean(&call.func_name, function::names()),
                    });
                }
                if let Some(target) = &mut call.target {
                    self.visit(target);
                }
                call.args.iter_mut().for_each(|a| self.visit(a));
            }
            Expr::Select(select) => self.visit(&mut select.operand),
            Expr::List(list) => list.elements.iter_mut().for_each(|x| self.visit(x)),
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    match &mut entry.expr {
                        EntryExpr::StructField(field) => self.visit(&mut field.value),
                        EntryExpr::MapEntry(entry) => {
                            self.visit(&mut entry.key);
                            self.visit(&mut entry.value);
                        }
                    }
                }
            }
            Expr::Struct(s) => self.flaws.push(Flaw {
                found: format!("a message of type `{}`", s.type_name),
                expected: "texts, numbers, booleans, lists or maps".into(),
                suggestion: None,
            }),
            Expr::Comprehension(c) => {
                self.visit(&mut c.iter_range);
                self.visit(&mut c.accu_init);
                let before = self.bound.len();
                self.bound.push(c.iter_var.clone());
                self.bound.push(c.accu_var.clone());
                self.bound.extend(c.iter_var2.clone());
                self.comprehensions += 1;
                if self.comprehensions == MAX_COMPREHENSION_DEPTH + 1 {
                    self.flaws.push(Flaw {
                        found: "comprehensions nested too deep".into(),
                        expected: format!("at most {MAX_COMPREHENSION_DEPTH} within one another"),
                        suggestion: None,
                    });
                }
                self.visit(&mut c.loop_cond);
                self.visit(&mut c.loop_step);
                self.visit(&mut c.result);
                self.comprehensions -= 1;
                self.bound.truncate(before);
            }
        }
    }

    /// The column that `row["name"]` or `row.name` means.
    fn row_access(&self, expr: &Expr) -> Option<String> {
        let is_row = |e: &IdedExpr| {
            matches!(&e.expr, Expr::Ident(n) if n == "row")
                && !self.bound.iter().any(|b| b == "row")
                && self.schema.position("row").is_none()
        };
        match expr {
            Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
                [operand, index] if is_row(operand) => match &index.expr {
                    Expr::Literal(LiteralValue::String(s)) => Some(s.inner().to_owned()),
                    _ => None,
                },
                _ => None,
            },
            Expr::Select(select) if !select.test && is_row(&select.operand) => {
                Some(select.field.clone())
            }
            _ => None,
        }
    }

    /// The column of a related table that `dept.name` or `dept["name"]` may mean.
    fn related_access(&self, expr: &Expr) -> Option<String> {
        let table = |e: &IdedExpr| match &e.expr {
            Expr::Ident(n) if !self.bound.contains(n) && self.schema.position(n).is_none() => {
                Some(n.clone())
            }
            _ => None,
        };
        let (table, column) = match expr {
            Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
                [operand, index] => match &index.expr {
                    Expr::Literal(LiteralValue::String(s)) => {
                        (table(operand)?, s.inner().to_owned())
                    }
                    _ => return None,
                },
                _ => return None,
            },
            Expr::Select(select) if !select.test => (table(&select.operand)?, select.field.clone()),
            _ => return None,
        };
        Some(format!("{table}.{column}"))
    }

    fn name(&mut self, name: &str) {
        if name.starts_with('@') || self.bound.iter().any(|b| b == name) {
            return;
        }
        if let Some(column) = self.schema.position(name) {
            if !self.columns.contains(&column) {
                self.columns.push(column);
            }
            return;
        }
        if TYPES.contains(&name) {
            return;
        }
        let flaw = if name == "row" {
            Flaw {
                found: "`row` on its own".into(),
                expected: "`row[\"column\"]` with the name of a column".into(),
                suggestion: None,
            }
        } else {
            Flaw {
                found: unknown("variable", name),
                expected: format!("a column of {}", self.schema.table),
                suggestion: did_you_mean(name, self.schema.columns.iter().map(|c| c.name.as_str())),
            }
        };
        if !self.flaws.contains(&flaw) {
            self.flaws.push(flaw);
        }
    }
}
