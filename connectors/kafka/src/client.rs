//! What librdkafka calls back into: logs, errors, tokens, delivery reports.
//!
//! librdkafka goes on trying whatever happens, and says why only in its error callback; the
//! call that waits merely times out. So the last reason is kept, and the timeout is told
//! with it.

use std::sync::{Mutex, PoisonError};

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::types::RDKafkaErrorCode;

use crate::config::{KafkaConfig, Sasl};
use crate::oauth::OauthToken;
use crate::reports::Reports;

/// The context of every client of one sink.
pub(crate) struct Context {
    pub(crate) reports: Reports,
    token: Option<OauthToken>,
    trouble: Mutex<Option<Trouble>>,
}

/// The last thing that librdkafka complained about.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) code: RDKafkaErrorCode,
    pub(crate) reason: String,
}

impl Context {
    pub(crate) fn new(config: &KafkaConfig) -> Self {
        Context {
            reports: Reports::default(),
            token: match &config.sasl {
                Some(Sasl::OauthBearer(token)) => Some(token.clone()),
                _ => None,
            },
            trouble: Mutex::new(None),
        }
    }

    /// The last complaint. One that needs an operator is never covered by a later
    /// "connection refused".
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// After a success: what was complained about before explains no later failure.
    pub(crate) fn forget_trouble(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Trouble {
    /// Whether only an operator can end it. A handshake that broke off may be a broker that
    /// restarts; one that ended with a word about certificates is not.
    pub(crate) fn is_hopeless(&self) -> bool {
        match self.code {
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => true,
            RDKafkaErrorCode::SSL => {
                self.reason.contains("certificate") || self.reason.contains("alert")
            }
            _ => false,
        }
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "rollcall_kafka", facility, "{message}");
            }
            // The call that suffers from it reports it; this is the detail.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::info!(target: "rollcall_kafka", facility, "{message}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "rollcall_kafka", facility, "{message}");
            }
        }
    }

    fn stats_raw(&self, _statistics: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else {
            return;
        };
        tracing::debug!(target: "rollcall_kafka", ?code, "{reason}");
        let trouble = Trouble {
            code,
            reason: reason.to_owned(),
        };
        let mut known = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let covered = known.as_ref().is_some_and(|known| {
            known.is_hopeless() && !trouble.is_hopeless()
                || code == RDKafkaErrorCode::AllBrokersDown
        });
        if !covered {
            *known = Some(trouble);
        }
    }

    fn generate_oauth_token(
        &self,
        _config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        match &self.token {
            Some(token) => token.read(),
            None => Err("the sink has no bearer token".into()),
        }
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        let failure = match result {
            Ok(_) => None,
            Err((error, _)) => Some(
                error
                    .rdkafka_error_code()
                    .unwrap_or(RDKafkaErrorCode::Unknown),
            ),
        };
        self.reports.report(tag, failure);
    }
}
