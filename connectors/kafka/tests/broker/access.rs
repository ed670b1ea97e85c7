//! TLS and log-in.

use rollcall_contract::{ConnectorError, Sink};
use rollcall_kafka::{KafkaConfig, KafkaSink, Material, Sasl, ScramHash, TlsMode};
use rollcall_testbed::{Kafka, SaslMechanism, Tls};

use crate::stand::{config, records, sequences};

async fn start(config: &KafkaConfig) -> Result<(), ConnectorError> {
    let mut sink = KafkaSink::new(config.clone());
    sink.start().await?;
    sink.deliver(records(1..=3)).await?;
    sink.stop().await;
    Ok(())
}

#[tokio::test]
async fn tls_takes_the_right_authority_and_refuses_another() {
    let tls = Tls::for_localhost("rollcall").unwrap();
    let stranger = Tls::for_localhost("rollcall").unwrap();
    let broker = Kafka::builder().tls(&tls, true).unwrap().start().unwrap();
    let mut config = config(&broker, "tls");
    config.tls.mode = TlsMode::VerifyFull;
    config.tls.ca = Some(Material::File(tls.ca()));
    config.tls.cert = Some(Material::File(tls.client_cert()));
    config.tls.key = Some(Material::File(tls.client_key()));
    start(&config).await.unwrap();
    assert_eq!(sequences(&broker, &config.topic), [1, 2, 3]);

    let mut wrong = config.clone();
    wrong.tls.ca = Some(Material::File(stranger.ca()));
    let error = start(&wrong).await.unwrap_err();
    assert_eq!(error.code(), "tls", "{error}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn tls_refuses_a_certificate_made_out_to_another_name_unless_told_otherwise() {
    let tls = Tls::for_names(&["broker.example"], "rollcall").unwrap();
    let broker = Kafka::builder().tls(&tls, false).unwrap().start().unwrap();
    let mut config = config(&broker, "tlsname");
    config.tls.mode = TlsMode::VerifyFull;
    config.tls.ca = Some(Material::File(tls.ca()));
    let error = start(&config).await.unwrap_err();
    assert_eq!(error.code(), "tls", "{error}");
    config.tls.mode = TlsMode::VerifyCa;
    start(&config).await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_definite_and_is_not_repeated_in_the_error() {
    for (mechanism, hash) in [
        (SaslMechanism::Plain, None),
        (SaslMechanism::ScramSha512, Some(ScramHash::Sha512)),
    ] {
        let broker = Kafka::builder()
            .sasl(mechanism, "feed", "right-secret")
            .start()
            .unwrap();
        let sasl = |password: &str| match hash {
            None => Sasl::Plain {
                user: "feed".into(),
                password: password.to_owned().into(),
            },
            Some(hash) => Sasl::Scram {
                hash,
                user: "feed".into(),
                password: password.to_owned().into(),
            },
        };
        let mut config = config(&broker, "sasl");
        config.sasl = Some(sasl("right-secret"));
        start(&config).await.unwrap();
        config.sasl = Some(sasl("wrong-secret"));
        let error = start(&config).await.unwrap_err();
        assert_eq!(error.code(), "authentication_rejected", "{error}");
        assert!(!error.is_transient());
        assert!(!error.to_string().contains("wrong-secret"));
        let printed = format!("{config:?}");
        assert!(!printed.contains("wrong-secret"), "{printed}");
    }
}
