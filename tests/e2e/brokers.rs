//! The ways to a broker, and what it does not take, through the whole program.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rollcall_testbed::{Kafka, Postgres, SaslMechanism, Tls};
use serde_json::{Value, json};

use crate::company::{hire, hire_all, hire_with};
use crate::fold::{assert_same, expected};
use crate::sources::prepared;
use crate::topic::{broker, read, sink};
use crate::world::{Daemon, Options, World};

fn world(sink: &str) -> World {
    let options = Options::default().and(sink);
    World::on(Arc::new(prepared(Postgres::builder())), &options)
}

fn kafka_in(status: &Value) -> &Value {
    let sinks = status["sinks"].as_array().unwrap();
    sinks.iter().find(|s| s["name"] == "kafka").unwrap()
}

fn until_sink_is(daemon: &Daemon<'_>, state: &str) -> Value {
    daemon.until(&format!("the sink to be {state}"), |status| {
        kafka_in(status)["state"] == state
    })
}

#[test]
fn a_broker_that_wants_tls_and_a_log_in_gets_both_and_a_wrong_password_is_refused() {
    let tls = Tls::for_localhost("rollcall").unwrap();
    let kafka = Kafka::builder()
        .sasl(SaslMechanism::ScramSha512, "feed", "right-secret")
        .tls(&tls, true)
        .unwrap()
        .start()
        .unwrap();
    let password = tls.dir().join("password");
    std::fs::write(&password, "wrong-secret\n").unwrap();
    let secured = format!(
        "{}tls = {{ mode = \"verify-full\", ca = \"{}\", cert = \"{}\", key = \"{}\" }}\n\
         sasl = {{ mechanism = \"SCRAM-SHA-512\", username = \"feed\", password = {{ file = \"{}\" }} }}\n",
        sink(&kafka, "secured"),
        tls.ca().display(),
        tls.client_cert().display(),
        tls.client_key().display(),
        password.display(),
    );
    let world = world(&secured);
    world.db.sql(&hire_all(20));
    let daemon = world.start();
    let status = until_sink_is(&daemon, "refused");
    let reason = kafka_in(&status)["reason"].as_str().unwrap();
    assert!(
        reason.contains("feed") || reason.contains("password"),
        "{reason}"
    );
    assert!(!daemon.process.log().contains("wrong-secret"));
    let checked = world.rollcall(&["check", "kafka"]);
    let said = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(checked.status.code(), Some(4), "{said}");
    assert!(said.contains("authentication_rejected"), "{said}");
    // The sink that is refused holds back neither the source nor the file.
    daemon.until_streaming();
    daemon.stop();

    std::fs::write(&password, "right-secret\n").unwrap();
    let daemon = world.streaming();
    daemon.settle();
    let checked = world.rollcall(&["check", "kafka"]);
    assert!(checked.status.success(), "{checked:?}");
    let events = read(&kafka, "secured");
    events.assert_whole();
    events.assert_once();
    assert_same(&events.fold(), &expected(&world.db.people()));
}

/// A token without a signature (RFC 7519, section 6).
fn token(subject: &str, seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();
    let part = |json: Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let claims = json!({ "sub": subject, "iat": now - 60, "exp": now + seconds });
    format!("{}.{}.", part(json!({ "alg": "none" })), part(claims))
}

#[test]
fn a_bearer_token_from_a_file_opens_the_broker_and_a_fresh_one_takes_its_place() {
    // Whoever is connected has to show a token again after this time.
    let kafka = Kafka::builder()
        .sasl(SaslMechanism::OauthBearer, "rollcall", "")
        .property("connections.max.reauth.ms", "4000")
        .start()
        .unwrap();
    kafka.create_topic("borne", 3, &[]).unwrap();
    let compacted = [("cleanup.policy", "compact")];
    kafka.create_topic("borne.cursors", 1, &compacted).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "not.a.token\n").unwrap();
    let borne = format!(
        "{}sasl = {{ mechanism = \"OAUTHBEARER\", token_file = \"{}\" }}\n",
        sink(&kafka, "borne"),
        file.display()
    );
    let world = world(&borne);
    world.db.sql(&hire_all(20));
    let checked = world.rollcall(&["check", "kafka"]);
    let said = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(checked.status.code(), Some(4), "{said}");
    assert!(said.contains("authentication_rejected"), "{said}");
    assert!(!said.contains("not.a.token"), "{said}");
    // Whoever keeps the file puts a token there that is good for ten seconds, and another
    // one before it ends: nothing is restarted for it.
    std::fs::write(&file, token("rollcall", 10)).unwrap();
    let daemon = world.streaming();
    for round in 0..5 {
        std::fs::write(&file, token("rollcall", 10)).unwrap();
        world.db.sql(&hire(500 + round));
        daemon.settle();
        std::thread::sleep(Duration::from_secs(3));
    }
    daemon.settle();
    let events = read(&kafka, "borne");
    events.assert_whole();
    events.assert_once();
    assert_same(&events.fold(), &expected(&world.db.people()));
    let log = daemon.process.log();
    assert!(!log.contains("eyJ"), "a token is in the log:\n{log}");
}

#[test]
fn a_record_too_large_for_the_broker_is_parked_and_blocks_nobody() {
    let kafka = broker();
    let small = [("max.message.bytes", "20000")];
    kafka.create_topic("parked", 3, &small).unwrap();
    let world = world(&sink(kafka, "parked"));
    world.db.sql(&hire_all(20));
    let daemon = world.streaming();
    daemon.settle();
    // Does not compress: the broker judges what arrives.
    let mut dice = crate::company::Dice(5);
    let noise: String = (0..30_000)
        .map(|_| char::from(b'!' + u8::try_from(dice.below(90)).unwrap()))
        .collect();
    world.db.sql(&hire_with(100, &[("note", &noise)]));
    for id in 101..120 {
        world.db.sql(&hire(id));
    }
    daemon.settle();
    let parked = |status: &Value| kafka_in(status)["parked"].as_u64();
    let status = daemon.until("the refused record to be parked", |s| parked(s) == Some(1));
    assert_eq!(kafka_in(&status)["state"], "delivering", "{status}");
    let mut wanted = expected(&world.db.people());
    let refused = wanted.remove("100").unwrap();
    assert_eq!(refused["custom"]["note"].as_str().unwrap().len(), 30_000);
    assert_same(&read(kafka, "parked").fold(), &wanted);
    // Every other sink has it, and it is said in words without its content.
    world.assert_equal();
    let log = daemon.process.log();
    assert!(log.contains("parked") && log.contains("too_large"), "{log}");
    assert!(!log.contains(&noise[..40]), "{log}");
    daemon.stop();

    let daemon = world.streaming();
    assert_eq!(parked(&daemon.status()), Some(1), "it is still known");
    // The change that makes it short tells what was there before, and is too large as well;
    // each one after it carries the whole person.
    world.db.sql(
        "UPDATE people SET note = 'short' WHERE id = 100;
         UPDATE people SET job_title = 'Seen again' WHERE id = 100;",
    );
    daemon.settle();
    daemon.until("the second refused record", |s| parked(s) == Some(2));
    assert_same(&read(kafka, "parked").fold(), &expected(&world.db.people()));
}
