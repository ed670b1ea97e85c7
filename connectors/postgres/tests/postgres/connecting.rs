//! Each way of not being let in has its sentence.

use std::sync::Arc;

use rollcall_contract::{ConnectorError, Source};
use rollcall_postgres::PostgresSource;
use rollcall_postgres::config::PostgresConfig;
use rollcall_testbed::{Postgres, Tls};
use rollcall_transport::{TlsMode, TlsSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bed::{Bed, PEOPLE, Reader};

async fn error_of(config: PostgresConfig) -> ConnectorError {
    let source = PostgresSource::new(config);
    let report = source.check().await;
    assert!(!report.is_usable());
    let error = source.open(None).await.err().unwrap();
    assert!(
        report.findings.iter().any(|f| f.code == error.code()),
        "{report:?} and {error}"
    );
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_or_database_or_role_is_said() {
    let server = Postgres::builder().password_auth().start().unwrap();
    let bed = Bed::on(Arc::new(server), "passwords", PEOPLE);
    bed.sql("ALTER ROLE rollcall PASSWORD 'right'");
    let with = |password: Option<&str>| {
        let mut config = bed.config();
        config.password = password.map(|p| p.to_owned().into());
        config
    };
    let good = PostgresSource::new(with(Some("right")));
    assert!(good.check().await.is_usable());
    drop(Reader::open(&good, None).await);

    let error = error_of(with(Some("wr0ng-marker"))).await;
    assert_eq!(error.code(), "password_rejected");
    assert!(!error.to_string().contains("wr0ng-marker"));
    let mut config = with(Some("right"));
    config.database = "nowhere".to_owned();
    assert_eq!(error_of(config).await.code(), "no_such_database");
    let mut config = with(Some("right"));
    config.user = "nobody".to_owned();
    assert!(!error_of(config).await.is_transient());
    assert!(!error_of(with(None)).await.is_transient());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_worth_another_try() {
    let mut config = PostgresConfig::new(
        "127.0.0.1",
        "x",
        "x",
        rollcall_contract::TableName::new("public", "people"),
    );
    config.port = rollcall_testbed::free_port().unwrap();
    assert!(error_of(config).await.is_transient());
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_refuses_a_wrong_certificate_and_a_wrong_name() {
    let right = Tls::for_localhost("rollcall").unwrap();
    let stranger = Tls::for_localhost("rollcall").unwrap();
    let server = Postgres::builder()
        .tls_with(&right)
        .unwrap()
        .hba("hostssl all rollcall 127.0.0.1/32 cert")
        .hba("hostnossl all rollcall 127.0.0.1/32 reject")
        .start()
        .unwrap();
    let bed = Bed::on(Arc::new(server), "tls", PEOPLE);
    let with = |mode: TlsMode, ca: &Tls| {
        let mut config = bed.config();
        config.tls = TlsSettings::new(mode);
        config.tls.ca_file = Some(ca.ca());
        config.tls.cert_file = Some(right.client_cert());
        config.tls.key_file = Some(right.client_key());
        config
    };
    let good = PostgresSource::new(with(TlsMode::VerifyFull, &right));
    assert!(good.check().await.is_usable());
    drop(Reader::open(&good, None).await);

    for mode in [TlsMode::VerifyFull, TlsMode::VerifyCa] {
        let error = error_of(with(mode, &stranger)).await;
        assert!(!error.is_transient(), "{error}");
    }
    let error = error_of(with(TlsMode::Disable, &right)).await;
    assert!(!error.is_transient(), "{error}");

    let elsewhere = Tls::for_names(&["db.example.org"], "rollcall").unwrap();
    let server = Postgres::builder()
        .tls_with(&elsewhere)
        .unwrap()
        .start()
        .unwrap();
    let bed = Bed::on(Arc::new(server), "tls", PEOPLE);
    let with = |mode: TlsMode| {
        let mut config = bed.config();
        config.tls = TlsSettings::new(mode);
        config.tls.ca_file = Some(elsewhere.ca());
        config
    };
    let error = error_of(with(TlsMode::VerifyFull)).await;
    assert!(!error.is_transient(), "{error}");
    let report = PostgresSource::new(with(TlsMode::VerifyCa)).check().await;
    assert!(report.is_usable(), "{report:?}");
}

/// A peer that lets everyone in and knows no command of the replication protocol.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_is_refused() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut start = [0; 4096];
                let _ = socket.read(&mut start).await;
                let mut hello = vec![b'R', 0, 0, 0, 8, 0, 0, 0, 0];
                hello.extend([b'S', 0, 0, 0, 25]);
                hello.extend(b"server_version\x0015.1\x00\x00");
                hello.extend([b'Z', 0, 0, 0, 5, b'I']);
                let _ = socket.write_all(&hello).await;
                let _ = socket.read(&mut start).await;
                let fields = b"SERROR\0C42601\0Msyntax error\0\0";
                let mut error = vec![b'E', 0, 0, 0, 4 + fields.len() as u8];
                error.extend(fields);
                error.extend([b'Z', 0, 0, 0, 5, b'I']);
                let _ = socket.write_all(&error).await;
                let _ = socket.read(&mut start).await;
            });
        }
    });
    let mut config = PostgresConfig::new(
        "127.0.0.1",
        "x",
        "x",
        rollcall_contract::TableName::new("public", "people"),
    );
    config.port = port;
    let mut replication = rollcall_postgres::wire::ReplicationClient::connect(&config)
        .await
        .unwrap();
    let error = replication.identify_system().await.unwrap_err();
    assert!(error.to_string().contains("pooler"), "{error}");
}
