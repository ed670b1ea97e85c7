//! What holds for any row.

use proptest::prelude::*;
use rollcall_contract::{Cell, Class};

use super::{COLUMNS, batch_of, compile, fields, map, schema};
use crate::mapped::{MappedRows, Outcome};
use crate::mapping::{Mapper, MappingSpec, RuleSpec, expression};

fn any_cell(class: Class) -> BoxedStrategy<Option<String>> {
    let values = match class {
        Class::Bool => prop_oneof!["[tf]"].boxed(),
        Class::Int => prop_oneof![
            (-3i64..4).prop_map(|n| n.to_string()),
            Just(u64::MAX.to_string())
        ]
        .boxed(),
        Class::Decimal => "-?[0-9]{1,3}\\.[0-9]{1,3}".boxed(),
        Class::Float => any::<f32>().prop_map(|f| f.to_string()).boxed(),
        Class::Date => "20[0-9]{2}-0[1-9]-[12][0-9]".boxed(),
        Class::List => proptest::collection::vec("[a-c]{0,2}", 0..4)
            .prop_map(|v| serde_json::to_string(&v).unwrap())
            .boxed(),
        Class::Json => Just("{\"a\":\"b\"}".to_owned()).boxed(),
        _ => prop_oneof!["[a-c]{0,2}", any::<String>()].boxed(),
    };
    proptest::option::weighted(0.8, values).boxed()
}

fn any_row() -> impl Strategy<Value = Vec<Option<String>>> {
    COLUMNS
        .iter()
        .map(|(_, class)| any_cell(*class))
        .collect::<Vec<_>>()
}

fn cells_of(row: &[Option<String>]) -> Vec<Cell<'_>> {
    row.iter()
        .map(|c| c.as_ref().map_or(Cell::Null, |v| Cell::Value(v.as_bytes())))
        .collect()
}

static FULL: std::sync::LazyLock<Mapper> = std::sync::LazyLock::new(|| {
    compile(MappingSpec {
        rules: vec![
            RuleSpec::column("email", "emp_email"),
            RuleSpec::column("name.givenName", "first_name"),
            RuleSpec::expr("displayName", "join([first_name, last_name], ' ')"),
            RuleSpec::column("roles", "skills"),
            RuleSpec::column("custom.hired", "hired"),
            RuleSpec::expr("title", "first_name + dept"),
            RuleSpec::column("active", "enabled"),
        ],
        scope: Some("status != 'a' || id > 0".to_owned()),
        ..MappingSpec::default()
    })
    .unwrap()
});

static REDACTING: std::sync::LazyLock<Mapper> = std::sync::LazyLock::new(|| {
    compile(MappingSpec {
        rules: vec![RuleSpec::column("email", "emp_email")],
        redact: vec!["salary".into(), "notes".into()],
        ..MappingSpec::default()
    })
    .unwrap()
});

fn predicate() -> impl Strategy<Value = String> {
    let literal = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        (-3i64..4).prop_map(|n| n.to_string()),
        "[a-c]{0,2}".prop_map(|t| format!("'{t}'")),
        Just("'\u{212a}\u{e9}'".to_owned()),
    ];
    let column =
        proptest::sample::select(vec!["id", "status", "enabled", "dept", "hired", "salary"]);
    let leaf = prop_oneof![
        (column.clone(), any::<bool>(), literal.clone())
            .prop_map(|(c, eq, l)| format!("{c} {} {l}", if eq { "==" } else { "!=" })),
        (literal.clone(), column.clone()).prop_map(|(l, c)| format!("{l} == {c}")),
        (column, proptest::collection::vec(literal, 0..3))
            .prop_map(|(c, l)| format!("{c} in [{}]", l.join(", "))),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) && ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) || ({b})")),
            inner.prop_map(|a| format!("!({a})")),
        ]
    })
}

proptest! {
    #[test]
    fn a_direct_comparison_says_what_cel_says(source in predicate(), row in any_row()) {
        use cel::common::types::CelBool;
        let schema = schema();
        let expression = expression::Expression::compile(&source, &schema).unwrap();
        prop_assert!(expression.is_direct(), "{}", source);
        let cells = cells_of(&row);
        let bool_of = |v: &(dyn cel::common::value::Val + '_)| *v.downcast_ref::<CelBool>().unwrap().inner();
        let fast = expression.evaluate(&cells, bool_of);
        let slow = expression.evaluate_slowly(&cells, bool_of);
        match (fast, slow) {
            (Ok(fast), Ok(slow)) => prop_assert_eq!(fast, slow, "{}", source),
            (fast, slow) => prop_assert_eq!(
                std::mem::discriminant(&fast.unwrap_err()),
                std::mem::discriminant(&slow.unwrap_err())
            ),
        }
    }

    #[test]
    fn mapping_a_shadow_gives_what_mapping_its_row_gave(row in any_row()) {
        let mapper = &*FULL;
        let from_row = map(mapper, cells_of(&row), None);
        let mut again = MappedRows::default();
        mapper.map_shadow(from_row.row(0).shadow(), &mut again);
        let (a, b) = (from_row.row(0), again.row(0));
        prop_assert_eq!(a.outcome(), b.outcome());
        prop_assert_eq!(fields(&a), fields(&b));
        prop_assert_eq!(a.shadow(), b.shadow());
        prop_assert_eq!(a.hash(), b.hash());
        prop_assert!(!a.incomplete() && !b.incomplete());
    }

    #[test]
    fn holes_never_clear_and_never_leave(row in any_row(), holes in proptest::collection::vec(any::<bool>(), COLUMNS.len())) {
        let mapper = &*FULL;
        let whole = map(mapper, cells_of(&row), None);
        let mut cells = cells_of(&row);
        for (cell, hole) in cells.iter_mut().zip(&holes) {
            if *hole {
                *cell = Cell::Missing;
            }
        }
        // With the shadow at hand the holes are not there at all.
        let filled = map(mapper, cells.clone(), Some(whole.row(0).shadow()));
        prop_assert_eq!(filled.row(0).outcome(), whole.row(0).outcome());
        prop_assert_eq!(fields(&filled.row(0)), fields(&whole.row(0)));
        prop_assert_eq!(filled.row(0).hash(), whole.row(0).hash());
        // Without it, what is said is what the whole row says, or nothing.
        let holey = map(mapper, cells, Some(b""));
        prop_assert!(holey.row(0).outcome() != Outcome::OutOfScope || whole.row(0).outcome() == Outcome::OutOfScope);
        if whole.row(0).outcome() == Outcome::Mapped && holey.row(0).outcome() == Outcome::Mapped {
            for (holey, whole) in fields(&holey.row(0)).iter().zip(fields(&whole.row(0))) {
                prop_assert!(holey.3 || *holey == whole);
            }
        }
    }

    #[test]
    fn a_row_is_hashed_alone_as_it_is_when_it_is_mapped(
        row in any_row(),
        hole in proptest::option::of(0..COLUMNS.len()),
    ) {
        let mut cells = cells_of(&row);
        if let Some(hole) = hole {
            cells[hole] = Cell::Missing;
        }
        let batch = batch_of(&schema(), std::slice::from_ref(&cells));
        let image = batch.change(0).after().unwrap();
        for mapper in [&*FULL, &*REDACTING] {
            let mapped = map(mapper, cells.clone(), None);
            let mapped = mapped.row(0);
            let hash = (mapped.outcome() != Outcome::Deferred).then(|| mapped.hash());
            prop_assert_eq!(mapper.hash(&image, &mut b"left over".to_vec()), hash);
        }
    }

    #[test]
    fn rows_with_equal_hashes_are_equal(a in any_row(), b in any_row()) {
        let mapper = &*FULL;
        let (x, y) = (map(mapper, cells_of(&a), None), map(mapper, cells_of(&b), None));
        prop_assert_eq!(x.row(0).hash() == y.row(0).hash(), a == b);
    }

    #[test]
    fn no_bytes_in_a_cell_or_a_shadow_bring_a_mapper_down(
        cells in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), COLUMNS.len()),
        shadow in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mapper = &*FULL;
        let cells = cells.iter().map(|c| Cell::Value(c)).collect();
        let out = map(mapper, cells, Some(&shadow));
        prop_assert!(out.row(0).outcome() != Outcome::Deferred);
        let mut out = MappedRows::default();
        mapper.map_shadow(&shadow, &mut out);
        prop_assert_eq!(out.len(), 1);
    }
}
