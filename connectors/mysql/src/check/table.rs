//! What a followed table must be like.

use rollcall_contract::{ConnectorError, FollowedTable, RelationKind, TableName};

use super::{Obstacle, Preflight};
use crate::config::Flavour;
use crate::schema::Table;
use crate::wire::Client;
use crate::{query, types, values};

/// Why the rows cannot be told apart, and so not even be read; `None` when they can.
pub(crate) fn obstacle_of_key(table: &Table) -> Option<Obstacle> {
    if !table.schema.key.is_empty() {
        return None;
    }
    let name = &table.schema.table;
    let fault = table.key_fault.clone();
    Some(Obstacle {
        code: "no_key",
        sentence: fault.unwrap_or_else(|| format!("{name} has no key.")),
        fix: match table.kind {
            RelationKind::View => "Name in `key` the columns that identify a row.",
            _ => "Add a primary key, or name in `key` the columns of a unique index without nulls.",
        },
    })
}

/// Why the table cannot be followed; `None` when it can.
pub(crate) fn obstacle(table: &Table) -> Option<Obstacle> {
    let name = &table.schema.table;
    let of = |code, sentence, fix| {
        Some(Obstacle {
            code,
            sentence,
            fix,
        })
    };
    if table.kind == RelationKind::View {
        return of(
            "not_followable",
            format!("{name} is a view: the log carries the changes of tables."),
            "Follow the tables that hold the rows.",
        );
    }
    if table.is_versioned {
        return of(
            "not_followable",
            format!(
                "{name} is system-versioned: the log carries its old rows as if they were new \
                 ones."
            ),
            "Follow a table without system versioning.",
        );
    }
    if table.hides_columns() {
        return of(
            "missing_grant",
            format!(
                "The account may not see every column of {name}, and the log carries them all."
            ),
            "GRANT SELECT ON … TO …; (see the script)",
        );
    }
    if let Some(column) = table
        .schema
        .columns
        .iter()
        .find(|c| c.type_name.contains("COMPRESSED"))
    {
        return of(
            "compressed_column",
            format!(
                "The column \"{}\" of {name} is stored compressed, and the log carries it so.",
                column.name
            ),
            "ALTER TABLE … MODIFY … without COMPRESSED.",
        );
    }
    if let Some(at) = table.columns.iter().position(types::is_old_fraction) {
        return of(
            "old_fraction",
            format!(
                "The column \"{}\" of {name} has fractions of a second in the format of \
                 MariaDB 5.3, whose length the log does not say.",
                table.schema.columns[at].name
            ),
            values::OLD_FRACTION_FIX,
        );
    }
    if let Some(fault) = &table.key_fault {
        return of(
            "no_key",
            fault.clone(),
            "Add a primary key, or name in `key` the columns of a unique index without nulls.",
        );
    }
    None
}

pub(super) async fn table(
    client: &mut Client,
    followed: &FollowedTable<'_>,
    table: Option<&Table>,
    found: &mut Preflight,
) -> Result<(), ConnectorError> {
    let name = followed.table;
    let Some(table) = table else {
        found.error(
            "no_such_table",
            format!("There is no table {name}, or the account may not see it."),
            &format!(
                "Correct {} in the configuration (names may be case sensitive), or GRANT SELECT \
                 (see the script).",
                followed.place()
            ),
        );
        return Ok(());
    };
    if table.schema.table != *name {
        found.error(
            "no_such_table",
            format!(
                "The server spells the table {}, and the configuration {name}.",
                table.schema.table
            ),
            "Write it as the server does: the log does.",
        );
        return Ok(());
    }
    let keyless = obstacle_of_key(table);
    let obstacle = obstacle(table).filter(|o| keyless.is_none() || o.code != "no_key");
    if let Some(obstacle) = keyless {
        found.error(obstacle.code, obstacle.sentence, obstacle.fix);
    }
    match obstacle {
        Some(obstacle) => found.unfollowable(obstacle.code, obstacle.sentence, obstacle.fix),
        None if table.schema.key.is_empty() => {}
        None => found.ok(
            "table",
            format!(
                "{name} has {} columns; its key is {}.",
                table.schema.columns.len(),
                table
                    .schema
                    .key
                    .iter()
                    .map(|&i| table.schema.columns[i].name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        ),
    }
    let image = found.server.setting("binlog_row_image").to_owned();
    if !matches!(image.as_str(), "FULL" | "") && !matches!(table.key_index.as_str(), "PRIMARY" | "")
    {
        found.unfollowable(
            "binlog_row_image",
            format!(
                "binlog_row_image is {image}: an old row carries the primary key of {name} and \
                 not the columns of `key`, so a deleted record cannot be told."
            ),
            "Set binlog_row_image = FULL, or use the primary key.",
        );
    }
    if table.kind != RelationKind::View && !table.is_transactional() {
        found.note(
            "engine",
            format!(
                "{name} is stored by {}: its changes cannot be rolled back, and a scan sees them \
                 at once.",
                table.engine
            ),
            "ALTER TABLE … ENGINE = InnoDB.",
        );
    }
    cascades(client, name, found).await
}

/// InnoDB's own cascades change rows of which the log never says a word.
async fn cascades(
    client: &mut Client,
    table: &TableName,
    found: &mut Preflight,
) -> Result<(), ConnectorError> {
    let logs_them = found.server.flavour == Flavour::MySql
        && found.server.version >= (9, 6, 0)
        && !found.server.is_on("innodb_native_foreign_keys");
    if logs_them {
        return Ok(());
    }
    // `information_schema` tells an account that may only SELECT nothing of foreign keys.
    let row = match client
        .row(&format!("SHOW CREATE TABLE {}", query::table(table)))
        .await
    {
        Ok(row) => row,
        Err(e) if e.code.is_some() => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let names = silent_cascades(row.text(1).unwrap_or_default());
    if !names.is_empty() {
        found.warn(
            "foreign_key_cascade",
            format!(
                "The foreign key {} of {table} changes its rows when others change, and the \
                 server does not write that to its log.",
                names.join(", ")
            ),
            "Schedule a reconciliation for this source, or replace the cascade (ON DELETE \
             RESTRICT) by statements of the application.",
        );
    }
    Ok(())
}

/// The foreign keys of a `CREATE TABLE` as the server prints it that change rows by
/// themselves: one to a line.
fn silent_cascades(create: &str) -> Vec<&str> {
    create
        .lines()
        .map(str::trim)
        .filter(|line| {
            let rules = line.rsplit_once(')').map_or("", |(_, rules)| rules);
            line.starts_with("CONSTRAINT `")
                && ["CASCADE", "SET NULL", "SET DEFAULT"]
                    .iter()
                    .any(|rule| rules.contains(rule))
        })
        .filter_map(|line| line.split('`').nth(1))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_foreign_keys_that_change_rows_are_named() {
        let create = "CREATE TABLE `people` (\n  `id` int NOT NULL,\n  \
             CONSTRAINT `a` FOREIGN KEY (`u`) REFERENCES `unit` (`id`) ON DELETE CASCADE,\n  \
             CONSTRAINT `b` FOREIGN KEY (`v`) REFERENCES `unit` (`id`) ON DELETE RESTRICT,\n  \
             CONSTRAINT `c` FOREIGN KEY (`w`) REFERENCES `unit` (`CASCADE`),\n  \
             CONSTRAINT `d` FOREIGN KEY (`x`) REFERENCES `unit` (`id`) ON UPDATE SET NULL\n)";
        assert_eq!(silent_cascades(create), ["a", "d"]);
    }
}
