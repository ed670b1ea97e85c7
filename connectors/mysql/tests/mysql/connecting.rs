//! Getting in: every way to prove an account, TLS in every mode, and refusals that say why.

use std::sync::Arc;

use rollcall_contract::{ConnectorError, Source, TableName};
use rollcall_mysql::{Flavour, MySqlConfig, MySqlSource};
use rollcall_testbed::{MySql, MySqlVersion, Tls};
use rollcall_transport::{TlsMode, TlsSettings};

use crate::bed::{Bed, Reader, config_of, shared};

async fn connects(config: MySqlConfig) -> Result<(), ConnectorError> {
    MySqlSource::new(config).discover().await.map(drop)
}

async fn error_of(config: MySqlConfig) -> String {
    match connects(config).await {
        Ok(()) => "connected".to_owned(),
        Err(error) => error.code().to_owned(),
    }
}

#[tokio::test]
async fn caching_sha2_goes_by_the_rsa_key_and_then_by_the_cache() {
    let server = shared(MySqlVersion::MySql9);
    server
        .create_user("sha2", "it's long; longer than one block of the hash")
        .unwrap();
    let mut config = config_of(&server, "mysql");
    config.user = "sha2".to_owned();
    config.password = Some(
        "it's long; longer than one block of the hash"
            .to_owned()
            .into(),
    );
    // The first proof needs the password, the second one is in the server's cache.
    for _ in 0..2 {
        connects(config.clone()).await.unwrap();
    }
    config.password = Some("wrong".to_owned().into());
    assert_eq!(error_of(config.clone()).await, "password_rejected");
    config.password = None;
    assert_eq!(error_of(config).await, "password_missing");
}

#[tokio::test]
async fn an_account_without_a_password_gets_in() {
    for version in [MySqlVersion::MySql9, MySqlVersion::MariaDb10] {
        let server = shared(version);
        server.sql("CREATE USER open@'%'").unwrap();
        let mut config = config_of(&server, "mysql");
        config.user = "open".to_owned();
        config.password = None;
        connects(config).await.unwrap();
    }
}

#[tokio::test]
async fn mariadb_proves_accounts_by_both_of_its_plugins() {
    let server = shared(MySqlVersion::MariaDb10);
    for plugin in ["mysql_native_password", "ed25519"] {
        let user = format!("by_{plugin}");
        server.create_user_with(&user, plugin, "Geheim-ß").unwrap();
        let mut config = config_of(&server, "mysql");
        config.user = user;
        config.password = Some("Geheim-ß".to_owned().into());
        connects(config.clone()).await.unwrap();
        config.password = Some("wrong".to_owned().into());
        assert_eq!(error_of(config).await, "password_rejected", "{plugin}");
    }
}

#[tokio::test]
async fn a_unix_socket_needs_no_encryption() {
    for version in [MySqlVersion::MySql9, MySqlVersion::MariaDb10] {
        let server = shared(version);
        let mut config = config_of(&server, "mysql");
        config.host = server.socket().display().to_string();
        connects(config).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_asked_of_tls_is_what_is_had() {
    for version in [MySqlVersion::MySql9, MySqlVersion::MariaDb10] {
        let tls = Tls::for_names(&["localhost"], "rollcall").unwrap();
        let server = MySql::builder()
            .version(version)
            .tls_with(&tls)
            .unwrap()
            .start()
            .unwrap();
        crate::bed::account(&server);
        let ca_file = tls.ca();
        let config = |host: &str, mode, ca: bool| {
            let mut config = config_of(&server, "mysql");
            config.host = host.to_owned();
            config.tls = TlsSettings::new(mode);
            config.tls.ca_file = ca.then(|| ca_file.clone());
            config
        };
        for (host, mode, ca, expected) in [
            ("localhost", TlsMode::VerifyFull, true, "connected"),
            ("127.0.0.1", TlsMode::VerifyFull, true, "tls_wrong_name"),
            ("127.0.0.1", TlsMode::VerifyCa, true, "connected"),
            (
                "localhost",
                TlsMode::VerifyFull,
                false,
                "tls_unknown_authority",
            ),
            ("127.0.0.1", TlsMode::Require, false, "connected"),
            ("127.0.0.1", TlsMode::Disable, false, "connected"),
        ] {
            assert_eq!(
                error_of(config(host, mode, ca)).await,
                expected,
                "{version:?} {host} {mode:?}"
            );
        }
        // The log comes the same way.
        let bed = Bed::on(Arc::new(server), "hr", crate::bed::PEOPLE);
        let mut secure = bed.config();
        secure.host = "localhost".to_owned();
        secure.tls = TlsSettings::new(TlsMode::VerifyFull);
        secure.tls.ca_file = Some(ca_file.clone());
        let mut reader = Reader::open(&MySqlSource::new(secure), None).await;
        bed.sql("INSERT INTO people (id) VALUES (1)");
        reader.until_key("1").await;
        reader.close().await;
    }
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to_in_clear() {
    for version in [MySqlVersion::MySql9, MySqlVersion::MariaDb10] {
        let mut config = config_of(&shared(version), "mysql");
        config.tls = TlsSettings::new(TlsMode::Require);
        let code = error_of(config).await;
        // MySQL offers TLS now and then, and hangs up when it is taken at its word.
        assert!(
            ["tls_not_offered", "connection_lost"].contains(&code.as_str()),
            "{version:?}: {code}"
        );
    }
}

#[tokio::test]
async fn the_other_kind_of_server_is_refused() {
    let server = shared(MySqlVersion::MariaDb10);
    let mut config = config_of(&server, "mysql");
    config.flavour = Flavour::MySql;
    config.table = TableName::new("mysql", "user");
    let error = match MySqlSource::new(config).open(None).await {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    };
    assert_eq!(error.code(), "wrong_flavour");
    assert!(error.to_string().contains("type = \"mariadb\""), "{error}");
}

#[tokio::test]
async fn nobody_listening_is_transient() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut config = config_of(&shared(MySqlVersion::MariaDb10), "mysql");
    config.port = port;
    let error = connects(config).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
}
