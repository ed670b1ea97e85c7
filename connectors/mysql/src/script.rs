//! The statements that set a source up, for the operator to read and run.
//!
//! They are printed and never run: the account has no right to any of them, and shall not
//! have. Each statement can be run again without harm.

use crate::config::{Flavour, MySqlConfig};
use crate::query::{literal, table};

/// The whole set-up for a source, in the order in which an administrator runs it.
pub(crate) fn setup(config: &MySqlConfig) -> String {
    let account = format!("{}@'%'", literal(&config.user));
    let selects: String = config
        .tables()
        .map(|followed| format!("GRANT SELECT ON {} TO {account};\n", table(followed.table)))
        .collect();
    let (replication, plugin, settings) = match config.flavour {
        Flavour::MySql => (
            "REPLICATION SLAVE, REPLICATION CLIENT",
            "IDENTIFIED WITH caching_sha2_password BY RANDOM PASSWORD",
            "-- Settings, in the server's configuration file or by SET PERSIST; log_bin and\n\
             -- gtid_mode need a restart or the steps of the manual:\n\
             --   log_bin = binlog\n\
             --   gtid_mode = ON\n\
             --   enforce_gtid_consistency = ON\n\
             --   binlog_format = ROW\n\
             --   binlog_row_image = FULL\n\
             --   binlog_row_metadata = FULL\n\
             --   binlog_expire_logs_seconds = 604800   -- longer than any outage expected\n\
             -- On Amazon RDS and Aurora, besides: CALL mysql.rds_set_configuration(\n\
             --   'binlog retention hours', 168);\n",
        ),
        Flavour::MariaDb => (
            "REPLICATION SLAVE, BINLOG MONITOR",
            "IDENTIFIED VIA ed25519 USING PASSWORD('choose one')",
            "-- The plugin, once: INSTALL SONAME 'auth_ed25519';\n\
             -- Settings, in the server's configuration file; log_bin needs a restart:\n\
             --   log_bin = binlog\n\
             --   server_id = 1                         -- another one on each server\n\
             --   binlog_format = ROW\n\
             --   binlog_row_image = FULL\n\
             --   binlog_row_metadata = FULL\n\
             --   gtid_strict_mode = ON\n\
             --   binlog_expire_logs_seconds = 604800   -- longer than any outage expected\n\
             -- On Amazon RDS, besides: CALL mysql.rds_set_configuration(\n\
             --   'binlog retention hours', 168);\n",
        ),
    };
    format!(
        "-- Run as an administrator. Put the address that Rollcall comes from in place of '%'.\n\
         CREATE USER IF NOT EXISTS {account} {plugin};\n\
         -- It reads the log of the whole server; the protocol knows no narrower right.\n\
         GRANT {replication} ON *.* TO {account};\n\
         {selects}{settings}"
    )
}

#[cfg(test)]
mod tests {
    use rollcall_contract::{RelatedTable, TableName};

    use super::*;

    #[test]
    fn names_are_quoted_wherever_they_stand() {
        for (flavour, grant) in [
            (Flavour::MySql, "REPLICATION CLIENT"),
            (Flavour::MariaDb, "BINLOG MONITOR"),
        ] {
            let mut config =
                MySqlConfig::new(flavour, "localhost", "o'x", TableName::new("h`r", "People"));
            config.related.push(RelatedTable {
                name: "unit".to_owned(),
                table: TableName::new("org", "unit"),
                key: None,
            });
            let script = setup(&config);
            for part in [
                "GRANT SELECT ON `h``r`.`People` TO 'o''x'@'%';\n\
                 GRANT SELECT ON `org`.`unit` TO 'o''x'@'%';\n",
                "binlog_row_metadata = FULL",
                grant,
            ] {
                assert!(script.contains(part), "{part} is not in:\n{script}");
            }
        }
    }
}
