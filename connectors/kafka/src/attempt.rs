//! One producer and the blocks that go through it.
//!
//! A block is tried as one transaction. When the broker refuses a record, the transaction is
//! aborted, so nothing of it becomes visible, and the block is tried again without that
//! record. The broker judges whole batches, so a refusal may name innocent neighbours: then
//! the suspects are sent alone, one batch each, in the next try, and only a record that was
//! refused while it was alone is taken for guilty. A refused batch also leaves a hole in the
//! broker's count of a partition's batches; librdkafka notices at the next batch, gives that
//! transaction up as well, and counts anew after its abort, so that try is simply repeated.
//! All tries of a block together have a limit in time.
//!
//! Any other failure throws the producer away. That is always right, because the next
//! `start` fences what is left of it and reads what the topic holds; a commit whose answer
//! was lost is told from one that never happened there, and nowhere else.
//!
//! Without transactions a try that failed is repeated whole: records come twice, but the
//! order of each key is kept, and its last record is the newest.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode as Code;
use rollcall_contract::{ConnectorError, Outgoing, Refused};

use crate::client::Context;
use crate::config::{Delivery, KafkaConfig};
use crate::failure::{Doing, is_echo, record_at_fault};
use crate::headers::WireNames;
use crate::position::Position;
use crate::served::ServedProducer;

/// Without any progress for this long, a call ends.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the broker to write the markers of a transaction's end.
const MARKERS: Duration = Duration::from_millis(2);
/// For all tries of one block.
const BLOCK_PATIENCE: Duration = Duration::from_secs(50);
/// About one batch of a partition: while one is under way librdkafka sends no second one, and
/// asks its socket without a pause until then.
const BATCH_BYTES: usize = 960_000;
/// How often a try is repeated that failed without a culprit.
const REPEATS: u32 = 3;
/// The tag of the position record; records of the block are tagged with their place.
const POSITION_TAG: usize = usize::MAX;
/// What a batch adds to its records, and a record to its key, value and headers, at most
/// (message format 2).
const FRAME_BYTES: usize = 61 + 7 + 5 * 5;
/// What a header adds to its name and value, at most.
const HEADER_FRAME_BYTES: usize = 2 * 5;

/// A connected producer.
pub(crate) struct Engine {
    config: Arc<KafkaConfig>,
    producer: ServedProducer,
    names: WireNames,
    /// The largest record that each topic takes, in bytes.
    limits: HashMap<Arc<str>, usize>,
    position_key: String,
    /// When the last transaction was committed.
    committed: Option<Instant>,
}

/// What is to become of a record in the next try.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Send,
    SendAlone,
    LeaveOut,
}

/// How a try ended, if it did not fail.
enum Outcome {
    Delivered,
    /// Places and reasons of records that were reported as refused.
    Suspects(Vec<(usize, Code)>),
    /// librdkafka gave the transaction up and says of no record that it is at fault.
    GivenUp,
}

/// What became of a record that was handed over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// A report will come.
    Queued,
    /// Refused at once; that counts as its report.
    Refused,
    /// Nothing more is taken in this try, and no report will come.
    Closed,
}

impl Engine {
    /// A producer for the sink. Fences older instances when it is transactional. Blocks.
    pub(crate) fn connect(
        config: Arc<KafkaConfig>,
        limit: Option<usize>,
    ) -> Result<Self, ConnectorError> {
        let settings = config.producer(limit)?;
        let doing = Doing {
            config: &config,
            what: "connecting",
            topic: &config.topic,
            trouble: None,
        };
        let producer = ServedProducer::start(&settings, Context::new(&config))
            .map_err(|e| doing.failed(&e))?;
        let mut engine = Engine {
            position_key: config.position_key(),
            producer,
            names: WireNames::default(),
            limits: HashMap::new(),
            committed: None,
            config,
        };
        if let Some(limit) = limit {
            engine.learn_limit(Arc::from(engine.config.topic.as_str()), limit);
        }
        if engine.is_transactional() {
            engine.init_transactions()?;
        }
        Ok(engine)
    }

    fn is_transactional(&self) -> bool {
        self.config.delivery == Delivery::ExactlyOnce
    }

    /// Notes the largest record that a topic takes.
    pub(crate) fn learn_limit(&mut self, topic: Arc<str>, bytes: usize) {
        self.limits.insert(topic, bytes);
    }

    /// Asked in short turns, so that a rejected log-in ends it at once.
    fn init_transactions(&self) -> Result<(), ConnectorError> {
        let began = Instant::now();
        loop {
            let error = match self.producer.init_transactions(Duration::from_millis(500)) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let retriable = matches!(&error, KafkaError::Transaction(e) if e.is_retriable());
            let hopeless = self
                .producer
                .client()
                .context()
                .trouble()
                .is_some_and(|trouble| trouble.is_hopeless());
            if !retriable || hopeless || began.elapsed() > PATIENCE {
                return Err(self.failed("taking the transactional id", &self.config.topic, &error));
            }
        }
    }

    /// Delivers a block; the answer names the records that were refused. After an error the
    /// engine must be dropped. Blocks.
    pub(crate) fn deliver(&mut self, block: &[Outgoing]) -> Result<Vec<Refused>, ConnectorError> {
        let Some(last) = block.last() else {
            return Ok(Vec::new());
        };
        let mut refused = Vec::new();
        let mut fates = self.measure(block, &mut refused);
        let began = Instant::now();
        let mut repeats = 0;
        loop {
            let position = Position::after(last.sequence, &refused);
            let suspects = match self.attempt(block, &fates, &position)? {
                Outcome::Delivered => {
                    refused.sort_by_key(|one| one.sequence);
                    return Ok(refused);
                }
                Outcome::Suspects(suspects) => suspects,
                Outcome::GivenUp if repeats < REPEATS => {
                    repeats += 1;
                    continue;
                }
                Outcome::GivenUp => {
                    return Err(ConnectorError::transient(
                        "transaction_given_up",
                        format!(
                            "Kafka sink {}: the transaction of a block did not come to its end.",
                            self.config.sink
                        ),
                    ));
                }
            };
            repeats = 0;
            if began.elapsed() > BLOCK_PATIENCE {
                return Err(ConnectorError::transient(
                    "too_many_refused",
                    format!(
                        "Kafka sink {}: the broker refuses so many records of one block that \
                         they could not be told apart in time.",
                        self.config.sink
                    ),
                ));
            }
            let certain = suspects.len() == 1;
            for (place, code) in suspects {
                let (Some(fate), Some(record)) = (fates.get_mut(place), block.get(place)) else {
                    continue;
                };
                if certain || *fate == Fate::SendAlone {
                    *fate = Fate::LeaveOut;
                    let reason = record_at_fault(code).unwrap_or("refused");
                    refused.push(refusal(record, reason, code.to_string()));
                } else {
                    *fate = Fate::SendAlone;
                }
            }
        }
    }

    /// Leaves out what no batch of its topic can hold. Compression might have saved such a
    /// record, but then its fate would hang on its content.
    fn measure(&self, block: &[Outgoing], refused: &mut Vec<Refused>) -> Vec<Fate> {
        let default = self.limits.get(self.config.topic.as_str()).copied();
        block
            .iter()
            .map(|record| {
                let limit = match &record.destination {
                    None => default,
                    Some(topic) => self.limits.get(topic).copied(),
                };
                let size = size_of(record);
                match limit {
                    Some(limit) if size > limit => {
                        refused.push(refusal(
                            record,
                            "too_large",
                            format!("{size} bytes; the topic takes records up to {limit} bytes"),
                        ));
                        Fate::LeaveOut
                    }
                    _ => Fate::Send,
                }
            })
            .collect()
    }

    fn attempt(
        &mut self,
        block: &[Outgoing],
        fates: &[Fate],
        position: &Position,
    ) -> Result<Outcome, ConnectorError> {
        let began = (Instant::now(), SystemTime::now());
        self.reports().reset();
        if self.is_transactional() {
            self.let_markers_be_written();
            self.producer
                .begin_transaction()
                .map_err(|e| self.failed("beginning a transaction", &self.config.topic, &e))?;
        }
        let config = Arc::clone(&self.config);
        let mut sent = 0;
        let mut under_way = 0;
        for (place, (record, fate)) in block.iter().zip(fates).enumerate() {
            match fate {
                Fate::LeaveOut => continue,
                Fate::Send => {}
                Fate::SendAlone => self.settle(sent)?,
            }
            let size = size_of(record);
            if under_way + size > BATCH_BYTES {
                self.settle(sent)?;
                if self.reports().has_failed() {
                    break;
                }
                under_way = 0;
            }
            under_way += size;
            let topic = record.destination.as_deref().unwrap_or(&config.topic);
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for (hint, (name, value)) in record.headers.iter().enumerate() {
                headers = headers.insert(Header {
                    key: self.names.of(name, hint),
                    value: Some(value.as_ref()),
                });
            }
            let mut outgoing: BaseRecord<'_, [u8], [u8], usize> =
                BaseRecord::with_opaque_to(topic, place).headers(headers);
            outgoing.key = record.key.as_deref();
            outgoing.payload = record.value.as_deref();
            match self.send(outgoing, sent)? {
                Sending::Queued => sent += 1,
                Sending::Refused => {
                    sent += 1;
                    break;
                }
                Sending::Closed => break,
            }
            if *fate == Fate::SendAlone {
                self.settle(sent)?;
                if self.reports().has_failed() {
                    break;
                }
            }
        }
        if self.is_transactional() && !self.reports().has_failed() {
            let payload = position.encode();
            let mut outgoing: BaseRecord<'_, [u8], [u8], usize> =
                BaseRecord::with_opaque_to(&config.cursors_topic, POSITION_TAG);
            outgoing.key = Some(self.position_key.as_bytes());
            outgoing.payload = Some(&payload);
            if self.send(outgoing, sent)? != Sending::Closed {
                sent += 1;
            }
        }
        self.settle(sent)?;
        self.conclude(block, began)
    }

    /// Hands a record to librdkafka, waiting while its queue is full.
    fn send(
        &self,
        mut record: BaseRecord<'_, [u8], [u8], usize>,
        sent: usize,
    ) -> Result<Sending, ConnectorError> {
        loop {
            let (error, back) = match self.producer.send(record) {
                Ok(()) => return Ok(Sending::Queued),
                Err(refused) => refused,
            };
            match error.rdkafka_error_code() {
                Some(Code::QueueFull) => {
                    let reported = self.reports().reported();
                    let half = reported + (sent - reported) / 2 + 1;
                    self.settle(half.min(sent))?;
                    record = back;
                }
                // Larger than message.max.bytes: known at once, without a report.
                Some(code) if record_at_fault(code).is_some() => {
                    self.reports().report(back.delivery_opaque, Some(code));
                    return Ok(Sending::Refused);
                }
                // The transaction has failed already; the reports will say why.
                Some(Code::State) => return Ok(Sending::Closed),
                _ => return Err(self.failed("sending records", back.topic, &error)),
            }
        }
    }

    /// Waits for the reports of all records sent so far.
    fn settle(&self, sent: usize) -> Result<(), ConnectorError> {
        if self.reports().wait(sent, PATIENCE) {
            return Ok(());
        }
        let doing = self.doing("sending records", &self.config.topic);
        Err(match self.producer.client().fatal_error() {
            Some((code, words)) => doing.code(code, &words),
            None => Doing {
                trouble: self.producer.client().context().trouble().as_ref(),
                ..doing
            }
            .timed_out(),
        })
    }

    /// Commits what was sent, or finds out who is to blame.
    fn conclude(
        &mut self,
        block: &[Outgoing],
        began: (Instant, SystemTime),
    ) -> Result<Outcome, ConnectorError> {
        let reported = self.reports().take_failures();
        let given_up = !reported.is_empty();
        let mut failures = reported;
        failures.retain(|(_, code)| !is_echo(*code));
        if let Some((place, code)) = failures
            .iter()
            .find(|(place, code)| *place == POSITION_TAG || record_at_fault(*code).is_none())
        {
            let topic = match block.get(*place) {
                Some(record) => record.destination.as_deref().unwrap_or(&self.config.topic),
                None => &self.config.cursors_topic,
            };
            return Err(self.during(began, self.coded("sending records", topic, *code)));
        }
        let transactional = self.is_transactional();
        if given_up {
            if transactional {
                self.await_handover();
                self.producer
                    .abort_transaction(PATIENCE)
                    .map_err(|e| self.failed("aborting a transaction", &self.config.topic, &e))?;
            }
            return Ok(if failures.is_empty() {
                Outcome::GivenUp
            } else {
                Outcome::Suspects(failures)
            });
        }
        if transactional {
            self.await_handover();
            self.producer.commit_transaction(PATIENCE).map_err(|e| {
                self.during(
                    began,
                    self.failed("committing a transaction", &self.config.topic, &e),
                )
            })?;
        }
        self.committed = Some(Instant::now());
        self.producer.client().context().forget_trouble();
        Ok(Outcome::Delivered)
    }

    /// The broker answers a commit before it has written the markers of its end everywhere.
    /// A transaction that is begun in that moment is turned away, and librdkafka asks again
    /// only after 20 ms.
    fn let_markers_be_written(&self) {
        let since = self.committed.map_or(MARKERS, |at| at.elapsed());
        if since < MARKERS {
            std::thread::sleep(MARKERS - since);
        }
    }

    /// The last report comes a moment before librdkafka takes its batch off the books, and
    /// rdkafka's commit would then wait in steps of 100 ms.
    fn await_handover(&self) {
        for turn in 0..2_000 {
            if self.producer.in_flight_count() == 0 {
                return;
            }
            if turn < 100 {
                std::thread::yield_now();
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// The broker aborts a transaction that is open for too long with the same error that
    /// shuts out an older instance. A process that was stopped or suspended in the middle
    /// of one was not replaced by another.
    fn during(
        &self,
        (began, began_wall): (Instant, SystemTime),
        error: ConnectorError,
    ) -> ConnectorError {
        let open = began
            .elapsed()
            .max(began_wall.elapsed().unwrap_or_default());
        let allowed = Duration::from_millis(self.config.transaction_timeout_ms());
        if error.code() == "fenced" && open >= allowed {
            return ConnectorError::transient(
                "transaction_expired",
                format!(
                    "Kafka sink {}: a transaction was open for {} s, and the broker aborted it.",
                    self.config.sink,
                    open.as_secs()
                ),
            );
        }
        error
    }

    fn reports(&self) -> &crate::reports::Reports {
        &self.producer.client().context().reports
    }

    fn doing<'a>(&'a self, what: &'a str, topic: &'a str) -> Doing<'a> {
        Doing {
            config: &self.config,
            what,
            topic,
            trouble: None,
        }
    }

    fn coded(&self, what: &str, topic: &str, code: Code) -> ConnectorError {
        let doing = self.doing(what, topic);
        match self.producer.client().fatal_error() {
            Some((fatal, words)) => doing.code(fatal, &words),
            None => Doing {
                trouble: self.producer.client().context().trouble().as_ref(),
                ..doing
            }
            .code(code, &code.to_string()),
        }
    }

    fn failed(&self, what: &str, topic: &str, error: &KafkaError) -> ConnectorError {
        let doing = self.doing(what, topic);
        match self.producer.client().fatal_error() {
            Some((fatal, words)) => doing.code(fatal, &words),
            None => Doing {
                trouble: self.producer.client().context().trouble().as_ref(),
                ..doing
            }
            .failed(error),
        }
    }
}

fn refusal(record: &Outgoing, reason: &'static str, detail: String) -> Refused {
    Refused {
        sequence: record.sequence,
        reason,
        detail,
    }
}

/// The size of a record alone in an uncompressed batch, at most.
fn size_of(record: &Outgoing) -> usize {
    let headers: usize = record
        .headers
        .iter()
        .map(|(name, value)| name.len() + "ce_".len() + value.len() + HEADER_FRAME_BYTES)
        .sum();
    let bytes = |part: &Option<bytes::Bytes>| part.as_ref().map_or(0, bytes::Bytes::len);
    FRAME_BYTES + bytes(&record.key) + bytes(&record.value) + headers
}
