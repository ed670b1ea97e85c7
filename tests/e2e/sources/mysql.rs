//! MySQL and MariaDB.

use std::sync::Arc;

use rollcall_testbed::{MySql, MySqlVersion};
use serde_json::Value;

use super::{Backup, Replica, Room, Server, Setup, SourceKind};
use crate::world::{PATIENCE, World};

/// MySQL 9.
pub(crate) const MYSQL: SourceKind = SourceKind {
    name: "mysql",
    start: |setup| start(MySqlVersion::MySql9, setup),
    keeps_log_for_readers: false,
};

/// MariaDB 10.11.
pub(crate) const MARIADB: SourceKind = SourceKind {
    name: "mariadb",
    start: |setup| start(MySqlVersion::MariaDb10, setup),
    keeps_log_for_readers: false,
};

/// The tables, and digits to count with. Whatever two people may share compares as bytes,
/// as the other kinds of servers compare it.
const TABLES: &str = "
CREATE TABLE people (
  id         bigint PRIMARY KEY,
  first_name varchar(200),
  last_name  varchar(200),
  email      varchar(200),
  job_title  text,
  department text,
  kind       varchar(20) NOT NULL DEFAULT 'employee',
  roles      text,
  level      text,
  salary     text,
  note       mediumtext
);
CREATE TABLE badges (badge varchar(50) PRIMARY KEY, mail text, title text, room text);
CREATE TABLE digits (d int PRIMARY KEY);
INSERT INTO digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9);
";

/// Makes a database with the tables.
fn make(server: &MySql, database: &str) {
    let create = format!(
        "CREATE DATABASE {database} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;\nUSE {database};\n{TABLES}"
    );
    MySql::sql(server, &create).unwrap();
}

fn start(version: MySqlVersion, setup: &Setup<'_>) -> Arc<dyn Server> {
    let mut builder = MySql::builder().version(version);
    if let Some(tls) = setup.tls {
        builder = builder.tls_with(tls).unwrap();
    }
    let server = builder.start().unwrap();
    make(&server, "hr");
    server
        .create_user("rollcall", setup.password.unwrap_or(""))
        .unwrap();
    if setup.tls.is_some() {
        server.admin("ALTER USER rollcall REQUIRE X509");
    }
    server.may_read_people(true);
    server.admin("GRANT SELECT ON hr.badges TO rollcall");
    server.may_read_log(true);
    Arc::new(server)
}

/// As the configuration and URLs call it.
fn name(server: &MySql) -> &'static str {
    match server.version().is_mariadb() {
        true => "mariadb",
        false => "mysql",
    }
}

/// What it takes to read the log. MariaDB calls the second right by its own name.
fn log_rights(version: MySqlVersion) -> &'static str {
    match version.is_mariadb() {
        true => "REPLICATION SLAVE, BINLOG MONITOR",
        false => "REPLICATION SLAVE, REPLICATION CLIENT",
    }
}

/// Everybody in a database.
fn people(server: &MySql, database: &str) -> Vec<Value> {
    const COLUMNS: [&str; 11] = [
        "id",
        "first_name",
        "last_name",
        "email",
        "job_title",
        "department",
        "kind",
        "roles",
        "level",
        "salary",
        "note",
    ];
    let pairs = COLUMNS.map(|column| format!("'{column}', {column}"));
    let pairs = pairs.join(", ");
    let sql = format!("SELECT JSON_OBJECT({pairs}) FROM {database}.people");
    let rows = server.admin(&sql);
    let rows = rows.lines().map(|line| serde_json::from_str(line).unwrap());
    rows.collect()
}

/// A database with an account of its own.
struct Database {
    server: Arc<MySql>,
    name: String,
    account: String,
    number: u64,
}

impl Room for Database {
    fn connection(&self) -> String {
        format!(
            "type = \"{}\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"{}\"\nserver_id = {}",
            name(&self.server),
            self.server.port(),
            self.account,
            1_000 + self.number
        )
    }

    fn table(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }

    fn sql(&self, sql: &str) -> String {
        self.server.admin(&format!("USE {};\n{sql}", self.name))
    }

    fn people(&self) -> Vec<Value> {
        people(&self.server, &self.name)
    }

    fn may_read_log(&self, may: bool) {
        may_read_log(&self.server, &self.account, may);
    }

    fn remove(&self) {
        let (name, account) = (&self.name, &self.account);
        let drop = format!("DROP DATABASE {name};\nDROP USER {account}");
        self.server.admin(&drop);
    }
}

fn may_read_log(server: &MySql, account: &str, may: bool) {
    let rights = log_rights(server.version());
    server.admin(&match may {
        true => format!("GRANT {rights} ON *.* TO {account}"),
        false => format!("REVOKE {rights} ON *.* FROM {account}"),
    });
}

impl Server for MySql {
    fn connection(&self) -> String {
        format!(
            "type = \"{}\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"rollcall\"",
            name(self),
            self.port()
        )
    }

    fn url(&self) -> (String, &'static str) {
        let url = format!("{}://rollcall@127.0.0.1:{}/hr", name(self), self.port());
        (url, "MYSQL_PWD")
    }

    fn second_reader(&self) -> &'static str {
        "server_id = 4711"
    }

    fn table(&self, name: &str) -> String {
        format!("hr.{name}")
    }

    fn sql(&self, sql: &str) -> String {
        self.admin(&format!("USE hr;\n{sql}"))
    }

    fn admin(&self, sql: &str) -> String {
        MySql::sql(self, sql).unwrap()
    }

    fn people(&self) -> Vec<Value> {
        people(self, "hr")
    }

    fn numbers(&self, from: u64, to: u64) -> String {
        format!(
            "(SELECT {from} + a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d + 100000 * g.d AS n
              FROM digits a JOIN digits b JOIN digits c JOIN digits e JOIN digits f JOIN digits g
              HAVING n <= {to}) counted"
        )
    }

    fn relate(&self, table: &str) {
        self.admin(&format!("GRANT SELECT ON hr.{table} TO rollcall"));
    }

    fn acknowledged(&self) -> Option<u64> {
        None
    }

    fn table_anew_without(&self, id: u64) -> String {
        format!(
            "CREATE TABLE newer LIKE people;
             INSERT INTO newer SELECT * FROM people WHERE id <> {id};
             DROP TABLE people;
             RENAME TABLE newer TO people;"
        )
    }

    fn rewrite_unseen(&self, table: &str, column: &str, value: &str) {
        let sql = format!("SET sql_log_bin = 0; UPDATE {table} SET {column} = {value};");
        Server::sql(self, &sql);
    }

    fn behind_the_log(&self, promoted: u64, removed: u64) {
        let sql = format!(
            "SET sql_log_bin = 0;
             UPDATE people SET job_title = 'Hidden' WHERE id = {promoted};
             DELETE FROM people WHERE id = {removed};"
        );
        Server::sql(self, &sql);
    }

    fn may_read_people(&self, may: bool) {
        self.admin(match may {
            true => "GRANT SELECT ON hr.people TO rollcall",
            false => "REVOKE SELECT ON hr.people FROM rollcall",
        });
    }

    fn may_read_log(&self, may: bool) {
        may_read_log(self, "rollcall", may);
    }

    fn write_log(&self, does: bool) {
        let line = if does {
            "log_bin = binlog\n"
        } else {
            "skip_log_bin\n"
        };
        self.append_conf(line).unwrap();
        self.restart().unwrap();
    }

    fn lose_log(&self) {
        self.purge_binlogs().unwrap();
    }

    fn stop(&self) {
        MySql::stop(self).unwrap();
    }

    fn kill9(&self) {
        MySql::kill9(self);
    }

    fn start_again(&self) {
        MySql::start_again(self).unwrap();
    }

    fn back_up(&self) -> Backup {
        Backup::MySql(self.copy_data_dir().unwrap())
    }

    fn restore(&self, backup: &Backup) {
        match backup {
            Backup::MySql(copy) => self.restore_from(copy).unwrap(),
            Backup::Postgres(_) => panic!("it is the copy of another kind of server"),
        }
    }

    fn replica(self: Arc<Self>) -> Box<dyn Replica> {
        let replica = Arc::new(MySql::replica(&self).unwrap());
        Box::new(Follower {
            primary: self,
            replica,
        })
    }

    fn room(self: Arc<Self>, number: u64) -> Box<dyn Room> {
        let (name, account) = (format!("hr_{number}"), format!("rollcall_{number}"));
        make(&self, &name);
        self.create_user(&account, "").unwrap();
        self.admin(&format!("GRANT SELECT ON {name}.people TO {account}"));
        may_read_log(&self, &account, true);
        Box::new(Database {
            server: self,
            name,
            account,
            number,
        })
    }
}

struct Follower {
    primary: Arc<MySql>,
    replica: Arc<MySql>,
}

impl Replica for Follower {
    fn server(&self) -> Arc<dyn Server> {
        Arc::clone(&self.replica) as _
    }

    fn until_ready(&self, _world: &World) {
        self.catch_up();
    }

    fn catch_up(&self) {
        self.replica
            .wait_for_primary(&self.primary, PATIENCE)
            .unwrap();
    }

    fn cut_off(&self) {
        self.replica
            .admin(match self.replica.version().is_mariadb() {
                true => "STOP SLAVE",
                false => "STOP REPLICA",
            });
    }

    fn promote(&self) {
        self.replica.promote().unwrap();
    }
}
