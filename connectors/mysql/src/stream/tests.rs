#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

use std::sync::Arc;
use std::time::Duration;

use rollcall_contract::ChangeStream;
use tokio::io::AsyncWriteExt;

use super::{MySqlStream, Shared, StreamOptions};
use crate::decode::tests::{Log, at, decoder, set};
use crate::server::LogMode;

fn options(silence_limit: Duration) -> StreamOptions {
    StreamOptions {
        progress_interval: Duration::from_millis(10),
        silence_limit,
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let mut log = Log::new();
    log.transaction(4, &[1]);
    far.write_all(&log.bytes).await.unwrap();
    let mut stream = MySqlStream::spawn(
        Box::new(near),
        "server".to_owned(),
        decoder(at(set("1-3")), LogMode::MySqlGtid),
        Arc::new(Shared::default()),
        options(Duration::from_millis(50)),
    );
    assert!(stream.next().await.is_ok());
    let error = loop {
        match stream.next().await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.is_transient());
    assert!(error.to_string().contains("silent"), "{error}");
}

#[tokio::test]
async fn a_stream_that_is_closed_ends_while_the_log_goes_on() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let stream = MySqlStream::spawn(
        Box::new(near),
        "server".to_owned(),
        decoder(at(set("1-3")), LogMode::MySqlGtid),
        Arc::new(Shared::default()),
        options(Duration::from_secs(60)),
    );
    let writing = tokio::spawn(async move {
        let mut number = 4;
        let mut bytes = Log::new().bytes;
        while far.write_all(&bytes).await.is_ok() {
            let mut log = Log::new();
            log.bytes.clear();
            log.transaction(number, &[1]);
            number += 1;
            bytes = log.bytes;
        }
    });
    let closing = Box::new(stream).close();
    tokio::time::timeout(Duration::from_secs(5), closing)
        .await
        .unwrap();
    writing.await.unwrap();
}
