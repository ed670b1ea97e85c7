//! Related tables: what a change of one of their rows means for people.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rollcall_testbed::wait_for;
use serde_json::{Value, json};

use crate::company::{Dice, hire_with, seed};
use crate::fold::{Events, People};
use crate::sources::{SourceKind, every_source};
use crate::world::{Daemon, Options, PATIENCE, World};

every_source!(
    a_renamed_department_reaches_all_its_people_by_the_log_and_by_a_scan,
    roles_come_and_go_with_their_assignments_and_a_source_takes_away_only_those_that_it_gave,
    a_department_decides_the_scope_of_its_people,
    a_change_of_a_department_is_told_to_everybody_over_a_kill,
    an_emptied_related_table_takes_nothing_away_before_somebody_has_approved_it,
    previews_tests_and_plans_see_joined_rows_and_what_follows_is_what_they_said,
    rows_of_related_tables_that_drift_are_named_and_mended,
    what_the_next_poll_brings_of_a_related_table_is_no_drift,
    any_history_of_related_tables_ends_in_the_directory_that_a_load_makes,
);

/// Departments by their code, and roles by person.
const TABLES: &str = "
CREATE TABLE departments (code varchar(20) PRIMARY KEY, name varchar(100), budget int);
CREATE TABLE assignments (person bigint NOT NULL, role varchar(40) NOT NULL, PRIMARY KEY (person, role));
INSERT INTO departments VALUES ('eng', 'Engineering', 1), ('ops', 'Operations', 2);
";

const MAP: &str = r#"
employeeNumber = "id"
displayName = "first_name"
email = "email"
department = "dept.name"
userType = { expr = "dept.name == null ? 'nobody' : dept.name == 'Engineering' ? 'developer' : 'user'" }
roles = "grants.role"
"#;

/// A world with both tables, in which `people.department` is a code.
fn world(kind: &SourceKind, limit: &str) -> World {
    let world = World::new(kind, &Options::default());
    world.db.sql(TABLES);
    for table in ["departments", "assignments"] {
        world.db.relate(table);
    }
    configure(&world, limit, "");
    world
}

fn configure(world: &World, limit: &str, rest: &str) {
    let folder = world.store();
    let folder = folder.parent().unwrap().display().to_string();
    let (db, table) = (&world.db, |name| world.db.table(name));
    let text = format!(
        "organization = \"acme\"\n[store]\npath = \"{folder}/store\"\n\
         [source.hr]\n{connection}\ntable = \"{people}\"\n\
         scope = \"kind != 'contractor' && dept.name != 'Closed'\"\nretry_max = \"1s\"\n\
         limit = {limit}\nbatch = {{ page_rows = 500 }}\n{rest}\n\
         [source.hr.related.dept]\ntable = \"{departments}\"\non = {{ code = \"department\" }}\n\
         [source.hr.related.grants]\ntable = \"{assignments}\"\non = {{ person = \"id\" }}\n\
         many = true\n[source.hr.map]{MAP}\n\
         [sink.file]\ntype = \"ndjson\"\npath = \"{folder}/events.ndjson\"\nrotate_size = \"1GiB\"\n",
        connection = db.connection(),
        people = table("people"),
        departments = table("departments"),
        assignments = table("assignments"),
    );
    world.write_config(&text);
}

const NO_LIMIT: &str = "{ action = \"off\" }";

fn person(id: u64, department: &str) -> String {
    hire_with(id, &[("department", department)])
}

/// Waits until the people of the events are as they are to be.
fn until(daemon: &Daemon<'_>, world: &World, what: &str, is_so: impl Fn(&People) -> bool) {
    let found = wait_for(PATIENCE, what, || {
        let people = world.events(1).fold();
        match is_so(&people) {
            true => Ok(()),
            false => Err(format!(
                "{:?}\n{}",
                people.iter().take(3).collect::<Vec<_>>(),
                daemon.process.log()
            )),
        }
    });
    found.unwrap();
}

/// Waits until so many people are in a department.
fn until_in(daemon: &Daemon<'_>, world: &World, department: &str, n: usize) {
    until(
        daemon,
        world,
        &format!("{n} people in {department}"),
        |people| {
            let of = people.values().filter(|p| p["department"] == department);
            of.count() == n
        },
    );
}

fn a_renamed_department_reaches_all_its_people_by_the_log_and_by_a_scan(kind: &SourceKind) {
    let world = world(kind, NO_LIMIT);
    let hired: String = (1..=40).map(|id| person(id, "eng")).collect();
    world
        .db
        .sql(&format!("BEGIN;{hired}{}COMMIT;", person(41, "ops")));
    let daemon = world.streaming();
    until_in(&daemon, &world, "Engineering", 40);
    assert_eq!(world.events(0).fold()["1"]["userType"], "developer");

    world
        .db
        .sql("UPDATE departments SET name = 'Platform' WHERE code = 'eng'");
    until_in(&daemon, &world, "Platform", 40);
    let people = world.events(0).fold();
    assert_eq!(people["7"]["userType"], "user");
    assert_eq!(people["41"]["department"], "Operations");

    // What no rule uses is told to nobody, and who comes behind a change has it.
    let before = world.events(0).by_sequence.len();
    world.db.sql("UPDATE departments SET budget = 7");
    world.db.sql(&format!(
        "BEGIN;INSERT INTO departments VALUES ('law', 'Legal', 1);{}COMMIT;",
        person(42, "law")
    ));
    until_in(&daemon, &world, "Legal", 1);
    assert_eq!(world.events(0).by_sequence.len(), before + 1);

    // Who moves, and whose department is gone.
    world
        .db
        .sql("UPDATE people SET department = 'law' WHERE id = 1");
    until_in(&daemon, &world, "Legal", 2);
    world.db.sql("DELETE FROM departments WHERE code = 'ops'");
    until(&daemon, &world, "a department to be gone", |people| {
        people["41"].get("department").is_none() && people["41"]["userType"] == "nobody"
    });
    world.assert_verified();
    daemon.stop();

    // What the log never had is found by reading everything.
    world
        .db
        .sql("UPDATE departments SET name = 'Core' WHERE code = 'eng'");
    world.db.lose_log();
    let daemon = world.streaming();
    until_in(&daemon, &world, "Core", 39);
    world.assert_verified();
}

fn roles_come_and_go_with_their_assignments_and_a_source_takes_away_only_those_that_it_gave(
    kind: &SourceKind,
) {
    let world = world(kind, NO_LIMIT);
    world.db.sql(&format!(
        "{}{}INSERT INTO assignments VALUES (1, 'reader'), (1, 'admin');",
        person(1, "eng"),
        person(2, "eng"),
    ));
    let daemon = world.streaming();
    let has = |id: &'static str, roles: Value| {
        until(
            &daemon,
            &world,
            &format!("{id} to have {roles}"),
            |people| {
                people
                    .get(id)
                    .is_some_and(|p| p.get("roles").cloned().unwrap_or(json!([])) == roles)
            },
        );
    };
    has("1", json!(["admin", "reader"]));
    has("2", json!([]));
    // Somebody gives a role here.
    let given = world.rollcall(&["users", "set", "hr:1", "roles=owner"]);
    assert!(
        given.status.success(),
        "{}",
        String::from_utf8_lossy(&given.stderr)
    );
    has("1", json!(["admin", "owner", "reader"]));
    world
        .db
        .sql("INSERT INTO assignments VALUES (2, 'writer'), (1, 'writer')");
    has("2", json!(["writer"]));
    has("1", json!(["admin", "owner", "reader", "writer"]));
    world.db.sql("DELETE FROM assignments WHERE person = 1");
    has("1", json!(["owner"]));
    world
        .db
        .sql("UPDATE assignments SET person = 1 WHERE person = 2");
    has("2", json!([]));
    has("1", json!(["owner", "writer"]));
    world.db.sql("UPDATE assignments SET role = 'editor'");
    has("1", json!(["editor", "owner"]));
    world.assert_verified();
}

fn a_department_decides_the_scope_of_its_people(kind: &SourceKind) {
    let world = world(kind, NO_LIMIT);
    let hired: String = (1..=10).map(|id| person(id, "eng")).collect();
    world.db.sql(&hired);
    world
        .db
        .sql("UPDATE departments SET name = 'Closed' WHERE code = 'ops'");
    world.db.sql(&person(11, "ops"));
    let daemon = world.streaming();
    until_in(&daemon, &world, "Engineering", 10);
    assert!(!world.events(0).fold().contains_key("11"));
    let first = world.events(0);
    let id = |events: &Events| {
        let of = events
            .in_order()
            .find(|e| e["data"]["user"]["employeeNumber"] == "5");
        of.unwrap()["data"]["user"]["id"].clone()
    };
    world
        .db
        .sql("UPDATE departments SET name = 'Closed' WHERE code = 'eng'");
    until(&daemon, &world, "everybody to leave", People::is_empty);
    world.db.sql("UPDATE departments SET name = 'Open'");
    until_in(&daemon, &world, "Open", 11);
    assert_eq!(id(&first), id(&world.events(0)), "they are the same users");
    world.assert_verified();
}

fn a_change_of_a_department_is_told_to_everybody_over_a_kill(kind: &SourceKind) {
    const PEOPLE: u64 = 9_000;
    let world = world(kind, NO_LIMIT);
    let numbers = world.db.numbers(1, PEOPLE);
    world.db.sql(&format!(
        "INSERT INTO people (id, first_name, email, department) \
         SELECT n, 'Ada', concat('p', n, '@example.com'), 'eng' FROM {numbers}"
    ));
    let daemon = world.streaming();
    until_in(&daemon, &world, "Engineering", PEOPLE as usize);
    daemon.stop();
    for name in ["One", "Two", "Three"] {
        let daemon = world.streaming();
        world.db.sql(&format!(
            "UPDATE departments SET name = '{name}' WHERE code = 'eng'"
        ));
        let begun = wait_for(PATIENCE, "the first to be told", || {
            let people = world.events(3).fold();
            let told = people.values().filter(|p| p["department"] == name).count();
            if told > 0 {
                Ok(told)
            } else {
                Err("nobody was".to_owned())
            }
        });
        println!("{} of {PEOPLE} were told before the kill", begun.unwrap());
        daemon.kill9();
    }
    let daemon = world.streaming();
    until_in(&daemon, &world, "Three", PEOPLE as usize);
    let events = world.events(3);
    assert!(events.ids.values().all(|n| *n <= 2), "nothing is told anew");
    world.assert_verified();
}

fn an_emptied_related_table_takes_nothing_away_before_somebody_has_approved_it(kind: &SourceKind) {
    let world = world(kind, "{ max_changes = 5, floor = 5 }");
    let hired: String = (1..=20).map(|id| person(id, "eng")).collect();
    let given: String = (1..=20)
        .map(|id| format!("INSERT INTO assignments VALUES ({id}, 'reader');"))
        .collect();
    world.db.sql(&format!("BEGIN;{hired}{given}COMMIT;"));
    let daemon = world.streaming();
    until_in(&daemon, &world, "Engineering", 20);
    // Few are taken away by the log as ever, and many wait.
    world.db.sql("DELETE FROM assignments WHERE person = 1");
    until(&daemon, &world, "one to lose a role", |p| {
        p["1"].get("roles").is_none()
    });
    world.db.sql("TRUNCATE TABLE assignments");
    let status = daemon.until("everybody to wait", |status| {
        status["sources"][0]["plan"]["records"] == 19
    });
    let readers = |people: &People| {
        people
            .values()
            .filter(|p| p["roles"] == json!(["reader"]))
            .count()
    };
    assert_eq!(readers(&world.events(0).fold()), 19);
    // What else happens to them goes on.
    world
        .db
        .sql("UPDATE departments SET name = 'Platform' WHERE code = 'eng'");
    until_in(&daemon, &world, "Platform", 1);
    let hash = daemon.status()["sources"][0]["plan"]["hash"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(status["sources"][0]["plan"]["hash"].is_string());
    let output = world.rollcall(&["plan", "approve", &hash]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    until(&daemon, &world, "roles to be gone", |people| {
        readers(people) == 0
    });
    until_in(&daemon, &world, "Platform", 20);
    world.assert_verified();
}

fn previews_tests_and_plans_see_joined_rows_and_what_follows_is_what_they_said(kind: &SourceKind) {
    let world = world(kind, NO_LIMIT);
    let hired: String = (1..=3).map(|id| person(id, "eng")).collect();
    let ops = person(4, "ops");
    let given = "INSERT INTO assignments VALUES (1, 'reader'), (1, 'writer');";
    world.db.sql(&format!("BEGIN;{hired}{ops}{given}COMMIT;"));

    let rows = world.json(&["preview", "hr", "--limit", "10"]);
    let shown = |record: usize, attribute: &str| {
        let mut fields = rows[record]["fields"].as_array().unwrap().iter();
        let field = fields.find(|f| f["attribute"] == attribute);
        field.unwrap()["value"].clone()
    };
    assert_eq!(shown(0, "department"), "Engineering", "{rows}");
    assert_eq!(shown(3, "userType"), "user", "{rows}");
    assert_eq!(shown(0, "roles"), "reader, writer", "{rows}");

    let fixture = world.store().with_file_name("tests.toml");
    let test = "[[test]]\nname = \"a developer\"\n\
        row = { id = 1, \"dept.name\" = \"Engineering\", \"grants.role\" = [\"b\", \"a\"] }\n\
        expect = { userType = \"developer\", roles = [\"a\", \"b\"] }\n";
    std::fs::write(&fixture, test).unwrap();
    let tested = world.rollcall(&["mapping", "test", fixture.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&tested.stdout).into_owned();
    assert!(tested.status.success(), "{said}");

    let daemon = world.streaming();
    until_in(&daemon, &world, "Engineering", 3);
    daemon.stop();
    world
        .db
        .sql("UPDATE departments SET name = 'Core' WHERE code = 'eng'");
    world
        .db
        .sql("DELETE FROM assignments WHERE role = 'writer'");
    world.db.lose_log();
    let plan = world.store().with_file_name("plan.json");
    let plan = plan.to_str().unwrap();
    let planned = world.rollcall(&["plan", "hr", "--out", plan]);
    let why = String::from_utf8_lossy(&planned.stderr).into_owned();
    assert!(planned.status.success(), "{why}");
    let text = std::fs::read_to_string(plan).unwrap();
    let said: Value = serde_json::from_str(&text).unwrap();
    let mut fields = Vec::new();
    for change in said["changes"].as_array().unwrap() {
        for field in change["fields"].as_array().unwrap() {
            let of = |name: &str| field[name].as_str().unwrap_or_default().to_owned();
            let record = change["records"][0].as_str().unwrap().to_owned();
            fields.push((record, of("attribute"), of("before"), of("after")));
        }
    }
    fields.sort();
    let mut expected = Vec::new();
    for id in 1..=3 {
        let changed = |attribute: &str, before: &str, after: &str| {
            let text = [attribute, before, after].map(str::to_owned);
            let [attribute, before, after] = text;
            (id.to_string(), attribute, before, after)
        };
        expected.push(changed("department", "Engineering", "Core"));
        if id == 1 {
            expected.push(changed("roles", "reader, writer", "reader"));
        }
        expected.push(changed("userType", "developer", "user"));
    }
    assert_eq!(fields, expected, "{text}");

    let daemon = world.streaming();
    until_in(&daemon, &world, "Core", 3);
    until(&daemon, &world, "roles to follow", |people| {
        people["1"]["roles"] == json!(["reader"]) && people["2"]["userType"] == "user"
    });
    world.assert_verified();
}

/// What a proof has found to differ: names, and in which way.
fn drifted(status: &Value) -> Vec<(String, String)> {
    let all = status["sources"][0]["proof"]["drifted"].as_array();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = all.into_iter().flatten();
    all.map(|d| (text(&d["record"]), text(&d["what"])))
        .collect()
}

fn rows_of_related_tables_that_drift_are_named_and_mended(kind: &SourceKind) {
    let world = world(kind, NO_LIMIT);
    configure(&world, NO_LIMIT, "proof = { period = \"2s\" }");
    let hired: String = (1..=5).map(|id| person(id, "eng")).collect();
    world.db.sql(&hired);
    let daemon = world.streaming();
    until_in(&daemon, &world, "Engineering", 5);
    let hide = "CASE WHEN code = 'eng' THEN 'Hidden' ELSE name END";
    world.db.rewrite_unseen("departments", "name", hide);
    let named = [("dept: eng".to_owned(), "a related row differs".to_owned())];
    daemon.until("the department to be found", |s| drifted(s) == named);
    let said = world.rollcall(&["status"]).stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("dept: eng: a related row differs"), "{said}");
    assert!(!said.contains("Hidden"), "no value is told: {said}");
    daemon.stop();

    configure(
        &world,
        NO_LIMIT,
        "proof = { period = \"2s\", on_drift = \"repair\" }",
    );
    let daemon = world.streaming();
    until_in(&daemon, &world, "Hidden", 5);
    daemon.until("nothing to differ", |s| drifted(s).is_empty());
    world.assert_verified();
}

fn what_the_next_poll_brings_of_a_related_table_is_no_drift(kind: &SourceKind) {
    let world = world(kind, NO_LIMIT);
    configure(
        &world,
        NO_LIMIT,
        "proof = { period = \"1s\" }\npoll = { mode = \"always\", every = \"3s\" }",
    );
    let hired: String = (1..=5).map(|id| person(id, "eng")).collect();
    world.db.sql(&hired);
    let daemon = world.start();
    until_in(&daemon, &world, "Engineering", 5);
    let began = Instant::now();
    let mut n = 0;
    while began.elapsed() < Duration::from_secs(10) {
        n += 1;
        world.db.sql(&format!(
            "UPDATE departments SET name = 'N{n}' WHERE code = 'eng'"
        ));
        assert!(drifted(&daemon.status()).is_empty(), "{}", daemon.status());
        sleep(Duration::from_millis(300));
    }
    until_in(&daemon, &world, &format!("N{n}"), 5);
    let proofs = world.json(&["runs", "--kind", "proof"]);
    let mut proofs = proofs.as_array().unwrap().iter();
    assert!(proofs.all(|run| run["outcome"] != "drifted"));
}

/// Random changes of all three tables.
struct History {
    dice: Dice,
    next: u64,
}

impl History {
    fn code(&mut self) -> &'static str {
        ["eng", "ops", "law", "x", "nil"][self.dice.below(5) as usize]
    }

    fn change(&mut self) -> String {
        let code = self.code();
        let id = 1 + self.dice.below(30);
        let role = ["reader", "writer", "admin"][self.dice.below(3) as usize];
        match self.dice.below(12) {
            0 => format!(
                "UPDATE departments SET name = 'D{}' WHERE code = '{code}';",
                self.dice.below(9)
            ),
            1 => format!("UPDATE departments SET name = NULL WHERE code = '{code}';"),
            2 => format!("UPDATE departments SET name = 'Closed' WHERE code = '{code}';"),
            3 => format!("DELETE FROM departments WHERE code = '{code}';"),
            4 => format!(
                "DELETE FROM departments WHERE code = '{code}';\
                 INSERT INTO departments VALUES ('{code}', 'N{}', 3);",
                self.dice.below(9)
            ),
            5 | 6 => format!("UPDATE people SET department = '{code}' WHERE id = {id};"),
            7 => format!("DELETE FROM people WHERE id = {id};"),
            8 => {
                self.next += 1;
                person(self.next, code)
            }
            9 => format!("DELETE FROM assignments WHERE person = {id};"),
            10 => format!(
                "DELETE FROM assignments WHERE person = {id} AND role = '{role}';\
                 INSERT INTO assignments VALUES ({id}, '{role}');"
            ),
            _ => format!(
                "DELETE FROM departments WHERE code = 'x';\
                 UPDATE departments SET code = 'x' WHERE code = '{code}';"
            ),
        }
    }
}

fn any_history_of_related_tables_ends_in_the_directory_that_a_load_makes(kind: &SourceKind) {
    let world = world(kind, NO_LIMIT);
    let mut history = History {
        dice: Dice(seed(11)),
        next: 30,
    };
    let hired: String = (1..=30).map(|id| person(id, history.code())).collect();
    world.db.sql(&format!("BEGIN;{hired}COMMIT;"));
    let mut kills = 0;
    for _ in 0..4 {
        let daemon = world.streaming();
        for _ in 0..15 {
            let changes: String = (0..=history.dice.below(3))
                .map(|_| history.change())
                .collect();
            world.db.sql(&format!("BEGIN;{changes}COMMIT;"));
        }
        match history.dice.below(2) {
            0 => daemon.stop(),
            _ => {
                daemon.kill9();
                kills += 1;
            }
        }
    }
    let daemon = world.streaming();
    let expected = expected(&world);
    until(
        &daemon,
        &world,
        "the directory to be what the tables say",
        |people| brief(people) == expected,
    );
    assert!(world.events(kills).by_sequence.len() > 30);
    world.assert_verified();
}

/// What rules say of people: department, kind and roles, by number.
type Brief = BTreeMap<String, (Option<String>, String, Vec<String>)>;

fn brief(people: &People) -> Brief {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let of = people.iter().map(|(number, person)| {
        let roles = person["roles"].as_array().into_iter().flatten();
        let roles = roles.filter_map(text).collect();
        let kind = text(&person["userType"]).unwrap_or_default();
        (number.clone(), (text(&person["department"]), kind, roles))
    });
    of.collect()
}

/// The join, once more by the server itself.
fn expected(world: &World) -> Brief {
    let lines = |sql: &str| -> Vec<Vec<String>> {
        let text = world.db.sql(sql);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let cells = |line: &str| line.split('~').map(|cell| cell.trim().to_owned()).collect();
        lines.map(cells).collect()
    };
    let mut roles: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in lines("SELECT concat(person, '~', role) FROM assignments ORDER BY person, role") {
        roles
            .entry(row[0].clone())
            .or_default()
            .push(row[1].clone());
    }
    let people = lines(
        "SELECT concat(p.id, '~', coalesce(d.name, '-')) FROM people p \
         LEFT JOIN departments d ON d.code = p.department",
    );
    let people = people.into_iter().filter(|row| row[1] != "Closed");
    let of = people.map(|row| {
        let name = Some(row[1].clone()).filter(|name| name != "-");
        let kind = match name.as_deref() {
            None => "nobody",
            Some("Engineering") => "developer",
            Some(_) => "user",
        };
        let roles = roles.get(&row[0]).cloned().unwrap_or_default();
        (row[0].clone(), (name, kind.to_owned(), roles))
    });
    of.collect()
}
