//! Private Apache Kafka brokers.

use rollcall_testbed::{Kafka, Result, SaslMechanism, TestbedError, Tls};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";

fn topics(kafka: &Kafka) -> Result<String> {
    kafka.tool(
        TOPICS,
        &["--bootstrap-server", &kafka.bootstrap(), "--list"],
    )
}

/// Lists topics over the clients' own listener with these client properties.
fn topics_as(kafka: &Kafka, properties: &str) -> Result<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("client.properties");
    let quick = "default.api.timeout.ms=8000\nrequest.timeout.ms=4000\n";
    std::fs::write(&file, format!("{quick}{properties}")).unwrap();
    kafka.tool(
        TOPICS,
        &[
            "--bootstrap-server",
            &kafka.bootstrap(),
            "--command-config",
            file.to_str().unwrap(),
            "--list",
        ],
    )
}

#[test]
fn a_broker_stops_is_killed_and_comes_back_with_its_topics_at_its_address() {
    let kafka = Kafka::builder()
        .property("message.max.bytes", "2000")
        .start()
        .unwrap();
    let bootstrap = kafka.bootstrap();
    kafka
        .create_topic("events", 3, &[("cleanup.policy", "compact")])
        .unwrap();
    kafka.stop().unwrap();
    assert!(matches!(kafka.stop(), Err(TestbedError::State(_))));
    assert!(std::net::TcpStream::connect(&bootstrap).is_err());
    kafka.start_again().unwrap();
    assert_eq!(topics(&kafka).unwrap(), "events");
    kafka.kill9();
    kafka.start_again().unwrap();
    assert_eq!(kafka.bootstrap(), bootstrap);
    assert_eq!(topics(&kafka).unwrap(), "events");
}

/// A broker whose clients log in: the right password is let in, a wrong one not.
fn refuses_a_wrong_password(mechanism: SaslMechanism, module: &str) {
    let kafka = Kafka::builder()
        .sasl(mechanism, "alice", "right")
        .start()
        .unwrap();
    kafka.create_topic("events", 1, &[]).unwrap();
    let login = |password: &str| {
        format!(
            "security.protocol=SASL_PLAINTEXT\nsasl.mechanism={}\n\
             sasl.jaas.config=org.apache.kafka.common.security.{module} required \
             username=\"alice\" password=\"{password}\";\n",
            mechanism.name()
        )
    };
    assert_eq!(topics_as(&kafka, &login("right")).unwrap(), "events");
    let error = topics_as(&kafka, &login("wrong")).unwrap_err().to_string();
    assert!(error.contains("Authentication failed"), "{error}");
}

#[test]
fn a_client_with_the_wrong_plain_password_is_refused() {
    refuses_a_wrong_password(SaslMechanism::Plain, "plain.PlainLoginModule");
}

#[test]
fn a_client_with_the_wrong_scram_password_is_refused() {
    refuses_a_wrong_password(SaslMechanism::ScramSha256, "scram.ScramLoginModule");
}

#[test]
fn a_broker_that_does_not_start_shows_its_own_log() {
    let error = Kafka::builder()
        .property("num.io.threads", "0")
        .start()
        .unwrap_err();
    assert!(error.to_string().contains("num.io.threads"), "{error}");
}

#[test]
fn a_broker_with_tls_is_trusted_only_from_the_right_authority() {
    let tls = Tls::for_localhost("rollcall").unwrap();
    let stranger = Tls::for_localhost("rollcall").unwrap();
    let kafka = Kafka::builder().tls(&tls, false).unwrap().start().unwrap();
    kafka.create_topic("events", 1, &[]).unwrap();
    let trust = |tls: &Tls| {
        format!(
            "security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location={}\n",
            tls.ca().display()
        )
    };
    assert_eq!(topics_as(&kafka, &trust(&tls)).unwrap(), "events");
    let error = topics_as(&kafka, &trust(&stranger))
        .unwrap_err()
        .to_string();
    assert!(error.contains("SSL handshake failed"), "{error}");
}
