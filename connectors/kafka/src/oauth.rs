//! Bearer tokens for SASL OAUTHBEARER.
//!
//! librdkafka can fetch tokens itself (OIDC) only when it is built with libcurl, which this
//! daemon is not. So a token is handed over: in a file that something else keeps fresh (a
//! projected service-account token, an agent), read again each time librdkafka asks, which
//! it does at 80 % of the token's life.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rdkafka::client::OAuthToken;
use secrecy::{ExposeSecret, SecretString};

/// Where the bearer token comes from.
#[derive(Clone, Debug)]
pub enum OauthToken {
    /// A file, read again for every refresh.
    File(PathBuf),
    /// One token for the life of the process.
    Fixed(SecretString),
}

/// Life of a token that does not say when it ends.
const OPAQUE_LIFE: Duration = Duration::from_secs(300);

impl OauthToken {
    pub(crate) fn read(&self) -> Result<OAuthToken, Box<dyn Error>> {
        match self {
            OauthToken::Fixed(token) => Ok(describe(token.expose_secret().trim())),
            OauthToken::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|e| format!("the token file {} can't be read: {e}", path.display()))?;
                Ok(describe(text.trim()))
            }
        }
    }
}

/// Subject and end of a JWT (RFC 7519); an opaque token has neither.
fn describe(token: &str) -> OAuthToken {
    let claims: Option<serde_json::Value> = token
        .split('.')
        .nth(1)
        .and_then(|part| {
            BASE64_URL_SAFE_NO_PAD
                .decode(part.trim_end_matches('='))
                .ok()
        })
        .and_then(|json| serde_json::from_slice(&json).ok());
    let claim = |name: &str| claims.as_ref().and_then(|claims| claims.get(name));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, reason = "seconds of an era")]
    let lifetime_ms = claim("exp")
        .and_then(serde_json::Value::as_f64)
        .map_or((now + OPAQUE_LIFE).as_millis() as i64, |exp| {
            (exp * 1_000.0) as i64
        });
    OAuthToken {
        token: token.to_owned(),
        principal_name: claim("sub")
            .and_then(serde_json::Value::as_str)
            .unwrap_or("rollcall")
            .to_owned(),
        lifetime_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jwt_says_whose_it_is_and_when_it_ends() {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"sub":"feed","exp":1900000000}"#);
        let token = describe(&format!("e30.{claims}.c2ln"));
        assert_eq!(token.principal_name, "feed");
        assert_eq!(token.lifetime_ms, 1_900_000_000_000);
        assert_eq!(describe("opaque").principal_name, "rollcall");
    }
}
