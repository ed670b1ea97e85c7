//! The two tasks against a server that is played by hand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;

use super::*;
use crate::decode::sample::*;

const SOON: Duration = Duration::from_secs(5);

async fn hear(server: &mut DuplexStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    timeout(SOON, server.read_exact(&mut head))
        .await
        .expect("the server hears nothing")
        .ok()?;
    let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let mut body = vec![0; len - 4];
    server.read_exact(&mut body).await.unwrap();
    Some((head[0], body))
}

async fn hear_status(server: &mut DuplexStream) -> Status {
    let (tag, body) = hear(server).await.expect("the client left");
    assert_eq!((tag, body[0], body.len()), (b'd', b'r', 34));
    let number = |at: usize| u64::from_be_bytes(body[at..at + 8].try_into().unwrap());
    Status(number(1), number(9), number(17), body[33] == 1)
}

struct Played {
    server: DuplexStream,
    stream: PgStream,
    acknowledge: Arc<PgAcknowledge>,
}

fn play(options_of: StreamOptions, cap: usize) -> Played {
    let (client, server) = tokio::io::duplex(1 << 20);
    let mut wanted = options(at(0x100));
    wanted.caps.most_changes = cap;
    let (stream, acknowledge) = PgStream::spawn(
        Box::new(client),
        "server".to_owned(),
        Decoder::new(wanted),
        options_of,
    );
    Played {
        server,
        stream,
        acknowledge,
    }
}

fn quick() -> StreamOptions {
    StreamOptions {
        wal_sender_timeout: Some(Duration::from_millis(100)),
        ..StreamOptions::default()
    }
}

/// What a status says: written, flushed, applied, and whether it asks for an answer.
#[derive(Debug, PartialEq)]
struct Status(u64, u64, u64, bool);

impl Played {
    async fn send(&mut self, frames: &[Vec<u8>]) {
        self.server.write_all(&frames.concat()).await.unwrap();
    }

    async fn status(&mut self) -> Status {
        hear_status(&mut self.server).await
    }

    async fn next(&mut self) -> Result<StreamItem, ConnectorError> {
        timeout(SOON, self.stream.next())
            .await
            .expect("nothing comes")
    }

    async fn batch(&mut self) -> rollcall_contract::Batch {
        match self.next().await.unwrap() {
            StreamItem::Batch(batch) => batch,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn nothing_is_confirmed_before_it_is_acknowledged() {
    let mut played = play(quick(), 100);
    played
        .send(&[begin(0x200, 1), people(), insert("1"), commit(0x200, 0x230)])
        .await;
    let batch = played.batch().await;
    assert_eq!((batch.len(), batch.cursor().text()), (1, "0/230"));
    played.send(&[keepalive(0x500, false)]).await;
    let mut status = played.status().await;
    while status.0 < 0x500 {
        status = played.status().await;
    }
    assert_eq!(status, Status(0x500, 0x100, 0x100, true));
    played.acknowledge.acknowledge(batch.cursor());
    // An older acknowledgement never moves it back.
    played.acknowledge.acknowledge(&at(0x180).encode());
    while status.1 == 0x100 {
        status = played.status().await;
    }
    assert_eq!(status, Status(0x500, 0x230, 0x230, true));
}

#[tokio::test]
async fn a_server_that_asks_is_answered_at_once() {
    let mut played = play(StreamOptions::default(), 100);
    played.send(&[keepalive(0x180, true)]).await;
    let asked = tokio::time::Instant::now();
    assert_eq!(played.status().await, Status(0x180, 0x100, 0x100, false));
    assert!(asked.elapsed() < Duration::from_millis(500));
}

#[tokio::test]
async fn whoever_hurries_learns_the_position_of_an_idle_server() {
    let mut played = play(StreamOptions::default(), 100);
    played.acknowledge.hurry();
    let asked = tokio::time::Instant::now();
    assert!(played.status().await.3);
    played.send(&[keepalive(0x900, false)]).await;
    match played.next().await.unwrap() {
        StreamItem::Progress(cursor) => assert_eq!(cursor.text(), "0/900"),
        other => panic!("{other:?}"),
    }
    assert!(asked.elapsed() < Duration::from_millis(700));
    // It is asked again, since what is waited for may not be flushed yet.
    assert!(played.status().await.3);
    assert!(played.status().await.3);
}

#[tokio::test]
async fn an_idle_log_moves_on_without_a_flood() {
    let mut options = quick();
    options.progress_interval = Duration::from_millis(200);
    let mut played = play(options, 100);
    let begun = tokio::time::Instant::now();
    for i in 0..60u64 {
        played.send(&[keepalive(0x200 + i, false)]).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut progressed = 0;
    while let Ok(item) = timeout(Duration::from_millis(50), played.stream.next()).await {
        assert!(matches!(item.unwrap(), StreamItem::Progress(_)));
        progressed += 1;
    }
    let at_most = begun.elapsed().as_millis() / 200 + 1;
    assert!(
        (1..=at_most).contains(&progressed),
        "{progressed} in {:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn batches_grow_while_the_consumer_is_busy_and_stop_at_the_cap() {
    let mut played = play(StreamOptions::default(), 8);
    let mut frames = vec![people()];
    for tx in 1..=12u64 {
        frames.push(begin(0x1000 * tx, tx as u32));
        frames.push(insert("1"));
        frames.push(commit(0x1000 * tx, 0x1000 * tx + 0x10));
    }
    for frame in frames {
        played.send(&[frame]).await;
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 12 {
        sizes.push(played.batch().await.len());
    }
    assert!(
        sizes.len() < 12 && sizes.iter().all(|n| *n <= 8),
        "{sizes:?}"
    );
}

#[tokio::test]
async fn what_was_whole_before_an_error_is_handed_over_first() {
    let mut played = play(StreamOptions::default(), 100);
    let crash = frame(b'E', b"SFATAL\0C57P02\0Mcrash\0\0");
    played
        .send(&[begin(0x200, 1), people(), insert("1"), crash])
        .await;
    assert_eq!(played.batch().await.cursor().text(), "0/100+0/200#1");
    assert_eq!(played.next().await.unwrap_err().code(), "server_crashed");
    assert_eq!(played.next().await.unwrap_err().code(), "stream_ended");
}

#[tokio::test]
async fn a_connection_that_breaks_is_transient() {
    let mut played = play(StreamOptions::default(), 100);
    played.send(&[begin(0x200, 1)]).await;
    played.server.shutdown().await.unwrap();
    let error = played.next().await.unwrap_err();
    assert_eq!(error.code(), "connection_lost");
    assert!(error.is_transient());
}

#[test]
fn a_server_is_asked_as_rarely_as_wanted_and_as_often_as_its_own_time_out_needs() {
    let asked = |timeout_s: Option<u64>, interval_s| {
        let options = StreamOptions {
            wal_sender_timeout: timeout_s.map(Duration::from_secs),
            ask_interval: Duration::from_secs(interval_s),
            ..StreamOptions::default()
        };
        options.status_interval().as_secs()
    };
    assert_eq!(asked(Some(60), 1), 1);
    assert_eq!(asked(Some(60), 4), 4);
    assert_eq!(asked(Some(4), 4), 2);
    assert_eq!(asked(None, 4), 4);
}

#[tokio::test]
async fn a_server_that_is_silent_for_too_long_is_given_up() {
    assert_eq!(
        StreamOptions::default().silence_limit(),
        Duration::from_secs(65)
    );
    let mut options = quick();
    options.patience = Duration::ZERO;
    let mut played = play(options, 100);
    let error = played.next().await.unwrap_err();
    assert_eq!(error.code(), "connection_lost");
    assert!(error.is_transient());
}

#[tokio::test]
async fn closing_confirms_what_is_durable_and_takes_leave() {
    let mut played = play(StreamOptions::default(), 100);
    played
        .send(&[begin(0x200, 1), people(), insert("1"), commit(0x200, 0x230)])
        .await;
    let batch = played.batch().await;
    played.acknowledge.acknowledge(batch.cursor());
    let Played {
        mut server,
        stream,
        acknowledge,
    } = played;
    let closing = tokio::spawn(Box::new(stream).close());
    let last = hear_status(&mut server).await;
    assert_eq!((last.1, last.3), (0x230, false));
    assert_eq!(hear(&mut server).await, Some((b'c', Vec::new())));
    let rest = [
        insert("2"),
        frame(b'c', b""),
        frame(b'C', b"COPY 0\0"),
        frame(b'Z', b"I"),
    ];
    server.write_all(&rest.concat()).await.unwrap();
    assert_eq!(hear(&mut server).await, Some((b'X', Vec::new())));
    assert_eq!(hear(&mut server).await, None);
    timeout(SOON, closing).await.unwrap().unwrap();
    acknowledge.hurry();
}

#[tokio::test]
async fn a_stream_that_is_dropped_ends_its_tasks() {
    let played = play(quick(), 100);
    let Played {
        mut server, stream, ..
    } = played;
    drop(stream);
    // A last status and CopyDone, then nothing: no task holds the socket.
    server.write_all(&frame(b'C', b"COPY 0\0")).await.unwrap();
    let mut rest = Vec::new();
    timeout(SOON, server.read_to_end(&mut rest))
        .await
        .expect("the socket stays open")
        .unwrap();
    assert!(rest.ends_with(&[b'X', 0, 0, 0, 4]));
}
