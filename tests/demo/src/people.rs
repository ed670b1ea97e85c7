//! The HR table: 10,000 people as HR systems have them, the same at every run.
//!
//! One in three names is written in NFD (a letter and its accent apart), addresses are
//! padded and in mixed case, roles are a list in a text, some have long notes that
//! PostgreSQL keeps out of line (TOAST), some fields are null, one in twelve is a
//! contractor, and two people have the same address.

use std::fmt::Write as _;

use rollcall_testbed::Postgres;

use crate::Result;

/// The table, and a type of its own as an application would have it.
pub(crate) const TABLE: &str = "
CREATE SCHEMA hr;
CREATE TABLE hr.employees (
  id              bigint PRIMARY KEY,
  first_name      text NOT NULL,
  last_name       text,
  email           text,
  phone           text,
  job_title       text,
  department      text,
  employment_type text NOT NULL DEFAULT 'employee',
  roles           text,
  hired_on        date,
  salary          numeric(10,2),
  notes           text,
  updated_at      timestamptz NOT NULL DEFAULT now()
);";

/// What an operator runs once; `rollcall check --script` prints it.
pub(crate) const GRANTS: &str = "CREATE ROLE rollcall LOGIN REPLICATION;
GRANT CONNECT ON DATABASE hr TO rollcall;
GRANT USAGE ON SCHEMA hr TO rollcall;
GRANT SELECT ON hr.employees TO rollcall;
CREATE PUBLICATION rollcall FOR TABLE hr.employees
  WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);";

/// The two people who share an address.
pub(crate) const TWINS: (u64, u64) = (2_718, 3_141);
/// One with a note that lies out of line.
pub(crate) const WITH_NOTE: u64 = 40;
/// A contractor.
pub(crate) const CONTRACTOR: u64 = 24;

const FIRST: &[&str] = &[
    "Ana",
    "José",
    "Zoë",
    "Søren",
    "Łukasz",
    "Chloé",
    "Björn",
    "Inês",
    "Mária",
    "Nguyễn",
    "Åsa",
    "Renée",
    "Jürgen",
    "Ayşe",
    "Siobhán",
    "Anna Maria",
    "Jean-Luc",
    "Olena",
    "Wei",
    "Priya",
    "Noël",
    "Dvořák",
    "Ragnhild",
    "Tomáš",
    "Fátima",
    "John",
    "Mary",
    "Øyvind",
    "Gülşen",
    "Raúl",
];
const LAST: &[&str] = &[
    "García",
    "Müller",
    "O'Brien",
    "Nuñez",
    "Kovács",
    "de la Cruz",
    "Żółkiewski",
    "Åkesson",
    "Brontë",
    "Smith-Jones",
    "Çelik",
    "Lindström",
    "van der Berg",
    "Dubois",
    "Ståhl",
    "Novák",
    "Nguyễn",
    "Sørensen",
    "Björk",
    "Peña",
    "Šimek",
    "Ferreira",
    "Öztürk",
    "Jensen",
    "Lefèvre",
    "Kaya",
    "Hôpital",
    "Castañeda",
    "Weiß",
    "Iwasaki",
];
const DEPARTMENTS: &[&str] = &[
    "Engineering",
    "Finance",
    "People & Culture",
    "Sales",
    "Vertrieb Süd",
];
const TITLES: &[&str] = &[
    "Engineer",
    "Senior Engineer",
    "Accountant",
    "Account Manager",
    "Rechtsanwältin",
    "Team Lead",
];
const ROLES: &[&str] = &[
    "staff",
    "developer",
    "on-call",
    "approver",
    "auditor",
    "fire warden",
];

/// Numbers that look random and are the same at every run (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        let n = self.below(list.len() as u64);
        list.get(n as usize).copied().unwrap_or("")
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A text as it was typed: NFD on some keyboards.
fn typed(text: &str, dice: &mut Dice) -> String {
    if dice.below(3) == 0 {
        format!("normalize({}, NFD)", literal(text))
    } else {
        literal(text)
    }
}

fn address(id: u64, dice: &mut Dice) -> String {
    let plain = format!("employee.{id}@example.com");
    match dice.below(10) {
        0 => literal(&format!("  {plain} ")),
        1 => literal(&plain.to_uppercase()),
        2 => literal(&format!("Employee.{id}@Example.COM\t")),
        3 => "NULL".to_owned(),
        _ => literal(&plain),
    }
}

/// The values of one person.
pub(crate) fn person(id: u64, dice: &mut Dice) -> String {
    let first = dice.of(FIRST);
    let last = dice.of(LAST);
    let mut row = format!("({id}, {}, ", typed(first, dice));
    row += &match dice.below(50) {
        0 => "NULL".to_owned(),
        _ => typed(last, dice),
    };
    row += ", ";
    row += &match id {
        // The same address for whoever compares as people do.
        _ if id == TWINS.0 => literal("front.desk@example.com"),
        _ if id == TWINS.1 => literal(" Front.Desk@EXAMPLE.com"),
        _ => address(id, dice),
    };
    let phone = match dice.below(4) {
        0 => "NULL".to_owned(),
        _ => literal(&format!("+49 30 {:07}", dice.below(10_000_000))),
    };
    let title = match dice.below(9) {
        0 => "NULL".to_owned(),
        _ => literal(dice.of(TITLES)),
    };
    let department = match dice.below(30) {
        0 => "NULL".to_owned(),
        _ => typed(dice.of(DEPARTMENTS), dice),
    };
    let kind = if id.is_multiple_of(12) {
        "contractor"
    } else {
        "employee"
    };
    let roles = match dice.below(8) {
        0 => "NULL".to_owned(),
        n => {
            let mut list = String::new();
            for i in 0..n % 4 + 1 {
                let gap = if i == 0 { "" } else { ", " };
                list = format!("{list}{gap}{}", dice.of(ROLES));
            }
            literal(&list)
        }
    };
    let note = if id.is_multiple_of(20) {
        // Without repeats, so that it is not compressed away: it goes out of line.
        format!(
            "(SELECT string_agg(md5({id}::text || n::text), ' ') FROM generate_series(1, 100) n)"
        )
    } else {
        "NULL".to_owned()
    };
    let _ = write!(
        row,
        ", {phone}, {title}, {department}, '{kind}', {roles}, date '2001-01-01' + {}, {}.50, {note})",
        dice.below(9_000),
        30_000 + dice.below(90_000),
    );
    row
}

const COLUMNS: &str = "INSERT INTO hr.employees (id, first_name, last_name, email, phone, job_title, \
     department, employment_type, roles, hired_on, salary, notes) VALUES ";

/// The statement that hires one person.
pub(crate) fn insert(id: u64, dice: &mut Dice) -> String {
    format!("{COLUMNS}{};\n", person(id, dice))
}

/// Statements for people 1 to `n`.
pub(crate) fn insert_all(n: u64) -> String {
    let mut dice = Dice(1);
    let mut sql = String::new();
    let ids: Vec<u64> = (1..=n).collect();
    for some in ids.chunks(1_000) {
        let rows: Vec<String> = some.iter().map(|id| person(*id, &mut dice)).collect();
        let _ = writeln!(sql, "{COLUMNS}{};", rows.join(",\n"));
    }
    sql + "ANALYZE hr.employees;"
}

/// One line about what is in the table, counted by the database.
pub(crate) fn summary(database: &Postgres) -> Result<String> {
    Ok(database.psql(
        "hr",
        "SELECT format('%s people: %s names in NFD, %s padded or upper-case addresses, \
           %s nulls, %s contractors, %s long notes, 2 with the same address',
         count(*), count(*) FILTER (WHERE first_name IS NOT NFC NORMALIZED OR last_name IS NOT NFC NORMALIZED),
         count(*) FILTER (WHERE email <> lower(btrim(email, E' \\t'))),
         sum(num_nulls(last_name, email, phone, job_title, department, roles)),
         count(*) FILTER (WHERE employment_type = 'contractor'), count(notes)) FROM hr.employees",
    )?)
}
