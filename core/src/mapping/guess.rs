//! A first mapping for a table, from the names of its columns.
//!
//! A guess is a starting point that a person reads before it is used, so it proposes only
//! what a name says plainly, gives its reason beside each rule, and is quiet about the
//! rest. Whatever it proposes compiles: a column is taken only where its class fits the
//! attribute (property test below).

use rollcall_contract::{Class, TableSchema};

use super::canonical::Target;
use super::spec::RuleSpec;
use crate::attribute::{AttrType, Attributes};

/// What could be a mapping for a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Guess {
    /// Rules, in the order of attributes, each with its reason.
    pub rules: Vec<GuessedRule>,
    /// Columns that look as if their values should not be stored.
    pub redact: Vec<String>,
    /// Columns that no rule uses, with their type for people.
    pub unused: Vec<(String, String)>,
    /// Remarks that belong above the mapping.
    pub remarks: Vec<String>,
}

/// A proposed rule.
#[derive(Clone, Debug, PartialEq)]
pub struct GuessedRule {
    /// The rule.
    pub rule: RuleSpec,
    /// Why it is proposed.
    pub because: String,
}

/// Attribute, and the names under which it is usually found, best first: letters and digits
/// only, in lower case.
const USUAL: &[(&str, &[&str])] = &[
    (
        "userName",
        &[
            "username",
            "loginname",
            "login",
            "samaccountname",
            "userprincipalname",
            "upn",
            "accountname",
        ],
    ),
    ("name.formatted", &["formattedname"]),
    (
        "name.givenName",
        &[
            "givenname",
            "firstname",
            "fname",
            "forename",
            "vorname",
            "prenom",
        ],
    ),
    ("name.middleName", &["middlename", "mname", "middleinitial"]),
    (
        "name.familyName",
        &[
            "familyname",
            "lastname",
            "surname",
            "lname",
            "nachname",
            "nom",
        ],
    ),
    (
        "name.honorificPrefix",
        &["honorificprefix", "salutation", "nameprefix"],
    ),
    ("name.honorificSuffix", &["honorificsuffix", "namesuffix"]),
    (
        "displayName",
        &["displayname", "fullname", "completename", "name"],
    ),
    (
        "nickName",
        &["nickname", "preferredname", "knownas", "preferredfirstname"],
    ),
    (
        "title",
        &["jobtitle", "title", "positiontitle", "position", "job"],
    ),
    (
        "userType",
        &[
            "usertype",
            "employeetype",
            "employmenttype",
            "emptype",
            "contracttype",
            "workertype",
        ],
    ),
    (
        "preferredLanguage",
        &["preferredlanguage", "language", "lang"],
    ),
    ("locale", &["locale"]),
    ("timezone", &["timezone", "tz"]),
    (
        "active",
        &["active", "isactive", "enabled", "isenabled", "isemployed"],
    ),
    (
        "email",
        &[
            "email",
            "emailaddress",
            "mail",
            "workemail",
            "emailwork",
            "businessemail",
            "primaryemail",
            "officeemail",
            "companyemail",
            "mailaddress",
        ],
    ),
    ("emails", &["emails", "emailaddresses"]),
    (
        "phoneNumber",
        &[
            "phonenumber",
            "workphone",
            "officephone",
            "phone",
            "telephone",
            "tel",
            "mobilephone",
            "mobile",
            "cell",
            "cellphone",
        ],
    ),
    ("phoneNumbers", &["phonenumbers", "phones"]),
    ("address.formatted", &["address", "fulladdress"]),
    (
        "address.streetAddress",
        &["streetaddress", "street", "addressline1", "address1"],
    ),
    ("address.locality", &["locality", "city", "town"]),
    ("address.region", &["region", "state", "province"]),
    (
        "address.postalCode",
        &["postalcode", "postcode", "zip", "zipcode", "plz"],
    ),
    ("address.country", &["country", "countrycode"]),
    ("roles", &["roles"]),
    ("groups", &["groups"]),
    (
        "employeeNumber",
        &[
            "employeenumber",
            "empno",
            "employeeno",
            "employeeid",
            "empid",
            "personnelnumber",
            "staffnumber",
            "staffid",
            "staffno",
        ],
    ),
    ("costCenter", &["costcenter", "costcentre"]),
    (
        "organization",
        &[
            "organization",
            "organisation",
            "company",
            "org",
            "legalentity",
        ],
    ),
    ("division", &["division", "businessunit"]),
    (
        "department",
        &[
            "department",
            "dept",
            "departmentname",
            "deptname",
            "orgunit",
        ],
    ),
    (
        "manager",
        &[
            "managerid",
            "manager",
            "supervisorid",
            "supervisor",
            "reportsto",
            "mgrid",
            "mgr",
        ],
    ),
];

/// Words that stand before the name proper: `emp_email`, `user_phone`.
const PREFIXES: &[&str] = &[
    "emp", "employee", "user", "usr", "person", "pers", "staff", "hr", "worker", "contact",
];

/// Boolean columns that say the opposite of active.
const INACTIVE: &[&str] = &[
    "inactive",
    "isinactive",
    "disabled",
    "isdisabled",
    "terminated",
    "isterminated",
    "isdeleted",
    "deleted",
    "archived",
];

/// Words in the names of columns whose values a directory has no use for.
const SENSITIVE: &[&str] = &[
    "ssn",
    "socialsecurity",
    "salary",
    "wage",
    "compensation",
    "bonus",
    "password",
    "passwd",
    "pwd",
    "birth",
    "dob",
    "iban",
    "bankaccount",
    "taxid",
    "nationalid",
    "passport",
    "religion",
    "ethnicity",
    "gender",
    "marital",
    "disability",
    "health",
];

/// Proposes a mapping.
pub fn guess(schema: &TableSchema) -> Guess {
    let attributes = Attributes::new([]);
    let names: Vec<String> = schema.columns.iter().map(|c| plain(&c.name)).collect();
    let mut used = vec![false; schema.columns.len()];
    let mut found = Guess::default();
    for (attribute, usual) in USUAL {
        let Some(known) = attributes.by_name(attribute) else {
            continue;
        };
        let mut target = Target::new(known, None);
        if let [key] = schema.key[..]
            && known.kind == AttrType::Reference
        {
            target = target.referring(schema.columns[key].class);
        }
        let fits = |column: &usize| {
            !used[*column] && target.accepts(schema.columns[*column].class).is_ok()
        };
        let best = usual.iter().find_map(|name| {
            let mut columns = 0..schema.columns.len();
            columns.find(|c| is_called(&names[*c], name) && fits(c))
        });
        if let Some(column) = best {
            used[column] = true;
            let name = &schema.columns[column].name;
            found.rules.push(GuessedRule {
                rule: RuleSpec::column(*attribute, name),
                because: format!("`{name}` is a usual name for it"),
            });
        }
    }
    derived(schema, &names, &mut used, &mut found);
    order(&attributes, &mut found.rules);
    for (column, name) in schema.columns.iter().zip(&names) {
        let position = schema.position(&column.name);
        let free = position.is_some_and(|at| !used[at] && !schema.key.contains(&at));
        if free && SENSITIVE.iter().any(|word| name.contains(word)) {
            found.redact.push(column.name.clone());
        }
    }
    for (at, column) in schema.columns.iter().enumerate() {
        if !used[at] {
            let unused = (column.name.clone(), column.type_name.clone());
            found.unused.push(unused);
        }
    }
    remarks(schema, &names, &mut found);
    found
}

/// Rules that follow from what was found, or was not.
fn derived(schema: &TableSchema, names: &[String], used: &mut [bool], found: &mut Guess) {
    let column_of = |rules: &[GuessedRule], attribute: &str| {
        let rule = rules.iter().find(|r| r.rule.attribute == attribute)?;
        match &rule.rule.kind {
            super::RuleKind::Column(c) => Some(c.clone()),
            _ => None,
        }
    };
    let has = |rules: &[GuessedRule], attribute: &str| {
        rules.iter().any(|r| r.rule.attribute == attribute)
    };
    if !has(&found.rules, "displayName") {
        let given = column_of(&found.rules, "name.givenName");
        let family = column_of(&found.rules, "name.familyName");
        if let (Some(given), Some(family)) = (given, family) {
            let source = format!("join([{}, {}], \" \")", variable(&given), variable(&family));
            found.rules.push(GuessedRule {
                rule: RuleSpec::expr("displayName", source),
                because: "joined from the two names; what is null is left out".into(),
            });
        }
    }
    if !has(&found.rules, "userName")
        && let Some(email) = column_of(&found.rules, "email")
    {
        found.rules.push(GuessedRule {
            rule: RuleSpec::column("userName", email),
            because: "no login name was found; the e-mail address serves as one".into(),
        });
    }
    if !has(&found.rules, "active") {
        let mut columns = schema.columns.iter().enumerate();
        let opposite = columns.find(|(at, c)| {
            c.class == Class::Bool && INACTIVE.iter().any(|n| is_called(&names[*at], n))
        });
        if let Some((at, column)) = opposite {
            used[at] = true;
            found.rules.push(GuessedRule {
                rule: RuleSpec::expr("active", format!("{} != true", variable(&column.name))),
                because: format!("`{}` says the opposite", column.name),
            });
        }
    }
}

fn order(attributes: &Attributes, rules: &mut [GuessedRule]) {
    rules.sort_by_key(|r| attributes.by_name(&r.rule.attribute).map(|a| a.id));
}

fn remarks(schema: &TableSchema, names: &[String], found: &mut Guess) {
    if !found.rules.iter().any(|r| r.rule.attribute == "email") {
        found.remarks.push(
            "no column was recognised as the e-mail address: records are matched to users by \
             it unless `match` names another attribute"
                .into(),
        );
    }
    for (column, name) in schema.columns.iter().zip(names) {
        let is_status = ["status", "employmentstatus", "state"]
            .iter()
            .any(|n| is_called(name, n));
        if is_status && matches!(column.class, Class::Text | Class::Other) {
            found.remarks.push(format!(
                "`{0}` may decide who is in scope: `scope = '{1} != \"contractor\"'`, or who is \
                 active: `active = {{ expr = '{1} == \"active\"' }}`",
                column.name,
                variable(&column.name)
            ));
        }
    }
}

/// A column in an expression.
fn variable(column: &str) -> String {
    let mut chars = column.chars();
    let starts_well = chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let plain = starts_well && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain && !super::expression::is_word(column) {
        column.to_owned()
    } else {
        let quoted = column.replace('\\', "\\\\").replace('"', "\\\"");
        format!("row[\"{quoted}\"]")
    }
}

fn plain(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

fn is_called(column: &str, name: &str) -> bool {
    column == name
        || PREFIXES
            .iter()
            .any(|p| column.strip_prefix(p).is_some_and(|rest| rest == name))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "a failed test should stop at once"
    )]
    use super::*;
    use crate::mapping::{Mapper, MappingSpec};
    use proptest::prelude::*;
    use rollcall_contract::{Column, TableName};

    fn table(columns: &[(String, Class)]) -> TableSchema {
        TableSchema {
            table: TableName::new("hr", "employees"),
            columns: columns
                .iter()
                .map(|(name, class)| Column {
                    name: name.clone(),
                    class: *class,
                    type_name: class.name().to_owned(),
                    nullable: true,
                })
                .collect(),
            key: vec![0],
        }
    }

    fn compiles(schema: &TableSchema, guess: &Guess) {
        let spec = MappingSpec {
            rules: guess.rules.iter().map(|r| r.rule.clone()).collect(),
            redact: guess.redact.clone(),
            ..MappingSpec::default()
        };
        let mapper = Mapper::compile(&spec, schema, &Attributes::new([]), 1);
        assert!(mapper.is_ok(), "{mapper:?}");
    }

    #[test]
    fn a_usual_table_is_understood() {
        let columns = [
            ("id", Class::Int),
            ("emp_email", Class::Text),
            ("First Name", Class::Text),
            ("surname", Class::Text),
            ("dept", Class::Text),
            ("EmployeeNumber", Class::Int),
            ("is_terminated", Class::Bool),
            ("manager_id", Class::Int),
            ("salary", Class::Decimal),
            ("status", Class::Text),
            ("photo", Class::Bytes),
        ];
        let schema = table(&columns.map(|(n, c)| (n.to_owned(), c)));
        let guess = guess(&schema);
        let rules: Vec<String> = guess
            .rules
            .iter()
            .map(|r| format!("{} {:?}", r.rule.attribute, r.rule.kind))
            .collect();
        assert_eq!(
            rules,
            [
                "userName Column(\"emp_email\")",
                "name.givenName Column(\"First Name\")",
                "name.familyName Column(\"surname\")",
                "displayName Expr(\"join([row[\\\"First Name\\\"], surname], \\\" \\\")\")",
                "active Expr(\"is_terminated != true\")",
                "email Column(\"emp_email\")",
                "employeeNumber Column(\"EmployeeNumber\")",
                "department Column(\"dept\")",
                "manager Column(\"manager_id\")",
            ]
        );
        assert_eq!(guess.redact, ["salary"]);
        let unused: Vec<&str> = guess.unused.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(unused, ["id", "salary", "status", "photo"]);
        assert_eq!(guess.remarks.len(), 1);
        compiles(&schema, &guess);
    }

    #[test]
    fn a_manager_is_guessed_only_where_it_can_be_a_key_of_the_table() {
        let guessed = |key: Vec<usize>, class: Class| {
            let columns = [("id", Class::Int), ("of", Class::Text), ("manager", class)];
            let schema = TableSchema {
                key,
                ..table(&columns.map(|(n, c)| (n.to_owned(), c)))
            };
            let guess = guess(&schema);
            compiles(&schema, &guess);
            guess.rules.iter().any(|r| r.rule.attribute == "manager")
        };
        assert!(guessed(vec![0], Class::Int) && guessed(vec![0], Class::Text));
        assert!(!guessed(vec![0], Class::Date) && !guessed(vec![0], Class::Float));
        assert!(!guessed(vec![0, 1], Class::Int));
    }

    #[test]
    fn a_table_without_people_gets_a_remark_and_no_rules() {
        let schema = table(&[("sku".to_owned(), Class::Text)]);
        let guess = guess(&schema);
        assert!(guess.rules.is_empty());
        assert_eq!(guess.remarks.len(), 1);
    }

    #[test]
    fn every_attribute_of_the_table_of_names_exists() {
        let attributes = Attributes::new([]);
        for (name, usual) in USUAL {
            assert!(attributes.by_name(name).is_some(), "{name}");
            assert!(usual.iter().all(|n| plain(n) == *n), "{name}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_guessed_compiles(picks in proptest::collection::vec(
            (0..USUAL.len(), 0usize..10, 0usize..14, any::<bool>()), 1..12)
        ) {
            const CLASSES: [Class; 14] = [
                Class::Bool, Class::Int, Class::Decimal, Class::Float, Class::Text, Class::Bytes,
                Class::Date, Class::Time, Class::Timestamp, Class::TimestampTz, Class::Uuid,
                Class::Json, Class::List, Class::Other,
            ];
            let mut columns: Vec<(String, Class)> = Vec::new();
            for (attribute, name, class, spaced) in picks {
                let usual = USUAL[attribute].1;
                let mut name = usual[name % usual.len()].to_owned();
                if spaced {
                    name.insert(1, ' ');
                }
                if columns.iter().all(|(n, _)| *n != name) {
                    columns.push((name, CLASSES[class]));
                }
            }
            let schema = table(&columns);
            compiles(&schema, &guess(&schema));
        }
    }
}
