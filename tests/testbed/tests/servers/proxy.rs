//! The fault proxy, in front of an echo server and of PostgreSQL.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rollcall_testbed::{Postgres, Proxy};

/// Echoes what every client sends, until the test ends.
fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut reader, &mut &stream);
            });
        }
    });
    address
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

fn round_trip(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(bytes)?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back)?;
    Ok(back)
}

#[test]
fn a_cut_ends_connections_and_new_ones_are_served() {
    let proxy = Proxy::start(&echo()).unwrap();
    let mut stream = connect(&proxy);
    assert_eq!(round_trip(&mut stream, b"hello").unwrap(), b"hello");
    proxy.cut();
    assert!(round_trip(&mut stream, b"again").is_err());
    assert_eq!(round_trip(&mut connect(&proxy), b"new").unwrap(), b"new");
    assert_eq!((proxy.connections(), proxy.bytes_to_client()), (2, 8));
}

#[test]
fn a_paused_proxy_is_silent_and_loses_nothing() {
    let proxy = Proxy::start(&echo()).unwrap();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, b"warm").unwrap();
    proxy.pause();
    stream.write_all(b"late").unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut back = [0; 4];
    assert!(stream.read(&mut back).is_err());
    proxy.resume();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"late");
}

#[test]
fn a_refusing_proxy_keeps_what_is_open() {
    let proxy = Proxy::start(&echo()).unwrap();
    let mut open = connect(&proxy);
    round_trip(&mut open, b"warm").unwrap();
    proxy.refuse(true);
    assert!(round_trip(&mut connect(&proxy), b"no").is_err());
    assert_eq!(round_trip(&mut open, b"yes").unwrap(), b"yes");
    proxy.refuse(false);
    assert_eq!(round_trip(&mut connect(&proxy), b"yes").unwrap(), b"yes");
}

#[test]
fn a_cut_after_bytes_is_at_that_byte_and_only_once() {
    let proxy = Proxy::start(&echo()).unwrap();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, b"warm").unwrap();
    proxy.cut_after_bytes(1_000);
    let sender = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        let _ = (&sender).write_all(&[b'x'; 100_000]);
    });
    let mut got = 0;
    let mut buffer = [0; 4_096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        got += n;
    }
    assert_eq!(got, 1_000);
    assert_eq!(
        round_trip(&mut connect(&proxy), &[b'y'; 5_000])
            .unwrap()
            .len(),
        5_000
    );
}

#[test]
fn latency_is_added_in_both_directions() {
    let proxy = Proxy::start(&echo()).unwrap();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, b"warm").unwrap();
    proxy.latency(Duration::from_millis(60));
    let start = Instant::now();
    round_trip(&mut stream, b"slow").unwrap();
    assert!(start.elapsed() >= Duration::from_millis(120));
}

#[test]
fn postgresql_works_through_it() {
    let db = Postgres::builder().start().unwrap();
    let proxy = Proxy::start(&format!("127.0.0.1:{}", db.port())).unwrap();
    let output = std::process::Command::new(db.bin("psql"))
        .args([
            "-X",
            "-A",
            "-t",
            "-w",
            "-c",
            "SELECT count(*) FROM generate_series(1, 100000)",
        ])
        .arg(format!(
            "host=127.0.0.1 port={} user=postgres dbname=postgres sslmode=disable",
            proxy.port()
        ))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "100000");
}
