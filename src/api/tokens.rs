//! Bearer tokens: who may ask over TCP.
//!
//! Only hashes of tokens are kept. A token that comes is hashed and compared with each of
//! them in a time that does not depend on where they differ or on which one it is, and what
//! is answered to a wrong one is the same whatever is wrong with it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::config::TokenConfig;

/// Everybody who may ask.
pub struct Tokens(Vec<Token>);

struct Token {
    name: String,
    hash: [u8; 32],
    per_minute: u32,
    left: Mutex<Left>,
}

/// Requests that may still come, and since when; they come back evenly.
struct Left {
    requests: f64,
    at: Instant,
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It has no token that is known.
    Unknown,
    /// Its token was used too often: try again after this.
    TooMany(Duration),
}

impl Tokens {
    /// These tokens, none of them used yet.
    pub fn new(configured: &[TokenConfig]) -> Tokens {
        let now = Instant::now();
        let token = |token: &TokenConfig| Token {
            name: token.name.clone(),
            hash: Sha256::digest(token.secret.expose_secret()).into(),
            per_minute: token.per_minute,
            left: Mutex::new(Left {
                requests: f64::from(token.per_minute),
                at: now,
            }),
        };
        Tokens(configured.iter().map(token).collect())
    }

    /// Whether nobody may ask.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets a request with this `Authorization` header in at one moment; gives the name of
    /// its token.
    ///
    /// # Errors
    /// When the token is not known, or was used too often.
    pub fn admit(&self, header: Option<&[u8]>, now: Instant) -> Result<&str, Denied> {
        let given = header
            .and_then(|h| h.split_at_checked(7))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
            .map_or(&b""[..], |(_, token)| token);
        let hash: [u8; 32] = Sha256::digest(given).into();
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.hash.ct_eq(&hash)) {
                found = Some(token);
            }
        }
        let token = found.ok_or(Denied::Unknown)?;
        token.take_one(now)?;
        Ok(&token.name)
    }
}

impl Token {
    fn take_one(&self, now: Instant) -> Result<(), Denied> {
        let most = f64::from(self.per_minute);
        let per_second = most / 60.0;
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(left.at).as_secs_f64();
        left.requests = (left.requests + since * per_second).min(most);
        left.at = now;
        if left.requests < 1.0 {
            let wait = (1.0 - left.requests) / per_second;
            return Err(Denied::TooMany(Duration::from_secs_f64(wait)));
        }
        left.requests -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        let token = |name: &str, secret: &str, per_minute| TokenConfig {
            name: name.to_owned(),
            secret: secret.into(),
            per_minute,
        };
        Tokens::new(&[token("ci", "first-token", 2), token("hr", "second", 60)])
    }

    #[test]
    fn only_a_whole_known_token_lets_in() {
        let (tokens, now) = (tokens(), Instant::now());
        let admit = |header: &[u8]| tokens.admit(Some(header), now);
        assert_eq!(admit(b"Bearer first-token"), Ok("ci"));
        assert_eq!(admit(b"bearer second"), Ok("hr"));
        assert_eq!(tokens.admit(None, now), Err(Denied::Unknown));
        for wrong in [
            &b"first-token"[..],
            b"Bearer",
            b"Bearer ",
            b"Bearer first",
            b"Basic second",
            b"Bearer first-token ",
            b"Bearer \xff",
        ] {
            assert_eq!(admit(wrong), Err(Denied::Unknown), "{wrong:?}");
        }
        assert_eq!(
            Tokens::new(&[]).admit(Some(b"Bearer "), now),
            Err(Denied::Unknown)
        );
    }

    #[test]
    fn a_token_that_is_used_too_often_waits_and_the_others_do_not() {
        let (tokens, now) = (tokens(), Instant::now());
        let ci = |at| tokens.admit(Some(b"Bearer first-token"), at);
        assert!(ci(now).is_ok() && ci(now).is_ok());
        assert_eq!(ci(now), Err(Denied::TooMany(Duration::from_secs(30))));
        assert!(tokens.admit(Some(b"Bearer second"), now).is_ok());
        assert!(ci(now + Duration::from_secs(30)).is_ok());
    }
}
