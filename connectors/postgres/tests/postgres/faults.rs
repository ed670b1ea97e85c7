//! Cut connections, tunnels, and more data than a batch holds.

use rollcall_contract::{Acknowledge, BatchCaps, Cell, ChangeStream, StreamItem};
use rollcall_postgres::decode::DecoderOptions;
use rollcall_postgres::lsn::{Lsn, Xid};
use rollcall_postgres::position::PgCursor;
use rollcall_postgres::stream::StreamOptions;
use rollcall_postgres::wire::ReplicationClient;
use rollcall_testbed::{PgVersion, Proxy};
use std::sync::Arc;
use tokio::net::{TcpStream, UnixStream};

use crate::server::*;

#[tokio::test]
async fn a_connection_cut_at_any_byte_loses_and_repeats_nothing() {
    let db = with_table(PgVersion::Debian, "id int PRIMARY KEY, name text");
    let direct = config(&db);
    let mut start = create_slot(&direct).await;
    db.psql(
        "postgres",
        "INSERT INTO people SELECT i, repeat('n', i % 90) FROM generate_series(1, 3000) i;
         DO $$ BEGIN FOR i IN 3001..3500 LOOP
            INSERT INTO people VALUES (i, 'x'); COMMIT;
         END LOOP; END $$;",
    )
    .unwrap();
    let proxy = Proxy::start(&format!("127.0.0.1:{}", db.port())).unwrap();
    let mut config = direct.clone();
    config.host = "127.0.0.1".to_owned();
    config.port = proxy.port();
    let caps = BatchCaps {
        most_changes: 97,
        ..BatchCaps::default()
    };
    let (mut ids, mut cuts) = (Vec::new(), 0u64);
    while ids.len() < 3_500 {
        // Each time another place, further on: the server sends a transaction from its
        // start again, and the largest here has about 300 kB, so that the first cuts are
        // all inside of it and a later one lets it end. Set before the log is opened: how much
        // the server has sent by then depends on how busy the machine is.
        proxy.cut_after_bytes(20_000 + 17_919 * cuts);
        cuts += 1;
        assert!(cuts < 200, "no progress");
        let Ok(mut log) = try_open(&db, &config, start, caps).await else {
            continue;
        };
        loop {
            match log.stream.next().await {
                Ok(StreamItem::Batch(batch)) => {
                    ids.extend(batch.changes().map(|c| match c.after().unwrap().cell(0) {
                        Cell::Value(v) => String::from_utf8_lossy(v).parse::<u32>().unwrap(),
                        other => panic!("{other:?}"),
                    }));
                    start = PgCursor::decode(batch.cursor()).unwrap();
                    log.acknowledge.acknowledge(batch.cursor());
                    if ids.len() >= 3_500 {
                        break;
                    }
                }
                Ok(StreamItem::Progress(cursor)) => start = PgCursor::decode(&cursor).unwrap(),
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    assert!(error.is_transient(), "{error}");
                    break;
                }
            }
        }
    }
    assert!(cuts > 3, "{cuts}");
    assert!(ids.iter().copied().eq(1..=3_500), "{cuts} cuts");
}

#[tokio::test]
async fn a_value_larger_than_a_batch_passes() {
    let db = with_table(
        PgVersion::Debian,
        "id int PRIMARY KEY, name text, tags text[]",
    );
    let config = config(&db);
    let start = create_slot(&config).await;
    let mut log = open(&db, &config, start).await;
    db.psql(
        "postgres",
        "INSERT INTO people SELECT i, repeat('x', 20000000), ARRAY[repeat('y', 10000000)]
         FROM generate_series(1, 3) i",
    )
    .unwrap();
    let (seen, _) = log.changes(3).await;
    assert_eq!(
        seen,
        [
            "Insert#0 new(1,<20000000>,<10000004>)",
            "Insert#1 new(2,<20000000>,<10000004>)",
            "Insert#2 new(3,<20000000>,<10000004>)",
        ]
    );
    log.close().await;
}

#[tokio::test]
async fn a_large_transaction_comes_in_batches_of_bounded_size() {
    let db = with_table(PgVersion::Debian, "id int PRIMARY KEY, name text");
    let config = config(&db);
    let start = create_slot(&config).await;
    db.psql(
        "postgres",
        "INSERT INTO people SELECT i, repeat('x', 300) FROM generate_series(1, 100000) i",
    )
    .unwrap();
    let caps = BatchCaps {
        most_changes: 10_000,
        bytes: 1 << 20,
        ..BatchCaps::default()
    };
    let mut log = try_open(&db, &config, start, caps).await.unwrap();
    let mut count = 0;
    while count < 100_000 {
        let batch = log.batch().await;
        assert!(batch.size_bytes() <= caps.bytes + 1_000, "{batch:?}");
        count += batch.len();
        if count < 100_000 {
            // Inside of the transaction, an acknowledgement confirms nothing.
            log.acknowledge.acknowledge(batch.cursor());
        }
    }
    log.close().await;
    assert_eq!(slot_lsn(&db, "confirmed_flush_lsn"), start.commit_end);
}

#[tokio::test]
async fn rows_that_were_replicated_themselves_can_be_left_out() {
    let db = with_table(PgVersion::V18, "id int PRIMARY KEY");
    let mut config = config(&db);
    config.skip_replicated = true;
    let start = create_slot(&config).await;
    db.psql(
        "postgres",
        "SELECT pg_replication_origin_create('elsewhere');
         SELECT pg_replication_origin_session_setup('elsewhere');
         INSERT INTO people VALUES (1);
         SELECT pg_replication_origin_session_reset();
         INSERT INTO people VALUES (2);",
    )
    .unwrap();
    let mut log = open(&db, &config, start).await;
    assert_eq!(log.changes(1).await.0, ["Insert#0 new(2)"]);
    log.close().await;
    config.skip_replicated = false;
    let mut log = open(&db, &config, start).await;
    assert_eq!(
        log.changes(2).await.0,
        ["Insert#0 new(1)", "Insert#0 new(2)"]
    );
    log.close().await;
}

#[tokio::test]
async fn a_tunnel_takes_the_place_of_a_socket() {
    let db = with_table(PgVersion::Debian, "id int PRIMARY KEY");
    let config = config(&db);
    let start = create_slot(&config).await;
    db.psql("postgres", "INSERT INTO people VALUES (1)")
        .unwrap();
    let (near, mut far) = tokio::io::duplex(1_000);
    let mut behind = UnixStream::connect(config.socket_path().unwrap())
        .await
        .unwrap();
    let carrier =
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut far, &mut behind).await });
    let client = ReplicationClient::over(near, &config).await.unwrap();
    let decoder = DecoderOptions {
        start,
        followed: vec![followed(&db)],
        types: Arc::new(no_types()),
        xid_reference: Xid(3),
        caps: BatchCaps::default(),
    };
    let (stream, acknowledge) = client
        .start("rollcall", "rollcall", decoder, StreamOptions::default())
        .await
        .unwrap();
    let mut log = Log {
        stream,
        acknowledge,
    };
    assert_eq!(log.changes(1).await.0, ["Insert#0 new(1)"]);
    log.close().await;
    carrier.await.unwrap().unwrap();

    let tcp = TcpStream::connect(("127.0.0.1", db.port())).await.unwrap();
    let mut client = ReplicationClient::over(tcp, &config).await.unwrap();
    let system = client.identify_system().await.unwrap();
    assert_eq!(system.system_id, start.system_id);
}

#[tokio::test]
async fn a_promoted_standby_names_where_the_old_timeline_ended() {
    let primary = with_table(PgVersion::Debian, "id int PRIMARY KEY");
    let standby = primary.basebackup_standby().unwrap();
    let before: Lsn = primary.current_lsn().unwrap().parse().unwrap();
    standby.promote().unwrap();
    let mut client = ReplicationClient::connect(&config(&standby)).await.unwrap();
    let system = client.identify_system().await.unwrap();
    assert_eq!(system.timeline, 2);
    let history = client.timeline_history(2).await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].timeline, 1);
    assert!(history[0].at > Lsn::ZERO && history[0].at <= system.flushed.max(before));
}
