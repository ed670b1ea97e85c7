//! Joined rows: what two tables say of one record.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use rollcall_contract::{
    Batch, BatchBuilder, Cell, Class, Column, Cursor, Key, Op, TableName, TableNo, TableSchema, Tx,
    TxId,
};
use smallvec::SmallVec;

use super::super::related::{
    Join, JoinedCell, Joiner, MAX_JOINED, RelatedReader, RelatedRows, RelatedSpec, Shown, is_name,
    used_columns,
};
use super::super::{Mapper, MappingSpec, RuleSpec};
use crate::attribute::Attributes;
use crate::mapped::{Assigned, MappedRows, Outcome, value_text};
use crate::state::KeyBytes;

fn schema(name: &str, columns: &[(&str, Class)]) -> Arc<TableSchema> {
    let columns = columns.iter().map(|(name, class)| Column {
        name: (*name).to_owned(),
        class: *class,
        type_name: class.name().to_owned(),
        nullable: true,
    });
    Arc::new(TableSchema {
        table: TableName::new("hr", name),
        columns: columns.collect(),
        key: vec![0],
    })
}

fn batch(schema: &Arc<TableSchema>, rows: &[Vec<Cell<'_>>]) -> Batch {
    let mut builder = BatchBuilder::default();
    let table = builder.table(TableNo::MAIN, schema);
    builder.tx(Tx {
        id: TxId::default(),
        position: SmallVec::new(),
        commit_us: 0,
    });
    for row in rows {
        builder.begin(table, Op::Update, 0);
        for cell in row {
            match cell {
                Cell::Null => builder.cell_null(),
                Cell::Missing => builder.cell_missing(),
                Cell::Unchanged => builder.cell_unchanged(),
                Cell::Value(text) => builder.cell_bytes(text),
            }
        }
        builder.finish(true, 0);
    }
    builder.build(Cursor::new(&[], ""))
}

fn text(value: &str) -> Cell<'_> {
    Cell::Value(value.as_bytes())
}

/// Rows by table, join value and key.
#[derive(Default)]
struct Rows {
    rows: BTreeMap<(TableNo, KeyBytes), BTreeMap<KeyBytes, Vec<u8>>>,
    is_unknown: bool,
}

impl Rows {
    fn add(&mut self, table: TableNo, reader: &RelatedReader, rows: &Batch) {
        for change in rows.changes() {
            let row = change.after().unwrap();
            let image = reader.image(&row, None);
            let key = Key::of_row(change.table(), &row).unwrap();
            let key = KeyBytes::from_slice(key.as_bytes());
            if let Some(joined) = image.joined {
                let of = self.rows.entry((table, joined)).or_default();
                of.insert(key, image.cells);
            }
        }
    }
}

impl RelatedRows for Rows {
    type Error = Infallible;

    fn rows(
        &mut self,
        table: TableNo,
        joined: &[u8],
        show: &mut dyn FnMut(&[u8]) -> Shown,
    ) -> Result<bool, Infallible> {
        let of = self.rows.get(&(table, KeyBytes::from_slice(joined)));
        for cells in of.into_iter().flat_map(BTreeMap::values) {
            if show(cells) == Shown::Enough {
                break;
            }
        }
        Ok(!self.is_unknown)
    }
}

struct World {
    join: Join,
    people: Arc<TableSchema>,
    rows: Rows,
    spec: MappingSpec,
}

const DEPT: TableNo = TableNo(1);
const GRANTS: TableNo = TableNo(2);

fn world() -> World {
    let people = schema(
        "people",
        &[
            ("id", Class::Int),
            ("email", Class::Text),
            ("department_id", Class::Int),
        ],
    );
    let departments = schema(
        "departments",
        &[
            ("id", Class::Decimal),
            ("name", Class::Text),
            ("head", Class::Text),
        ],
    );
    let grants = schema(
        "grants",
        &[
            ("n", Class::Int),
            ("person", Class::Int),
            ("role", Class::Text),
        ],
    );
    let mut spec = MappingSpec {
        rules: vec![
            RuleSpec::column("email", "email"),
            RuleSpec::column("department", "dept.name"),
            RuleSpec::column("roles", "grants.role"),
            RuleSpec::expr("title", "'admin' in grants[\"role\"] ? 'Admin' : 'User'"),
        ],
        scope: Some("dept.name != 'Closed'".to_owned()),
        ..MappingSpec::default()
    };
    let used = used_columns(&spec, &["dept", "grants"]);
    assert_eq!(used, [vec!["name".to_owned()], vec!["role".to_owned()]]);
    let related = |name: &str, table: &TableSchema, on: (&str, &str), many, columns| RelatedSpec {
        name: name.to_owned(),
        table: table.table.clone(),
        on: vec![(on.0.to_owned(), on.1.to_owned())],
        many,
        columns,
    };
    spec.related = vec![
        related(
            "dept",
            &departments,
            ("id", "department_id"),
            false,
            used[0].clone(),
        ),
        related("grants", &grants, ("person", "id"), true, used[1].clone()),
    ];
    let join = Join::new(
        &spec.related,
        &people,
        &[departments.clone(), grants.clone()],
    )
    .unwrap();
    let mut rows = Rows::default();
    let of = batch(&departments, &[vec![text("10.0"), text("Law"), text("x")]]);
    rows.add(DEPT, join.reader(DEPT).unwrap(), &of);
    let of =
        [("3", "reader"), ("2", "admin")].map(|(n, role)| vec![text(n), text("1"), text(role)]);
    rows.add(GRANTS, join.reader(GRANTS).unwrap(), &batch(&grants, &of));
    World {
        join,
        people,
        rows,
        spec,
    }
}

impl World {
    fn joined(&mut self, row: Vec<Cell<'_>>) -> Batch {
        let raw = batch(&self.people, &[row]);
        let mut joiner = Joiner::default();
        let Ok(_) = joiner.push(&self.join, &raw.change(0), &mut self.rows);
        joiner.finish(raw.cursor().clone())
    }

    fn cells(&mut self, row: Vec<Cell<'_>>) -> Vec<String> {
        let joined = self.joined(row);
        let row = joined.change(0).after().unwrap();
        let shown = |cell: Cell<'_>| match cell {
            Cell::Value(text) => String::from_utf8_lossy(text).into_owned(),
            other => format!("{other:?}"),
        };
        row.cells().skip(3).map(shown).collect()
    }

    /// Outcome, and the values of the attributes by name.
    fn mapped(&mut self, row: Vec<Cell<'_>>, stored: &[u8]) -> (Outcome, BTreeMap<String, String>) {
        let attributes = Attributes::new([]);
        let mapper = Mapper::compile(&self.spec, self.join.schema(), &attributes, 1).unwrap();
        let joined = self.joined(row);
        let mut out = MappedRows::default();
        mapper.map(&joined.change(0).after().unwrap(), Some(stored), &mut out);
        let row = out.row(0);
        let fields = row.fields().filter_map(|field| match field.assigned {
            Assigned::Value(value) => {
                let attribute = attributes.get(field.attribute).unwrap();
                Some((attribute.name.clone(), value_text(value, attribute.kind)))
            }
            _ => None,
        });
        let fields = fields.collect();
        (row.outcome(), fields)
    }
}

fn person<'a>(id: &'a str, dept: Cell<'a>) -> Vec<Cell<'a>> {
    vec![text(id), text("a@example.org"), dept]
}

#[test]
fn a_row_has_what_its_related_rows_say_and_numbers_are_equal_whatever_their_type() {
    let mut world = world();
    assert_eq!(
        world.cells(person("1", text("10"))),
        ["Law", r#"["admin","reader"]"#]
    );
    assert_eq!(world.cells(person("2", text("11"))), ["Null", "[]"]);
    assert_eq!(world.cells(person("2", Cell::Null)), ["Null", "[]"]);
    let (outcome, fields) = world.mapped(person("1", text("10")), &[]);
    assert_eq!(outcome, Outcome::Mapped);
    assert_eq!(fields["department"], "Law");
    assert_eq!(fields["title"], "Admin");
    assert!(fields["roles"].contains("admin") && fields["roles"].contains("reader"));
    let (_, fields) = world.mapped(person("2", Cell::Null), &[]);
    assert!(!fields.contains_key("department"));
    assert!(
        fields
            .get("roles")
            .is_none_or(|roles| !roles.contains("admin"))
    );
}

#[test]
fn what_is_not_known_of_a_related_table_clears_nothing_and_nobody_leaves_the_scope_for_it() {
    let mut world = world();
    world.rows.is_unknown = true;
    assert_eq!(world.cells(person("1", text("10"))), ["Missing", "Missing"]);
    let (outcome, fields) = world.mapped(person("1", text("10")), &[]);
    assert!(matches!(outcome, Outcome::Failed { .. }));
    assert!(fields.is_empty());
}

#[test]
fn a_row_whose_join_column_is_as_it_was_keeps_what_was_joined() {
    let mut world = world();
    assert_eq!(
        world.cells(person("1", Cell::Unchanged)),
        ["Unchanged", r#"["admin","reader"]"#]
    );
}

#[test]
fn a_department_that_is_out_of_scope_takes_its_people_along() {
    let mut world = world();
    let closed = schema(
        "departments",
        &[
            ("id", Class::Int),
            ("name", Class::Text),
            ("head", Class::Text),
        ],
    );
    let reader = RelatedReader::new(&world.spec.related[0], &closed);
    let of = batch(&closed, &[vec![text("5"), text("Closed"), Cell::Null]]);
    world.rows.add(DEPT, &reader, &of);
    assert_eq!(
        world.mapped(person("1", text("5")), &[]).0,
        Outcome::OutOfScope
    );
}

#[test]
fn of_several_rows_where_one_is_to_be_the_one_with_the_lowest_key_counts() {
    let mut world = world();
    let table = schema(
        "departments",
        &[
            ("code", Class::Int),
            ("id", Class::Int),
            ("name", Class::Text),
        ],
    );
    let reader = RelatedReader::new(&world.spec.related[0], &table);
    let of = ["7", "4", "9"].map(|code| vec![text(code), text("6"), text(code)]);
    world.rows.add(DEPT, &reader, &batch(&table, &of));
    assert_eq!(world.cells(person("1", text("6")))[0], "4");
    let specs = &world.spec.related;
    let tables = [Arc::clone(&table), table];
    let ambiguous = Join::ambiguous(specs, &tables);
    assert_eq!(ambiguous.count(), 1, "only where one row is to be");
}

#[test]
fn a_record_with_more_related_rows_than_a_list_may_have_fails_alone() {
    let mut world = world();
    let of = world.rows.rows.entry((GRANTS, {
        let mut key = Key::new();
        key.push(b"8");
        KeyBytes::from_slice(key.as_bytes())
    }));
    let of = of.or_default();
    for n in 0..=MAX_JOINED as u32 {
        of.insert(
            KeyBytes::from_slice(&n.to_be_bytes()),
            vec![2, 3, b'r', 3, b'8'],
        );
    }
    let (outcome, _) = world.mapped(person("8", text("10")), &[]);
    assert!(matches!(outcome, Outcome::Failed { .. }));
}

#[test]
fn an_image_that_has_a_part_of_a_related_row_is_completed_from_what_is_kept() {
    let world = world();
    let reader = world.join.reader(DEPT).unwrap();
    let table = schema(
        "departments",
        &[
            ("id", Class::Decimal),
            ("name", Class::Text),
            ("head", Class::Text),
        ],
    );
    let whole = batch(&table, &[vec![text("1"), text("Law"), text("x")]]);
    let whole = reader.image(&whole.change(0).after().unwrap(), None);
    let part = batch(&table, &[vec![text("1"), Cell::Unchanged, text("y")]]);
    let part = reader.image(&part.change(0).after().unwrap(), Some(&whole.cells));
    assert_eq!(part, whole);
}

#[test]
fn a_dropped_column_of_a_related_table_is_no_column_and_a_lost_join_column_takes_all_along() {
    let world = world();
    let grants = schema("grants", &[("n", Class::Int), ("role", Class::Text)]);
    let departments = schema("departments", &[("id", Class::Int), ("title", Class::Text)]);
    let join = Join::new(
        &world.spec.related,
        &world.people,
        &[departments.clone(), grants.clone()],
    );
    let join = join.unwrap();
    assert_eq!(join.schema().columns.len(), world.people.columns.len());
    let flaws = Join::flaws(&world.spec.related, &world.people, &[departments, grants]);
    let found: Vec<&str> = flaws.iter().map(|f| f.found.as_str()).collect();
    assert_eq!(
        found,
        ["an unknown column `name`", "an unknown column `person`"]
    );
    assert_eq!(JoinedCell::Null.as_cell(), Cell::Null);
}

#[test]
fn a_related_table_is_called_by_a_name_that_expressions_can_read() {
    for good in ["dept", "_d", "role_grants2"] {
        assert!(is_name(good), "{good}");
    }
    for bad in ["", "row", "in", "list", "2d", "a.b", "a-b", "dépt"] {
        assert!(!is_name(bad), "{bad}");
    }
}
