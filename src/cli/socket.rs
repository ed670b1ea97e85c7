//! Asking the running daemon over its Unix socket.

use std::io;
use std::path::Path;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;

use super::exit::{Exit, Failure};
use crate::api::orders::PLAN_MAX_BYTES;

/// Reads from the daemon; `None` when none is running.
///
/// # Errors
/// When a daemon runs and does not answer as expected.
pub(super) fn get<T: serde::de::DeserializeOwned>(
    socket: &Path,
    path: &str,
) -> Result<Option<T>, Failure> {
    request(socket, Method::GET, path, Bytes::new())
}

/// Has the daemon do something.
///
/// # Errors
/// When none is running, or it does not answer as expected.
pub(super) fn post<T: serde::de::DeserializeOwned>(
    socket: &Path,
    path: &str,
) -> Result<T, Failure> {
    request(socket, Method::POST, path, Bytes::new())?.ok_or_else(|| nobody(socket))
}

/// Has the daemon do something with what it is given.
///
/// # Errors
/// As [`post`].
pub(super) fn post_json<T: serde::de::DeserializeOwned>(
    socket: &Path,
    path: &str,
    body: &impl serde::Serialize,
) -> Result<T, Failure> {
    let body = serde_json::to_vec(body).map_err(io::Error::from)?;
    if body.len() > PLAN_MAX_BYTES {
        let sentence = format!(
            "the plan has more than {} MiB, which is more than the daemon takes. Fix: make a plan of fewer changes",
            PLAN_MAX_BYTES >> 20
        );
        return Err(Failure::new(Exit::Failed, sentence));
    }
    request(socket, Method::POST, path, body.into())?.ok_or_else(|| nobody(socket))
}

/// A part of a path, whatever it holds.
pub(super) fn part(text: &str) -> String {
    let mut part = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                part.push(char::from(byte));
            }
            _ => part.push_str(&format!("%{byte:02X}")),
        }
    }
    part
}

fn nobody(socket: &Path) -> Failure {
    let sentence = format!(
        "no daemon runs behind {}; this command changes something and needs one. Fix: start `rollcall run`",
        socket.display()
    );
    Failure::new(Exit::NotRunning, sentence)
}

fn request<T: serde::de::DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Option<T>, Failure> {
    super::runtime()?.block_on(async {
        let stream = match tokio::net::UnixStream::connect(socket).await {
            Ok(stream) => stream,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(e) => {
                let sentence = format!(
                    "the daemon's socket {} cannot be used: {e}",
                    socket.display()
                );
                return Err(Failure::new(Exit::Failed, sentence));
            }
        };
        let (status, answer) = ask(stream, method, path, body).await.map_err(|e| {
            Failure::new(
                Exit::Failed,
                format!("the daemon behind {} did not answer: {e}", socket.display()),
            )
        })?;
        if !status.is_success() {
            return Err(refusal(status, &answer));
        }
        serde_json::from_slice(&answer).map(Some).map_err(|_| {
            Failure::new(
                Exit::Failed,
                "the daemon answered in another form; is it of another version?",
            )
        })
    })
}

/// What the daemon said in place of an answer: its own sentence, when it gave one.
fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    let exit = match status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Exit::Usage,
        StatusCode::NOT_FOUND => Exit::NotFound,
        _ => Exit::Failed,
    };
    let said = serde_json::from_slice::<serde_json::Value>(body).ok();
    let sentence = match said.as_ref().and_then(|said| said["error"].as_str()) {
        Some(sentence) => sentence.to_owned(),
        None => format!("the daemon answered {status}"),
    };
    Failure::new(exit, sentence)
}

async fn ask(
    stream: tokio::net::UnixStream,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error>> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "rollcall")
        .header("content-type", "application/json")
        .body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_what_the_daemon_said() {
        let body = br#"{"error":"The key of the table has 2 columns."}"#;
        let refused = refusal(StatusCode::UNPROCESSABLE_ENTITY, body);
        assert_eq!(refused.sentence, "The key of the table has 2 columns.");
        assert_eq!(refused.exit, Exit::Usage);
        assert_eq!(refusal(StatusCode::NOT_FOUND, b"").exit, Exit::NotFound);
        let busy = refusal(StatusCode::SERVICE_UNAVAILABLE, b"");
        assert_eq!(busy.exit, Exit::Failed);
        assert_eq!(busy.sentence, "the daemon answered 503 Service Unavailable");
    }
}
