//! Global transaction ids: the positions of both servers, with all of their arithmetic.
//!
//! They share a name and nothing else. MySQL keeps the *set* of all transactions that were
//! applied ([`mysql::GtidSet`]), so holes are part of the position. MariaDB keeps the *last*
//! transaction of each replication domain ([`mariadb::GtidState`]), and trusts each domain
//! to be one sequence.

pub mod mariadb;
pub mod mysql;

/// A text or an encoding that is not the position it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {what}: expected {expected}")]
pub struct NotAGtid {
    what: &'static str,
    expected: &'static str,
}
