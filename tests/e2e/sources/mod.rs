//! Kinds of sources: what a test needs of a server, whatever speaks behind it.
//!
//! A promise that is not about one kind of server knows nothing else than this. Another
//! kind is another file here, a constant and a line in [`every_source`].

mod mysql;
mod postgres;

use std::sync::Arc;

use rollcall_testbed::{DataCopy, MySqlCopy, Tls};
use serde_json::Value;

use crate::world::World;

/// A kind of source.
pub(crate) struct SourceKind {
    /// Its name, for what tests share.
    pub(crate) name: &'static str,
    /// Starts a server with the empty table of people, ready to be followed.
    pub(crate) start: fn(&Setup<'_>) -> Arc<dyn Server>,
    /// Whether the server keeps its log for a reader until that has acknowledged it.
    pub(crate) keeps_log_for_readers: bool,
}

/// How a server differs from the usual one.
#[derive(Clone, Copy, Default)]
pub(crate) struct Setup<'a> {
    /// The daemon's account has this password.
    pub(crate) password: Option<&'a str>,
    /// The server has this certificate, and takes the daemon only with a client
    /// certificate of the same authority.
    pub(crate) tls: Option<&'a Tls>,
    /// It can be followed by a replica that takes its place.
    pub(crate) replicated: bool,
}

/// A running server with the table `people` and the smaller table `badges`.
pub(crate) trait Server: Send + Sync {
    /// The lines of `[source.<name>]` that say where it is, without the table.
    fn connection(&self) -> String;
    /// The address for `rollcall discover`, and the variable of the password.
    fn url(&self) -> (String, &'static str);
    /// A line of `[source.<name>]` for a second daemon on the same server.
    fn second_reader(&self) -> &'static str;
    /// The table's name in the configuration.
    fn table(&self, name: &str) -> String;
    /// Runs the application's SQL, statement by statement.
    fn sql(&self, sql: &str) -> String;
    /// Runs an administrator's SQL.
    fn admin(&self, sql: &str) -> String {
        self.sql(sql)
    }
    /// `SELECT *` of the table of people as JSON objects.
    fn people(&self) -> Vec<Value>;
    /// What stands behind `FROM` for the numbers of a range, both included, as `n`.
    fn numbers(&self, from: u64, to: u64) -> String;
    /// Lets the daemon read and follow a further table that the application has made.
    fn relate(&self, table: &str);
    /// How far the server knows that the daemon is, where it keeps count.
    fn acknowledged(&self) -> Option<u64>;
    /// Statements that make the table anew, with everybody but one.
    fn table_anew_without(&self, id: u64) -> String;
    /// Gives each row of a table another value in a column, without a word in the log.
    fn rewrite_unseen(&self, table: &str, column: &str, value: &str);
    /// Gives one person another title, and removes another one, without a word in the log.
    fn behind_the_log(&self, promoted: u64, removed: u64);
    /// Takes away, then gives back, the right to read the table of people.
    fn may_read_people(&self, may: bool);
    /// Takes away, then gives back, the right to read the log.
    fn may_read_log(&self, may: bool);
    /// Restarts the server, so that it writes a log that can be followed, or none.
    fn write_log(&self, does: bool);
    /// Removes the log behind the stopped daemon's position, as an expiry or an
    /// administrator does.
    fn lose_log(&self);
    /// Ends the server in order.
    fn stop(&self);
    /// Kills it.
    fn kill9(&self);
    /// Starts it again.
    fn start_again(&self);
    /// A cold copy of the whole server.
    fn back_up(&self) -> Backup;
    /// Puts a copy in place of the server.
    fn restore(&self, backup: &Backup);
    /// A replica of it.
    fn replica(self: Arc<Self>) -> Box<dyn Replica>;
    /// A place of its own on this server, for one of several daemons.
    fn room(self: Arc<Self>, number: u64) -> Box<dyn Room>;
}

/// A database of its own on a server that several tests share, with an empty table of people
/// and an account that no other room has.
pub(crate) trait Room: Send + Sync {
    /// As [`Server::connection`].
    fn connection(&self) -> String;
    /// As [`Server::table`].
    fn table(&self, name: &str) -> String;
    /// As [`Server::sql`].
    fn sql(&self, sql: &str) -> String;
    /// As [`Server::people`].
    fn people(&self) -> Vec<Value>;
    /// As [`Server::may_read_log`], for this room's account alone.
    fn may_read_log(&self, may: bool);
    /// Removes it from the server, when no daemon uses it any more.
    fn remove(&self);
}

/// A cold copy of a server.
pub(crate) enum Backup {
    Postgres(DataCopy),
    MySql(MySqlCopy),
}

/// A replica that may take its primary's place.
pub(crate) trait Replica {
    /// The server that it is.
    fn server(&self) -> Arc<dyn Server>;
    /// Waits until a daemon that follows the primary could go on there.
    fn until_ready(&self, world: &World);
    /// Waits until it has all that the primary has.
    fn catch_up(&self);
    /// Cuts it off from its primary.
    fn cut_off(&self);
    /// Makes it a primary.
    fn promote(&self);
}

pub(crate) use mysql::{MARIADB, MYSQL};
pub(crate) use postgres::{POSTGRES, prepared, prepared_in};

/// Makes one `#[test]` of each function for each kind of source.
macro_rules! every_source {
    ($($promise:ident),+ $(,)?) => {
        $crate::sources::every_source!(@ postgres POSTGRES $($promise)+);
        $crate::sources::every_source!(@ mysql MYSQL $($promise)+);
        $crate::sources::every_source!(@ mariadb MARIADB $($promise)+);
    };
    (@ $module:ident $kind:ident $($promise:ident)+) => {
        mod $module {
            $(
                #[test]
                fn $promise() {
                    super::$promise(&$crate::sources::$kind);
                }
            )+
        }
    };
}
pub(crate) use every_source;

/// As [`every_source`], for the kinds that have a binary log.
macro_rules! every_binlog {
    ($($promise:ident),+ $(,)?) => {
        $crate::sources::every_source!(@ mysql MYSQL $($promise)+);
        $crate::sources::every_source!(@ mariadb MARIADB $($promise)+);
    };
}
pub(crate) use every_binlog;
