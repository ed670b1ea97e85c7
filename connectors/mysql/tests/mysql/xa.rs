//! XA transactions in all their endings, over a restart too.
//!
//! Each on a server of its own: one that was prepared before a log was opened is a gap for
//! that log, whatever its tables were, and so for the readers of other tests.

use rollcall_contract::GapReason;
use rollcall_testbed::MySqlVersion;

use crate::bed::{Bed, Reader};

with_both!(
    rows_of_an_xa_transaction_count_from_its_commit_on,
    a_prepared_transaction_survives_a_restart_of_ours,
    one_that_was_prepared_before_the_first_start_is_a_gap,
);

async fn rows_of_an_xa_transaction_count_from_its_commit_on(version: MySqlVersion) {
    let bed = Bed::alone(version, &[]);
    let mut reader = bed.begin(1).await;
    bed.sql(
        "XA START 'one'; INSERT INTO people (id) VALUES (2); XA END 'one';
         XA COMMIT 'one' ONE PHASE;
         XA START 'back','b'; INSERT INTO people (id) VALUES (3); XA END 'back','b';
         XA PREPARE 'back','b'; XA ROLLBACK 'back','b'",
    );
    bed.sql(
        "XA START 'two',X'00ff',7; INSERT INTO people (id) VALUES (4), (5); XA END 'two',X'00ff',7;
         XA PREPARE 'two',X'00ff',7",
    );
    bed.sql("INSERT INTO people (id) VALUES (6)");
    bed.sql("XA COMMIT 'two',X'00ff',7; INSERT INTO people (id) VALUES (7)");
    reader.until_key("7").await;
    assert_eq!(reader.keys(), ["1", "2", "6", "4", "5", "7"]);
    assert_eq!(reader.gaps, []);
}

async fn a_prepared_transaction_survives_a_restart_of_ours(version: MySqlVersion) {
    let bed = Bed::alone(version, &[]);
    let mut reader = bed.begin(1).await;
    bed.sql("XA START 'r'; INSERT INTO people (id) VALUES (2); XA END 'r'; XA PREPARE 'r'");
    bed.sql("INSERT INTO people (id) VALUES (3)");
    reader.until_key("3").await;
    assert_eq!(reader.keys(), ["1", "3"]);
    let stored = reader.close().await;
    // Not ended yet, and nothing is read twice.
    bed.sql("INSERT INTO people (id) VALUES (4)");
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), []);
    reader.until_key("4").await;
    assert_eq!(reader.keys(), ["4"]);
    let stored = reader.close().await;
    bed.sql("XA COMMIT 'r'; INSERT INTO people (id) VALUES (5)");
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    assert_eq!(reader.reasons(), []);
    reader.until_key("5").await;
    assert_eq!(reader.keys(), ["2", "5"]);
    assert_eq!(reader.gaps, []);
    // Ended: nothing holds the position back any more.
    let stored = reader.close().await;
    let mut reader = Reader::open(&bed.source(), Some(stored)).await;
    bed.sql("INSERT INTO people (id) VALUES (6)");
    reader.until_key("6").await;
    assert_eq!(reader.keys(), ["6"]);
}

async fn one_that_was_prepared_before_the_first_start_is_a_gap(version: MySqlVersion) {
    let bed = Bed::alone(version, &[]);
    bed.sql("XA START 'u'; INSERT INTO people (id) VALUES (2); XA END 'u'; XA PREPARE 'u'");
    let mut reader = bed.begin(1).await;
    bed.sql("XA COMMIT 'u'; INSERT INTO people (id) VALUES (3)");
    reader.until_key("3").await;
    assert_eq!(reader.keys(), ["1", "3"]);
    assert_eq!(reader.until_gap().await.reason, GapReason::NotInLog);
}
