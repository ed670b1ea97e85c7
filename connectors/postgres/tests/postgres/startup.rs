//! Who is let in, over what, and with which sentence if not.

use std::path::PathBuf;
use std::time::Duration;

use rollcall_contract::TableName;
use rollcall_postgres::config::PostgresConfig;
use rollcall_postgres::errors::PgError;
use rollcall_postgres::wire::{ReplicationClient, connect_queries};
use rollcall_testbed::{Postgres, Tls};
use rollcall_transport::{TlsMode, TlsSettings};
use secrecy::SecretString;

const PASSWORD: &str = "marker-password";

fn with_roles(builder: rollcall_testbed::PostgresBuilder) -> Postgres {
    let db = builder.start().unwrap();
    db.psql(
        "postgres",
        &format!(
            "CREATE ROLE follower LOGIN REPLICATION PASSWORD '{PASSWORD}';
             CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}';
             SET password_encryption = 'md5'; CREATE ROLE old LOGIN REPLICATION PASSWORD '{PASSWORD}';"
        ),
    )
    .unwrap();
    db
}

fn over_tcp(db: &Postgres, user: &str) -> PostgresConfig {
    let table = TableName::new("public", "people");
    let mut config = PostgresConfig::new("127.0.0.1", "postgres", user, table);
    config.port = db.port();
    config.password = Some(SecretString::from(PASSWORD));
    config
}

fn tls(mode: TlsMode, ca: Option<PathBuf>) -> TlsSettings {
    TlsSettings {
        ca_file: ca,
        ..TlsSettings::new(mode)
    }
}

/// Both kinds of connection, which must agree.
async fn both(config: &PostgresConfig) -> Result<(), PgError> {
    let replication = ReplicationClient::connect(config).await;
    let queries = connect_queries(config).await;
    match (replication, queries) {
        (Ok(mut client), Ok(queries)) => {
            client.identify_system().await?;
            queries.simple_query("SELECT 1").await.unwrap();
            Ok(())
        }
        (Err(one), Err(other)) => {
            assert_eq!(one.error.code(), other.error.code(), "{one}\n{other}");
            assert_eq!(one.error.is_transient(), other.error.is_transient());
            for text in [one.to_string(), other.to_string()] {
                assert!(!text.contains("marker"), "{text}");
            }
            Err(one)
        }
        (one, other) => panic!("{:?} {:?}", one.err(), other.err()),
    }
}

async fn code(config: &PostgresConfig) -> &'static str {
    let error = both(config).await.unwrap_err().error;
    assert!(!error.is_transient(), "{error}");
    error.code()
}

#[tokio::test]
async fn the_right_password_opens_and_every_wrong_one_has_its_sentence() {
    let db = with_roles(
        Postgres::builder()
            .hba("host all old 127.0.0.1/32 md5")
            .password_auth(),
    );
    let good = over_tcp(&db, "follower");
    both(&good).await.unwrap();
    both(&over_tcp(&db, "old")).await.unwrap();

    let mut config = good.clone();
    config.password = Some(SecretString::from("marker-wrong"));
    assert_eq!(code(&config).await, "password_rejected");
    config.user = "nobody".to_owned();
    assert_eq!(code(&config).await, "password_rejected");
    let mut config = good.clone();
    config.database = "nowhere".to_owned();
    assert_eq!(code(&config).await, "no_such_database");
    let mut config = good.clone();
    config.password = None;
    let error = ReplicationClient::connect(&config).await.err().unwrap();
    assert_eq!(error.error.code(), "password_missing");
    let error = ReplicationClient::connect(&over_tcp(&db, "reader")).await;
    assert_eq!(error.err().unwrap().error.code(), "missing_grant");
    db.set_hba(&["local all all trust"]).unwrap();
    assert_eq!(code(&good).await, "not_authorized");
    let mut config = good.clone();
    config.host = "::1".to_owned();
    config.port = rollcall_testbed::free_port().unwrap();
    let error = both(&config).await.unwrap_err().error;
    assert_eq!(
        (error.code(), error.is_transient()),
        ("connection_lost", true)
    );
}

#[tokio::test]
async fn a_password_never_travels_in_clear_over_a_network() {
    let db = with_roles(
        Postgres::builder()
            .hba("host all all 127.0.0.1/32 password")
            .hba("local all follower password")
            .tls(true),
    );
    let mut config = over_tcp(&db, "follower");
    let error = ReplicationClient::connect(&config).await.err().unwrap();
    assert_eq!(error.error.code(), "password_in_clear");
    config.tls = tls(TlsMode::Require, None);
    both(&config).await.unwrap();
    config.host = db.socket_dir().display().to_string();
    both(&config).await.unwrap();
}

#[tokio::test]
async fn tls_accepts_what_its_mode_allows_and_nothing_else() {
    let ours = Tls::for_localhost("follower").unwrap();
    let elsewhere = Tls::for_names(&["db.example.org"], "follower").unwrap();
    let db = with_roles(Postgres::builder().password_auth().tls_with(&ours).unwrap());
    let mut config = over_tcp(&db, "follower");
    // With SCRAM the exchange is bound to this certificate.
    for (mode, ca) in [
        (TlsMode::Require, None),
        (TlsMode::VerifyCa, Some(ours.ca())),
        (TlsMode::VerifyFull, Some(ours.ca())),
    ] {
        config.tls = tls(mode, ca);
        both(&config).await.unwrap();
    }
    for mode in [TlsMode::VerifyCa, TlsMode::VerifyFull] {
        config.tls = tls(mode, Some(elsewhere.ca()));
        assert_eq!(code(&config).await, "tls_unknown_authority");
    }
    config.tls = tls(TlsMode::VerifyFull, Some(PathBuf::from("/nowhere/ca.pem")));
    assert_eq!(code(&config).await, "tls_file");
    config.tls = tls(TlsMode::VerifyFull, Some(ours.server_key()));
    assert_eq!(code(&config).await, "tls_file");

    let misnamed = with_roles(
        Postgres::builder()
            .password_auth()
            .tls_with(&elsewhere)
            .unwrap(),
    );
    let mut config = over_tcp(&misnamed, "follower");
    config.tls = tls(TlsMode::VerifyCa, Some(elsewhere.ca()));
    both(&config).await.unwrap();
    config.tls.mode = TlsMode::VerifyFull;
    assert_eq!(code(&config).await, "tls_wrong_name");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_when_tls_is_asked_for() {
    let db = with_roles(Postgres::builder());
    let mut config = over_tcp(&db, "follower");
    config.tls = tls(TlsMode::Require, None);
    let error = ReplicationClient::connect(&config).await.err().unwrap();
    assert_eq!(error.error.code(), "tls_not_offered");
    assert!(!error.error.is_transient());
    assert!(connect_queries(&config).await.is_err());
}

#[tokio::test]
async fn a_client_certificate_takes_the_place_of_a_password() {
    let ours = Tls::for_localhost("follower").unwrap();
    let db = with_roles(
        Postgres::builder()
            .hba("hostssl all all 127.0.0.1/32 cert")
            .tls_with(&ours)
            .unwrap(),
    );
    let mut config = over_tcp(&db, "follower");
    config.password = None;
    config.tls = TlsSettings {
        mode: TlsMode::VerifyFull,
        ca_file: Some(ours.ca()),
        cert_file: Some(ours.client_cert()),
        key_file: Some(ours.client_key()),
    };
    both(&config).await.unwrap();
    config.user = "old".to_owned();
    assert_eq!(code(&config).await, "not_authorized");
    config.tls.key_file = None;
    assert_eq!(code(&config).await, "tls_client_certificate");
}

#[tokio::test]
async fn full_slots_and_a_host_that_does_not_answer_say_so() {
    let db = Postgres::builder()
        .setting("max_replication_slots", "1")
        .start()
        .unwrap();
    let config = crate::server::config(&db);
    let mut client = ReplicationClient::connect(&config).await.unwrap();
    client
        .create_slot("one", crate::server::SLOT)
        .await
        .unwrap();
    let full = client
        .create_slot("two", crate::server::SLOT)
        .await
        .unwrap_err();
    assert_eq!(full.error.code(), "slots_full");

    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = over_tcp(&db, "follower");
    config.port = mute.local_addr().unwrap().port();
    config.connect_timeout = Duration::from_millis(200);
    let error = ReplicationClient::connect(&config).await.err().unwrap();
    assert_eq!(error.error.code(), "connect_timeout");
    assert!(error.error.is_transient());
}
