//! Which objects stand behind the configured names.
//!
//! A publication, a table and its partitions can each be replaced by another of the same
//! name, and the log then goes silent about rows, or brings rows of which it never said
//! that they are new. So their identities are kept beside the cursor and compared at every
//! connect and, while the log is read, at intervals. The identity of a catalog row is its
//! OID together with its `xmin`, the transaction that wrote this version of it: what was
//! changed and changed back between two looks is seen too.

use rollcall_contract::{ConnectorError, FollowedTable, Gap, GapReason, TableName, TableNo};
use serde::{Deserialize, Serialize};
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use crate::config::PostgresConfig;
use crate::query;

/// Identities of what is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identities {
    /// `pg_publication.oid`; 0 when there is none of that name.
    pub(crate) publication: u32,
    /// The version of that row: its options.
    pub(crate) options: String,
    /// Of the main table.
    #[serde(flatten)]
    pub(crate) main: TableIdentity,
    /// Of the related tables, in the order of the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) related: Vec<RelatedIdentity>,
}

/// Identities of one followed table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableIdentity {
    /// The catalog rows that put the table into the publication; empty when none does.
    pub(crate) membership: String,
    /// `pg_class.oid`; 0 when there is none of that name.
    pub(crate) table: u32,
    /// How many partitions lie below it, at any depth.
    pub(crate) partitions: u32,
    /// A digest of their OIDs.
    pub(crate) partitions_digest: u64,
    /// A digest of the rows that attach them: what was detached and attached again meanwhile is
    /// another row. None: stored before this was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attachments_digest: Option<u64>,
    /// Which columns its log names an old row by: the kind of its replica identity, and the
    /// attributes of the index behind it. None: stored before this was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) old_rows: Option<String>,
}

impl TableIdentity {
    fn has_same_partitions(&self, other: &TableIdentity) -> bool {
        let attachments = self.attachments_digest.zip(other.attachments_digest);
        (self.partitions, self.partitions_digest) == (other.partitions, other.partitions_digest)
            && attachments.is_none_or(|(a, b)| a == b)
    }
}

/// Identities of a related table, with its name: the configuration may come to name others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RelatedIdentity {
    relation: TableName,
    #[serde(flatten)]
    identity: TableIdentity,
}

/// What the publication does, for findings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) insert: bool,
    pub(crate) update: bool,
    pub(crate) delete: bool,
    pub(crate) truncate: bool,
    pub(crate) via_root: bool,
    /// For each followed table.
    pub(crate) tables: Vec<Listing>,
}

/// What the publication does with one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) is_listed: bool,
    pub(crate) row_filter: Option<String>,
}

/// What is asked for one table.
struct Membership {
    publication: u32,
    all_tables: bool,
    version: i32,
}

/// Reads the identities, and the publication when there is one.
pub(crate) async fn look<C: GenericClient>(
    client: &C,
    config: &PostgresConfig,
) -> Result<(Identities, Option<Publication>), ConnectorError> {
    let publication = client
        .query_typed_opt(
            "SELECT p.oid, p.xmin::text, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, \
                    p.pubviaroot, p.puballtables, \
                    pg_catalog.current_setting('server_version_num')::int4 \
             FROM pg_catalog.pg_publication p WHERE p.pubname = $1",
            &[(&config.publication, Type::NAME)],
        )
        .await
        .map_err(|e| query::failed(&e, "reading the publication"))?;
    let mut followed = Identities::default();
    let mut found = None;
    let mut asked = None;
    if let Some(row) = publication {
        followed.publication = row.get(0);
        followed.options = row.get(1);
        asked = Some(Membership {
            publication: row.get(0),
            all_tables: row.get(7),
            version: row.get(8),
        });
        found = Some(Publication {
            insert: row.get(2),
            update: row.get(3),
            delete: row.get(4),
            truncate: row.get(5),
            via_root: row.get(6),
            tables: Vec::new(),
        });
    }
    for table in config.tables() {
        let (identity, listing) =
            look_at(client, &config.publication, asked.as_ref(), &table).await?;
        match table.no {
            TableNo::MAIN => followed.main = identity,
            _ => followed.related.push(RelatedIdentity {
                relation: table.table.clone(),
                identity,
            }),
        }
        if let Some(found) = &mut found {
            found.tables.push(listing);
        }
    }
    Ok((followed, found))
}

async fn look_at<C: GenericClient>(
    client: &C,
    publication: &str,
    asked: Option<&Membership>,
    table: &FollowedTable<'_>,
) -> Result<(TableIdentity, Listing), ConnectorError> {
    // Columns that only some versions have are read by name out of the row as JSON.
    let Some(relation) = client
        .query_typed_opt(
            "SELECT c.oid, c.relkind = 'p', t.j->>'tablename' IS NOT NULL, t.j->>'rowfilter', \
                    pg_catalog.concat(c.relreplident, ' ', (SELECT i.indkey::text \
                      FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND CASE c.relreplident \
                        WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END)) \
             FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN LATERAL (SELECT pg_catalog.to_jsonb(pt) AS j \
               FROM pg_catalog.pg_publication_tables pt \
               WHERE pt.pubname = $3 AND pt.schemaname = $1 AND pt.tablename = $2) t ON true \
             WHERE n.nspname = $1 AND c.relname = $2",
            &[
                (&table.table.schema, Type::NAME),
                (&table.table.name, Type::NAME),
                (&publication, Type::NAME),
            ],
        )
        .await
        .map_err(|e| query::failed(&e, "reading the publication's tables"))?
    else {
        return Ok(Default::default());
    };
    let (oid, is_partitioned): (u32, bool) = (relation.get(0), relation.get(1));
    let mut identity = TableIdentity {
        table: oid,
        old_rows: Some(relation.get(4)),
        ..TableIdentity::default()
    };
    if is_partitioned {
        let partitions = client
            .query_typed(
                "WITH RECURSIVE below(oid, attached) AS ( \
                     SELECT inhrelid, xmin::text FROM pg_catalog.pg_inherits WHERE inhparent = $1 \
                     UNION ALL \
                     SELECT i.inhrelid, i.xmin::text FROM pg_catalog.pg_inherits i \
                     JOIN below b ON i.inhparent = b.oid) \
                 SELECT oid, attached FROM below ORDER BY oid",
                &[(&oid, Type::OID)],
            )
            .await
            .map_err(|e| query::failed(&e, "reading the table's partitions"))?;
        identity.partitions = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
        identity.partitions_digest = digest(
            partitions
                .iter()
                .flat_map(|row| row.get::<_, u32>(0).to_be_bytes()),
        );
        let attached = partitions.iter().map(|row| row.get::<_, &str>(1));
        identity.attachments_digest =
            Some(digest(attached.flat_map(|at| at.bytes().chain([b' ']))));
    }
    let listing = Listing {
        is_listed: relation.get(2),
        row_filter: relation.get(3),
    };
    if let Some(asked) = asked.filter(|_| listing.is_listed) {
        identity.membership = match asked.all_tables {
            true => "all".to_owned(),
            false => membership(client, asked.publication, oid, asked.version).await?,
        };
    }
    Ok((identity, listing))
}

/// The catalog rows through which a publication lists a table: of the table itself, of a
/// table that it is a partition of, or (15 and above) of the schema.
async fn membership<C: GenericClient>(
    client: &C,
    publication: u32,
    table: u32,
    version: i32,
) -> Result<String, ConnectorError> {
    let by_schema = if version >= 150_000 {
        "UNION ALL SELECT 'schema ' || pn.oid || ' ' || pn.xmin::text \
         FROM pg_catalog.pg_publication_namespace pn \
         JOIN pg_catalog.pg_class c ON c.relnamespace = pn.pnnspid \
         WHERE pn.pnpubid = $1 AND c.oid = $2"
    } else {
        ""
    };
    let sql = format!(
        "WITH RECURSIVE up(oid) AS ( \
             SELECT $2::oid UNION ALL \
             SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN up ON i.inhrelid = up.oid) \
         SELECT pg_catalog.string_agg(m.id, ', ' ORDER BY m.id) FROM ( \
             SELECT 'table ' || pr.oid || ' ' || pr.xmin::text AS id \
             FROM pg_catalog.pg_publication_rel pr JOIN up ON pr.prrelid = up.oid \
             WHERE pr.prpubid = $1 {by_schema}) m"
    );
    let row = client
        .query_typed_one(&sql, &[(&publication, Type::OID), (&table, Type::OID)])
        .await
        .map_err(|e| query::failed(&e, "reading the publication's tables"))?;
    Ok(row
        .get::<_, Option<String>>(0)
        .unwrap_or_else(|| "listed".to_owned()))
}

/// FNV-1a: stable between releases, which the standard library's hasher is not promised to be.
fn digest(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// What may have been lost between two looks at the configuration's tables. `from` and `to`
/// of the gaps are left open.
pub(crate) fn compare(before: &Identities, now: &Identities, config: &PostgresConfig) -> Vec<Gap> {
    let mut gaps = Vec::new();
    for table in config.tables() {
        // What is followed since now has nothing to be compared with.
        if let (Some(was), Some(is)) = (before.of(&table), now.of(&table)) {
            compare_table(before, now, (was, is), config, &table, &mut gaps);
        }
    }
    gaps
}

fn compare_table(
    before: &Identities,
    now: &Identities,
    (was, is): (&TableIdentity, &TableIdentity),
    config: &PostgresConfig,
    followed: &FollowedTable<'_>,
    gaps: &mut Vec<Gap>,
) {
    let (table, publication) = (followed.table, &config.publication);
    let mut add = |tables, reason, detail: String| {
        gaps.push(Gap {
            tables,
            reason,
            from: None,
            to: None,
            detail,
        });
    };
    let this = || vec![table.clone()];
    if is.table == 0 {
        add(
            this(),
            GapReason::TableRecreated,
            format!("The table {table} no longer exists."),
        );
    } else if was.table != is.table && was.table != 0 {
        add(
            this(),
            GapReason::TableRecreated,
            format!("The table {table} was dropped and created again; all of it is read again."),
        );
    }
    if before.publication != now.publication {
        // All tables were lost with it, which is said once.
        if followed.no == TableNo::MAIN {
            let detail = match now.publication {
                0 => format!("The publication \"{publication}\" no longer exists."),
                _ => format!(
                    "The publication \"{publication}\" was dropped and created again; changes \
                     made in between are not in the log."
                ),
            };
            add(config.table_names(), GapReason::PublicationChanged, detail);
        }
    } else if is.membership.is_empty() {
        add(
            this(),
            GapReason::PublicationChanged,
            format!(
                "The publication \"{publication}\" no longer lists {table}; its changes are not \
                 in the log."
            ),
        );
    } else if was.membership != is.membership || before.options != now.options {
        add(
            this(),
            GapReason::PublicationChanged,
            format!(
                "The publication \"{publication}\" was altered, so changes of {table} may not \
                 have been in the log for a time; all of it is read again."
            ),
        );
    }
    let old_rows = was.old_rows.as_ref().zip(is.old_rows.as_ref());
    if is.table != 0 && was.table == is.table && old_rows.is_some_and(|(a, b)| a != b) {
        add(
            this(),
            GapReason::NotInLog,
            format!(
                "The primary key or the replica identity of {table} is another one than before, so \
                 the log may have named deleted and renamed rows by other columns; all of it is \
                 read again."
            ),
        );
    }
    if is.table != 0 && was.table == is.table && !was.has_same_partitions(is) {
        add(
            this(),
            GapReason::PartitionsChanged,
            format!(
                "Partitions of {table} were attached or detached ({} before, {} now); the log \
                 does not carry the rows that came or went with them.",
                was.partitions, is.partitions
            ),
        );
    }
}

impl Identities {
    fn of(&self, table: &FollowedTable<'_>) -> Option<&TableIdentity> {
        match table.no {
            TableNo::MAIN => Some(&self.main),
            _ => self.related(table.table),
        }
    }

    fn related(&self, name: &TableName) -> Option<&TableIdentity> {
        let related = self.related.iter().find(|r| r.relation == *name)?;
        Some(&related.identity)
    }

    /// Whether the log has as much of every change as it had.
    pub(crate) fn logs_like(&self, before: &Identities) -> bool {
        let tables = |of: &Identities| {
            let related = of.related.iter().map(|r| r.identity.old_rows.clone());
            std::iter::once(of.main.old_rows.clone())
                .chain(related)
                .collect::<Vec<_>>()
        };
        self.options == before.options && tables(self) == tables(before)
    }

    /// The related tables that are followed now, and were not before.
    pub(crate) fn added_since(&self, before: &Identities) -> Vec<TableName> {
        let names = self.related.iter().map(|related| &related.relation);
        let added = names.filter(|name| before.related(name).is_none());
        added.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
    use rollcall_contract::RelatedTable;

    use super::*;

    fn identity(table: u32) -> TableIdentity {
        TableIdentity {
            membership: format!("table {table} 701"),
            table,
            partitions: 2,
            partitions_digest: digest([10, 11].into_iter().flat_map(u32::to_be_bytes)),
            attachments_digest: Some(digest(b"702 703 ".iter().copied())),
            old_rows: Some("d 1".to_owned()),
        }
    }

    fn units() -> TableName {
        TableName::new("hr", "units")
    }

    fn base() -> Identities {
        Identities {
            publication: 1,
            options: "700".to_owned(),
            main: identity(9),
            related: vec![RelatedIdentity {
                relation: units(),
                identity: identity(12),
            }],
        }
    }

    fn config() -> PostgresConfig {
        let people = TableName::new("hr", "people");
        let mut config = PostgresConfig::new("localhost", "hr", "r", people);
        config.related.push(RelatedTable {
            name: "unit".to_owned(),
            table: units(),
            key: None,
        });
        config
    }

    /// The reasons, and how many tables each one names.
    fn gaps(now: Identities) -> Vec<(GapReason, usize)> {
        let gaps = compare(&base(), &now, &config());
        gaps.iter().map(|g| (g.reason, g.tables.len())).collect()
    }

    #[test]
    fn nothing_changed_is_no_gap() {
        assert_eq!(gaps(base()), []);
    }

    #[test]
    fn every_replaced_object_is_a_gap() {
        use GapReason::*;
        for related in [false, true] {
            let changed = |change: fn(&mut TableIdentity)| {
                let mut now = base();
                change(match related {
                    false => &mut now.main,
                    true => &mut now.related[0].identity,
                });
                let found = compare(&base(), &now, &config());
                let table = config()
                    .tables()
                    .nth(usize::from(related))
                    .unwrap()
                    .table
                    .clone();
                assert!(
                    found
                        .iter()
                        .all(|gap| gap.tables == std::slice::from_ref(&table))
                );
                found.iter().map(|gap| gap.reason).collect::<Vec<_>>()
            };
            assert_eq!(changed(|f| f.table = 0), [TableRecreated]);
            assert_eq!(changed(|f| f.table = 8), [TableRecreated]);
            assert_eq!(changed(|f| f.membership.clear()), [PublicationChanged]);
            assert_eq!(
                changed(|f| f.membership.push('1')),
                [PublicationChanged],
                "removed and added again"
            );
            assert_eq!(
                changed(|f| f.partitions_digest =
                    digest([10, 12].into_iter().flat_map(u32::to_be_bytes))),
                [PartitionsChanged],
                "one detached, another attached"
            );
            assert_eq!(
                changed(|f| f.attachments_digest = Some(1)),
                [PartitionsChanged],
                "detached and attached again"
            );
            assert_eq!(changed(|f| f.attachments_digest = None), []);
            assert_eq!(changed(|f| f.old_rows = Some("i 3".into())), [NotInLog]);
            assert_eq!(changed(|f| f.old_rows = None), []);
        }
        let changed = |change: fn(&mut Identities)| {
            let mut now = base();
            change(&mut now);
            gaps(now)
        };
        assert_eq!(changed(|f| f.publication = 0), [(PublicationChanged, 2)]);
        assert_eq!(changed(|f| f.publication = 2), [(PublicationChanged, 2)]);
        let each = [(PublicationChanged, 1), (PublicationChanged, 1)];
        assert_eq!(changed(|f| f.options.push('1')), each);
    }

    #[test]
    fn a_related_table_that_is_new_in_the_configuration_is_known_as_such() {
        let mut before = base();
        before.related.clear();
        assert_eq!(base().added_since(&before), [units()]);
        assert_eq!(base().added_since(&base()), []);
        assert_eq!(compare(&before, &base(), &config()), []);
    }

    #[test]
    fn what_an_earlier_version_stored_is_read() {
        let stored = r#"{"publication":1,"options":"700","membership":"table 9 701","table":9,
            "partitions":2,"partitions_digest":18446744073709551615}"#;
        let read: Identities = serde_json::from_str(stored).unwrap();
        assert_eq!(read.main.table, 9);
        assert_eq!(read.main.partitions_digest, u64::MAX);
        assert!(read.related.is_empty());
        let again = serde_json::to_string(&base()).unwrap();
        assert_eq!(serde_json::from_str::<Identities>(&again).unwrap(), base());
    }
}
