//! The HR table: 10,000 people as HR systems have them, the same at every run.
//!
//! One in three names is written in NFD (a letter and its accent apart), addresses are
//! padded and in mixed case, roles are a list in a text, some have long notes (PostgreSQL
//! keeps them out of line), some fields are null, one in twelve is a contractor, and two
//! people have the same address.

use std::fmt::Write as _;

use jiff::Span;
use jiff::civil::{Date, date};
use serde_json::Value;
use unicode_normalization::{UnicodeNormalization as _, is_nfc};

/// Nobody was hired before.
const HIRED_FROM: Date = date(2001, 1, 1);

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
        literal(&text.nfd().collect::<String>())
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

/// A long text without repeats, so that it is not compressed away: PostgreSQL keeps it out
/// of line.
pub(crate) fn note(dice: &mut Dice) -> String {
    let words: Vec<String> = (0..200)
        .map(|_| format!("{:016x}", dice.below(u64::MAX)))
        .collect();
    words.join(" ")
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
        literal(&note(dice))
    } else {
        "NULL".to_owned()
    };
    let _ = write!(
        row,
        ", {phone}, {title}, {department}, '{kind}', {roles}, '{}', {}.50, {note})",
        HIRED_FROM.saturating_add(Span::new().days(dice.below(9_000) as i64)),
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
    sql
}

/// One line about what is in the table.
pub(crate) fn summary(rows: &[Value]) -> String {
    let count = |is: &dyn Fn(&Value) -> bool| rows.iter().filter(|row| is(row)).count();
    let texts = |names: &'static [&'static str]| {
        move |row: &Value, is: &dyn Fn(&str) -> bool| {
            names.iter().any(|name| row[*name].as_str().is_some_and(is))
        }
    };
    let (names, email) = (texts(&["first_name", "last_name"]), texts(&["email"]));
    let nulls: usize = [
        "last_name",
        "email",
        "phone",
        "job_title",
        "department",
        "roles",
    ]
    .iter()
    .map(|name| count(&|row| row[*name].is_null()))
    .sum();
    format!(
        "{} people: {} names in NFD, {} padded or upper-case addresses, {nulls} nulls, \
         {} contractors, {} long notes, 2 with the same address",
        rows.len(),
        count(&|row| names(row, &|name| !is_nfc(name))),
        count(&|row| email(row, &|email| email != email.trim().to_lowercase())),
        count(&|row| row["employment_type"] == "contractor"),
        count(&|row| !row["notes"].is_null()),
    )
}
