//! What the account may do: all that is needed, and nothing that is not.

use rollcall_contract::ConnectorError;

use super::Preflight;
use crate::config::Flavour;
use crate::wire::Client;

/// Global privileges that this source needs, by any of their names.
fn needed(flavour: Flavour) -> [&'static [&'static str]; 2] {
    match flavour {
        Flavour::MySql => [&["REPLICATION SLAVE"], &["REPLICATION CLIENT"]],
        Flavour::MariaDb => [
            &["REPLICATION SLAVE"],
            &["BINLOG MONITOR", "REPLICATION CLIENT"],
        ],
    }
}

/// Privileges that are no excess: they let nothing be changed that matters.
const HARMLESS: &[&str] = &[
    "USAGE",
    "SELECT",
    "SHOW VIEW",
    "REPLICATION SLAVE",
    "REPLICATION CLIENT",
    "BINLOG MONITOR",
    "SLAVE MONITOR",
    "REPLICA MONITOR",
];

/// One line of `SHOW GRANTS`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    privileges: Vec<String>,
    /// What they are granted on, as the server spells it.
    on: String,
}

/// Reads `GRANT a, b (col, col) ON x TO y …`; none for a role or a proxy.
fn parse(line: &str) -> Option<Grant> {
    let rest = line.strip_prefix("GRANT ")?;
    let (list, rest) = rest.split_once(" ON ")?;
    let (on, _) = rest.rsplit_once(" TO ")?;
    let mut depth = 0;
    let plain: String = list
        .chars()
        .filter(|c| {
            match c {
                '(' => depth += 1,
                ')' => {
                    depth -= 1;
                    return false;
                }
                _ => {}
            }
            depth == 0
        })
        .collect();
    let privileges = plain
        .split(',')
        .map(|p| p.trim().to_ascii_uppercase())
        .collect();
    Some(Grant {
        privileges,
        on: on.to_owned(),
    })
}

/// Looks at the account's grants.
pub(super) async fn grants(
    client: &mut Client,
    found: &mut Preflight,
) -> Result<(), ConnectorError> {
    let rows = client.rows("SHOW GRANTS").await?;
    let lines: Vec<&str> = rows.iter().filter_map(|row| row.text(0)).collect();
    let grants: Vec<Grant> = lines.iter().filter_map(|line| parse(line)).collect();
    // What a role grants is not listed here; then only use can tell.
    let has_role = lines
        .iter()
        .any(|line| line.starts_with("GRANT ") && !line.contains(" ON "));
    let has = |names: &[&str]| {
        grants.iter().any(|g| {
            g.on == "*.*"
                && g.privileges
                    .iter()
                    .any(|p| p == "ALL PRIVILEGES" || names.contains(&p.as_str()))
        })
    };
    for names in needed(found.server.flavour) {
        if !has(names) && !has_role {
            found.unfollowable(
                "missing_grant",
                format!("The account does not have {}.", names[0]),
                "GRANT … ON *.* TO …; (see the script)",
            );
        }
    }
    let excess: Vec<String> = grants
        .iter()
        .filter_map(|g| {
            let extra: Vec<&str> = g
                .privileges
                .iter()
                .map(String::as_str)
                .filter(|p| !HARMLESS.contains(p) || (*p == "SELECT" && g.on == "*.*"))
                .collect();
            (!extra.is_empty()).then(|| format!("{} on {}", shorten(&extra), g.on))
        })
        .collect();
    if excess.is_empty() {
        found.ok(
            "account",
            "The account has no more than it needs.".to_owned(),
        );
    } else {
        found.warn(
            "excess_grants",
            format!(
                "The account may {}, which this source does not need.",
                excess.join("; ")
            ),
            "REVOKE … ON … FROM …;",
        );
    }
    Ok(())
}

fn shorten(privileges: &[&str]) -> String {
    const SHOWN: usize = 5;
    match privileges.len().checked_sub(SHOWN) {
        None | Some(0) => privileges.join(", "),
        Some(more) => format!("{} and {more} more", privileges[..SHOWN].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn grants_are_read_as_both_servers_print_them() {
        for (line, privileges, on) in [
            (
                "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO `r`@`%` IDENTIFIED BY PASSWORD '*'",
                &["REPLICATION SLAVE", "BINLOG MONITOR"][..],
                "*.*",
            ),
            (
                "GRANT SELECT (`id`, `a,b`), INSERT ON `hr`.`people` TO `r`@`%`",
                &["SELECT", "INSERT"][..],
                "`hr`.`people`",
            ),
            (
                "GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION",
                &["ALL PRIVILEGES"][..],
                "*.*",
            ),
        ] {
            let grant = parse(line).unwrap();
            assert_eq!(grant.privileges, privileges);
            assert_eq!(grant.on, on);
        }
        assert_eq!(parse("GRANT `reader`@`%` TO `r`@`%`"), None);
    }
}
