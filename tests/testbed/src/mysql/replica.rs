//! Replicas, for fail-over.
//!
//! A replica begins empty and reads all of its primary's binlog by GTID, so it
//! needs a primary that has purged nothing; in return the primary is not stopped
//! and nothing is copied. Transactions keep the GTIDs of the server where they
//! were made.

use std::time::Duration;

use super::MySql;
use super::builder::server_id;
use crate::error::Result;
use crate::files::copy_tree;
use crate::process::{read_lossy, run};
use crate::wait::wait_for;

impl MySql {
    /// A replica of this server with the same options, on a port of its own,
    /// `read_only`, and itself with a binlog.
    ///
    /// # Errors
    /// When it does not start or cannot be told what to follow.
    pub fn replica(&self) -> Result<MySql> {
        self.replica_with(&[])
    }

    /// As [`MySql::replica`], with settings of its own.
    ///
    /// # Errors
    /// As [`MySql::replica`].
    pub fn replica_with(&self, settings: &[(&str, &str)]) -> Result<MySql> {
        let replica = MySql::prepare(self.version)?;
        copy_tree(&replica.home.join("template"), &replica.data)?;
        replica.forget_identity()?;
        replica.append_conf(&read_lossy(&self.conf))?;
        replica.append_conf(&format!("server_id = {}\n", server_id()))?;
        for (name, value) in settings {
            replica.append_conf(&format!("{name} = {value}\n"))?;
        }
        let replica = replica.first_start()?;
        self.sql(
            "CREATE USER IF NOT EXISTS replica@'%' IDENTIFIED BY 'replica'; \
             GRANT REPLICATION SLAVE ON *.* TO replica@'%'",
        )?;
        let port = self.port;
        replica.sql(&if self.version.is_mariadb() {
            format!(
                "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, \
                 MASTER_USER = 'replica', MASTER_PASSWORD = 'replica', \
                 MASTER_SSL_VERIFY_SERVER_CERT = 0, MASTER_CONNECT_RETRY = 1, \
                 MASTER_USE_GTID = slave_pos; \
                 SET GLOBAL read_only = ON; START SLAVE"
            )
        } else {
            format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, \
                 SOURCE_USER = 'replica', SOURCE_PASSWORD = 'replica', \
                 GET_SOURCE_PUBLIC_KEY = 1, SOURCE_SSL = 0, SOURCE_CONNECT_RETRY = 1, \
                 SOURCE_AUTO_POSITION = 1; \
                 SET GLOBAL super_read_only = ON; START REPLICA"
            )
        })?;
        Ok(replica)
    }

    /// The transactions that this server has, in its own words: `gtid_executed` of
    /// MySQL, `gtid_current_pos` of MariaDB.
    ///
    /// # Errors
    /// As [`MySql::sql`].
    pub fn gtid(&self) -> Result<String> {
        let variable = if self.version.is_mariadb() {
            "gtid_current_pos"
        } else {
            "gtid_executed"
        };
        let gtid = self.sql(&format!("SELECT @@GLOBAL.{variable}"))?;
        Ok(gtid.replace('\n', ""))
    }

    /// Waits until a replica has applied all that `primary` has now.
    ///
    /// # Errors
    /// When it has not within `timeout`; the text says what it has.
    pub fn wait_for_primary(&self, primary: &MySql, timeout: Duration) -> Result<()> {
        let wanted = primary.gtid()?;
        wait_for(
            timeout,
            format_args!("the replica on port {} to apply {wanted}", self.port),
            || {
                let sql = if self.version.is_mariadb() {
                    format!("SELECT MASTER_GTID_WAIT('{wanted}', 0.2) = 0")
                } else {
                    format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{wanted}', 0.2) = 0")
                };
                match self.sql(&sql) {
                    Ok(answer) if answer == "1" => Ok(()),
                    Ok(_) => Err(self.replica_state()),
                    Err(error) => Err(error.to_string()),
                }
            },
        )
    }

    /// How far it is, and what hinders it.
    fn replica_state(&self) -> String {
        let mut command = self.client("root");
        command.arg("--vertical").arg(if self.version.is_mariadb() {
            "--execute=SHOW SLAVE STATUS"
        } else {
            "--execute=SHOW REPLICA STATUS"
        });
        let status = run(command).unwrap_or_default();
        let errors = status
            .lines()
            .filter_map(|line| line.split_once(": "))
            .filter(|(name, said)| name.trim().ends_with("_Error") && !said.trim().is_empty())
            .map(|(_, said)| said);
        std::iter::once(self.gtid().unwrap_or_default().as_str())
            .chain(errors)
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// Makes a replica a primary: it follows nobody any more and takes writes.
    ///
    /// # Errors
    /// As [`MySql::sql`].
    pub fn promote(&self) -> Result<()> {
        self.sql(if self.version.is_mariadb() {
            "STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = OFF"
        } else {
            "STOP REPLICA; RESET REPLICA ALL; \
             SET GLOBAL super_read_only = OFF; SET GLOBAL read_only = OFF"
        })
        .map(drop)
    }
}
