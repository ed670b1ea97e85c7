//! Liveness and readiness.
//!
//! Alive: the process answers. Ready: every source streams, or loads for the first time, and
//! is not stalled. A source that is refused, waits for its server, or whose log is about
//! to be lost makes the daemon not ready, with the sentence that says why. A sink that is
//! gone does not: the outbox keeps its events.

use crate::daemon::Shared;

/// One thing that keeps the daemon from being ready.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Obstacle {
    /// Which source.
    pub source: String,
    /// The sentence.
    pub reason: String,
}

/// A source that has not taken in a change for so long, although its log is ahead, is
/// stalled.
const STALLED_SECONDS: f64 = 60.0;

/// What keeps the daemon from being ready; empty when it is.
pub fn obstacles(shared: &Shared) -> Vec<Obstacle> {
    let mut found = Vec::new();
    for source in &shared.sources {
        let live = source.live.snapshot();
        let mut say = |reason: String| {
            found.push(Obstacle {
                source: source.name.clone(),
                reason,
            })
        };
        match live.state.as_str() {
            "streaming" | "polling" | "scanning" => {}
            "" => say("The source was not started yet.".to_owned()),
            state if live.reason.is_empty() => say(format!("The source is {state}.")),
            state => say(format!("The source is {state}: {}", live.reason)),
        }
        let lag = source.lag_seconds(&live);
        if live.state == "streaming" && lag > STALLED_SECONDS {
            say(format!(
                "Replication is stalled: the last change taken in was committed {lag:.0} s ago."
            ));
        }
    }
    found
}
