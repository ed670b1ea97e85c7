//! Tables that change under a mapping.

use super::*;

fn without(columns: &[&str]) -> TableSchema {
    let kept: Vec<(&str, Class)> = COLUMNS
        .iter()
        .copied()
        .filter(|(name, _)| !columns.contains(name))
        .collect();
    schema_of(&kept)
}

fn spec(scope: Option<&str>) -> MappingSpec {
    MappingSpec {
        rules: vec![
            RuleSpec::column("email", "emp_email"),
            RuleSpec::column("department", "dept"),
            RuleSpec::expr("displayName", "first_name + ' ' + last_name"),
        ],
        scope: scope.map(str::to_owned),
        redact: vec!["salary".to_owned()],
        ..MappingSpec::default()
    }
}

fn over(spec: &MappingSpec, now: &TableSchema) -> Result<Mapper, Vec<MappingError>> {
    Mapper::compile_over(spec, now, &attributes(), 2, &[(1, schema())])
}

fn paused(mapper: &Mapper) -> Vec<&str> {
    mapper.paused().iter().map(|p| p.name.as_str()).collect()
}

#[test]
fn a_rule_whose_column_is_gone_keeps_what_it_gave_and_the_others_go_on() {
    let now = without(&["dept", "last_name", "salary"]);
    let mapper = over(&spec(None), &now).unwrap();
    assert_eq!(paused(&mapper), ["department", "displayName"]);
    assert!(
        mapper.paused()[0].why.contains("`dept`"),
        "{:?}",
        mapper.paused()
    );
    let mut cells = vec![Cell::Null; now.columns.len()];
    (cells[0], cells[1]) = (Cell::Value(b"1"), text("a@x.org"));
    let batch = batch_of(&now, &[cells]);
    let mut out = MappedRows::default();
    mapper.map(&batch.change(0).after().unwrap(), None, &mut out);
    let row = out.row(0);
    assert_eq!(row.outcome(), Outcome::Mapped);
    assert!(!row.incomplete(), "the source has no more to say");
    let kept: Vec<bool> = fields(&row).into_iter().map(|(.., keeps)| keeps).collect();
    assert_eq!(kept.iter().filter(|keeps| **keeps).count(), 2);
    assert_eq!(kept.len(), 3);
}

#[test]
fn a_column_of_another_type_pauses_its_rule_if_the_type_does_not_fit() {
    let other = |class| {
        let mut now = schema();
        let at = now.position("hired").unwrap();
        now.columns[at].class = class;
        let rules = vec![RuleSpec::column("custom.hired", "hired")];
        over(
            &MappingSpec {
                rules,
                ..MappingSpec::default()
            },
            &now,
        )
        .unwrap()
    };
    assert_eq!(paused(&other(Class::Bool)), ["custom.hired"]);
    assert!(paused(&other(Class::Date)).is_empty());
}

#[test]
fn a_row_counts_as_changed_when_a_rule_is_paused_and_the_mapping_is_the_same_one() {
    let spec = MappingSpec {
        redact: Vec::new(),
        ..spec(None)
    };
    let whole = over(&spec, &schema()).unwrap();
    let mut renamed = schema();
    renamed.columns[4].name = "division".to_owned();
    let drifted = over(&spec, &renamed).unwrap();
    let cells = || row(&[("emp_email", text("a@x.org"))]);
    let (a, b) = (map(&whole, cells(), None), map(&drifted, cells(), None));
    assert_ne!(a.row(0).hash(), b.row(0).hash());
    assert_eq!(whole.fingerprint(), drifted.fingerprint());
}

#[test]
fn what_never_fitted_or_decides_about_a_record_is_an_error() {
    let mut never = spec(None);
    never.rules.push(RuleSpec::column("title", "job"));
    let errors = over(&never, &without(&["dept"])).unwrap_err();
    assert_eq!(errors.len(), 2, "{errors:?}");
    let errors = over(&spec(Some("status != 'contractor'")), &without(&["status"])).unwrap_err();
    assert_eq!(errors[0].place, Place::Scope);
}
