//! What Prometheus and orchestrators ask over TCP.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rollcall_testbed::wait_for;

use crate::company::{hire, hire_all};
use crate::sources::{POSTGRES, SourceKind, every_source};
use crate::world::{Options, PATIENCE, World};

every_source!(readyz_livez_and_metrics_tell_over_tcp_how_it_goes);

/// Status code and body of a GET.
pub(crate) fn get(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: rollcall\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let code = answer
        .split(' ')
        .nth(1)
        .and_then(|c| c.parse().ok())
        .unwrap();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (code, body.to_owned())
}

fn ready(port: u16, code: u16) -> String {
    wait_for(PATIENCE, "readiness to change", || {
        match get(port, "/readyz") {
            (found, body) if found == code => Ok(body),
            (found, body) => Err(format!("{found} {body}")),
        }
    })
    .unwrap()
}

fn readyz_livez_and_metrics_tell_over_tcp_how_it_goes(kind: &SourceKind) {
    let port = rollcall_testbed::free_port().unwrap();
    let api = format!("[api]\nlisten = \"127.0.0.1:{port}\"\n");
    let world = World::new(kind, &Options::default().and(&api));
    world.db.sql(&hire_all(25));
    let daemon = world.streaming();
    daemon.settle();
    assert_eq!(get(port, "/livez").0, 200);
    ready(port, 200);
    let (code, metrics) = get(port, "/metrics");
    assert_eq!(code, 200);
    for name in [
        "rollcall_changes_total{source=\"hr\",outcome=\"errored\",reason=\"bad_value\"} 0",
        "rollcall_source_gaps_total{source=\"hr\",reason=\"position_lost\"} 0",
        "rollcall_commit_to_store_seconds",
        "rollcall_commit_to_delivered_seconds",
        "rollcall_delivered_total",
        "rollcall_source_lag_bytes",
        "rollcall_source_lag_seconds",
        "rollcall_source_state",
        "rollcall_source_gaps_open",
        "rollcall_queued_bytes",
        "rollcall_users",
        "rollcall_outbox_head_position",
        "rollcall_sink_position",
    ] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
    assert_eq!(
        metrics.contains("rollcall_source_retained_wal_bytes"),
        kind.keeps_log_for_readers,
        "{metrics}"
    );
    assert!(
        metrics.contains("rollcall_users{active=\"true\"} 26"),
        "{metrics}"
    );
    // Only health and metrics are there for everybody.
    assert_eq!(get(port, "/v1/status").0, 404);

    world.db.stop();
    let why = ready(port, 503);
    assert!(why.contains("\"hr\"") && why.len() > 30, "{why}");
    assert_eq!(get(port, "/livez").0, 200, "alive, though not ready");
    world.db.start_again();
    ready(port, 200);
    world.db.sql(&hire(500));
    daemon.settle();
    world.assert_equal();
}

#[test]
fn the_socket_belongs_to_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new(&POSTGRES, &Options::default());
    let _daemon = world.streaming();
    let socket = world.store().join("rollcall.sock");
    let mode = std::fs::metadata(socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for entry in std::fs::read_dir(world.store()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(
            mode & 0o077,
            0,
            "{} is open to others",
            entry.path().display()
        );
    }
}
