//! A destination of events, and all that can go wrong there.
//!
//! It keeps what it was given, and looks at each record as it comes: a position belongs to one
//! event for ever, and where deliveries are transactions nothing comes twice and nothing is left
//! out.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use rollcall_contract::{ConnectorError, Outgoing, Refused, Sink, SinkStart};
use serde_json::Value;

use crate::broken::Broken;
use crate::dice::Dice;

/// How a destination is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// Each answer takes so long.
    Slow(Duration),
    /// Nobody answers.
    Gone,
    /// What is delivered arrives, and the answer is lost.
    Deaf,
}

/// A record that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) sequence: u64,
    pub(crate) body: Option<Value>,
}

/// A destination. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Destination {
    name: &'static str,
    exactly_once: bool,
    state: Arc<Mutex<State>>,
    broken: Broken,
}

struct State {
    mood: Mood,
    dice: Dice,
    /// By position.
    arrived: BTreeMap<u64, Arrived>,
    /// Positions of each id.
    ids: HashMap<String, u64>,
    /// Everything up to here is there, or refused.
    certain: u64,
    refused: BTreeMap<u64, bool>,
    /// Who started last; older ones are shut out.
    instance: u64,
    /// Whether records are refused.
    is_picky: bool,
}

impl Destination {
    pub(crate) fn new(
        name: &'static str,
        exactly_once: bool,
        seed: u64,
        broken: &Broken,
    ) -> Destination {
        Destination {
            name,
            exactly_once,
            state: Arc::new(Mutex::new(State {
                mood: Mood::Well,
                dice: Dice::new(seed),
                arrived: BTreeMap::new(),
                ids: HashMap::new(),
                certain: 0,
                refused: BTreeMap::new(),
                instance: 0,
                is_picky: false,
            })),
            broken: broken.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.state().mood = mood;
    }

    pub(crate) fn set_picky(&self, is_picky: bool) {
        self.state().is_picky = is_picky;
    }

    /// Somebody else starts under the same name.
    pub(crate) fn fence(&self) {
        self.state().instance += 1;
    }

    /// The last position that arrived or was refused.
    pub(crate) fn certain(&self) -> u64 {
        let state = self.state();
        let last = state.arrived.keys().last().copied().unwrap_or(0);
        state.certain.max(last)
    }

    /// What arrived, by position.
    pub(crate) fn arrived(&self) -> BTreeMap<u64, Arrived> {
        self.state().arrived.clone()
    }

    /// Positions that it refused.
    pub(crate) fn refused(&self) -> Vec<u64> {
        self.state().refused.keys().copied().collect()
    }

    pub(crate) fn sink(&self) -> Box<dyn Sink> {
        Box::new(Delivery {
            to: self.clone(),
            instance: 0,
            recovered: Vec::new(),
        })
    }

    async fn answers(&self) -> Result<(), ConnectorError> {
        let (mood, us) = {
            let mut state = self.state();
            (state.mood, state.dice.below(3_000))
        };
        match mood {
            Mood::Slow(wait) => tokio::time::sleep(wait).await,
            _ => tokio::time::sleep(Duration::from_micros(us)).await,
        }
        match self.state().mood {
            Mood::Gone => Err(lost()),
            _ => Ok(()),
        }
    }

    fn take(&self, record: &Outgoing) {
        let header = |name: &str| {
            let found = record.headers.iter().find(|(n, _)| *n == name);
            found.map(|(_, text)| String::from_utf8_lossy(text).into_owned())
        };
        let Some(id) = header("id") else {
            // The tombstone of a deleted user has the position of its event.
            return;
        };
        let arrived = Arrived {
            id: id.clone(),
            kind: header("type").unwrap_or_default(),
            sequence: header("sequence").and_then(|s| s.parse().ok()).unwrap_or(0),
            body: record
                .value
                .as_ref()
                .and_then(|body| serde_json::from_slice(body).ok()),
        };
        if arrived.body.is_none() {
            self.broken
                .say(format!("{}: an event is no JSON", self.name));
        }
        let mut state = self.state();
        if let Some(before) = state.ids.insert(id, record.sequence)
            && before != record.sequence
        {
            self.broken.say(format!(
                "{}: one event ({}) at the positions {before} and {}",
                self.name, arrived.kind, record.sequence
            ));
        }
        match state.arrived.insert(record.sequence, arrived.clone()) {
            Some(before) if before != arrived => self.broken.say(format!(
                "{}: two events at the position {}",
                self.name, record.sequence
            )),
            Some(_) if self.exactly_once => self.broken.say(format!(
                "{}: the position {} came twice",
                self.name, record.sequence
            )),
            _ => {}
        }
    }
}

fn lost() -> ConnectorError {
    ConnectorError::transient("broker_lost", "The destination does not answer.")
}

/// One instance that delivers.
struct Delivery {
    to: Destination,
    instance: u64,
    recovered: Vec<Refused>,
}

fn refusal(position: u64) -> Refused {
    Refused {
        sequence: position,
        reason: "too_large",
        detail: "The record is refused.".to_owned(),
    }
}

#[async_trait]
impl Sink for Delivery {
    async fn start(&mut self) -> Result<SinkStart, ConnectorError> {
        self.to.answers().await?;
        let mut state = self.to.state();
        state.instance += 1;
        self.instance = state.instance;
        self.recovered = state.refused.keys().map(|at| refusal(*at)).collect();
        Ok(match self.to.exactly_once {
            true if state.certain == 0 => SinkStart::Empty,
            true => SinkStart::Known(state.certain),
            false => SinkStart::Unknown,
        })
    }

    async fn deliver(&mut self, block: Vec<Outgoing>) -> Result<Vec<Refused>, ConnectorError> {
        self.to.answers().await?;
        if self.to.state().instance != self.instance {
            return Err(ConnectorError::definite(
                "fenced",
                "Another instance has taken over.",
                "Stop one of them.",
            ));
        }
        let (mood, is_picky, fails) = {
            let mut state = self.to.state();
            (state.mood, state.is_picky, state.dice.one_in(12))
        };
        // Without transactions a part may arrive before the connection is lost.
        let len = block.len() as u64;
        let until = match (fails, self.to.exactly_once) {
            (false, _) => len,
            (true, true) => return Err(lost()),
            (true, false) => self.to.state().dice.below(len + 1),
        };
        let mut refused = Vec::new();
        for record in &block[..until as usize] {
            let is_refused = {
                let mut state = self.to.state();
                // Whether a record is refused is decided once.
                let chance = is_picky && record.sequence % 5 == 0;
                let known = state.arrived.contains_key(&record.sequence);
                let is = state.refused.contains_key(&record.sequence) || chance && !known;
                if is {
                    state.refused.insert(record.sequence, true);
                }
                is
            };
            match is_refused {
                true => refused.push(refusal(record.sequence)),
                false => self.to.take(record),
            }
            let mut state = self.to.state();
            state.certain = state.certain.max(record.sequence);
        }
        match fails || mood == Mood::Deaf {
            true => Err(lost()),
            false => Ok(refused),
        }
    }

    fn recovered(&mut self) -> Vec<Refused> {
        std::mem::take(&mut self.recovered)
    }

    async fn stop(&mut self) {}
}
