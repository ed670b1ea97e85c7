//! Events without rows: where transactions begin and end, and where the log stands.

use rollcall_binlog::event::{self, Header};
use rollcall_contract::{ConnectorError, GapReason};

use super::parked::Found;
use super::transaction::OpenTx;
use super::{Decoder, Within};
use crate::errors::protocol_violation;
use crate::position::{Place, Point, TxName};
use crate::server::LogMode;

impl Decoder {
    /// Where an event begins in the log. The server may have left others out before it.
    fn begin_of(&self, header: &Header) -> Option<Place> {
        let mut begins = self.here.clone()?;
        begins.position = begins.position.checked_sub(u64::from(header.size))?;
        Some(begins)
    }

    /// An event that holds no rows.
    pub(super) fn control(
        &mut self,
        header: &Header,
        event: event::Event<'_>,
    ) -> Result<(), ConnectorError> {
        use event::Event as E;
        let begins = self.begin_of(header);
        match event {
            E::Gtid(gtid) | E::AnonymousGtid(gtid) => {
                let name = match (gtid.gtid, self.mode) {
                    (Some(gtid), LogMode::MySqlGtid) => TxName::MySql(gtid),
                    (None, LogMode::MySqlGtid) => {
                        return Err(ConnectorError::definite(
                            "gtid_mode",
                            "The log has a transaction without GTID although gtid_mode is ON.",
                            "Set gtid_mode = ON on every server of the group, and \
                             enforce_gtid_consistency.",
                        ));
                    }
                    _ => self.unnamed(begins.as_ref())?,
                };
                let commit_us = gtid
                    .commit_us
                    .and_then(|us| i64::try_from(us).ok())
                    .unwrap_or(i64::from(header.timestamp) * 1_000_000);
                self.begin_transaction(name, begins, commit_us);
            }
            E::MariadbGtid(gtid) => {
                let name = TxName::MariaDb(gtid.gtid);
                let commit_us = i64::from(header.timestamp) * 1_000_000;
                self.begin_transaction(name, begins, commit_us);
                let is_xa = gtid.is_prepared_xa();
                if let Some(tx) = &mut self.tx {
                    tx.is_begun = !gtid.is_standalone();
                    tx.is_xa = is_xa;
                }
                if is_xa {
                    self.parking.begin();
                }
            }
            E::Query(query) => {
                self.statement(header, &query, begins)?;
            }
            E::Xid(_) => self.end_transaction(),
            E::XaPrepare(prepare) => {
                if prepare.is_one_phase {
                    let found = self.parking.take_open();
                    if let Some(tx) = &mut self.tx {
                        tx.is_xa = false;
                    }
                    self.replay(found);
                } else {
                    self.prepare(prepare.xid.to_string().into_bytes());
                }
            }
            E::Rotate(rotate) => {
                self.here = Some(Place::new(&self.identity, rotate.file, rotate.position));
                self.maps.end_statement();
                self.idle(false);
            }
            E::Heartbeat(heartbeat) => {
                // The short form carries 32 bits; a smaller number than before has lost some.
                let place = match &self.here {
                    Some(here) if *here.file == *heartbeat.file => Place {
                        position: heartbeat.position,
                        ..here.clone()
                    },
                    _ => Place::new(&self.identity, heartbeat.file, heartbeat.position),
                };
                if self.tx.is_none()
                    && self
                        .here
                        .as_ref()
                        .is_none_or(|here| place.covers(here) == Some(true))
                {
                    self.here = Some(place);
                    self.idle(true);
                }
            }
            E::FormatDescription(_) => {
                self.maps.end_statement();
                if let Some(here) = &mut self.here {
                    here.created = header.timestamp;
                }
                self.idle(false);
            }
            E::Incident(_) => {
                self.gap(
                    GapReason::NotInLog,
                    "The server reports an incident: it could not write all changes to its log."
                        .to_owned(),
                );
                self.end_transaction();
            }
            E::LoadData => self.gap(
                GapReason::NotInLog,
                "The log has a LOAD DATA as a statement; the rows that it brought are not in it."
                    .to_owned(),
            ),
            E::PreviousGtids(_) | E::MariadbGtidList(_) | E::Nothing => self.idle(false),
            E::Unknown { kind, is_ignorable } => {
                if !is_ignorable {
                    return Err(ConnectorError::definite(
                        "unknown_event",
                        format!(
                            "The log has an event of type {kind} at {}, which this version of \
                             Rollcall does not know and may not leave out.",
                            self.cursor().text()
                        ),
                        "Upgrade Rollcall, or report this with the server's version.",
                    ));
                }
            }
            E::TableMap | E::Rows | E::TransactionPayload => {
                return Err(protocol_violation("an event inside of another one"));
            }
        }
        Ok(())
    }

    /// The name of a transaction that has no GTID: where it begins.
    pub(super) fn unnamed(&self, begins: Option<&Place>) -> Result<TxName, ConnectorError> {
        begins
            .cloned()
            .map(TxName::Place)
            .ok_or_else(|| protocol_violation("a transaction before the name of the file"))
    }

    pub(super) fn begin_transaction(
        &mut self,
        name: TxName,
        begins: Option<Place>,
        commit_us: i64,
    ) {
        // Groups that hold nothing to be ended by (a change of members) end here.
        if self.tx.is_some() {
            self.end_transaction();
        }
        let mut tx = OpenTx::new(name, begins, self.here.as_ref());
        tx.commit_us = commit_us;
        tx.is_known = self.known.covers(&tx.name, tx.begins.as_ref());
        if !tx.is_known
            && let Some(inside) = &self.position.inside
        {
            if inside.tx == tx.name {
                tx.skip_below = inside.changes;
            } else if follows(&tx.name, &inside.tx) {
                self.half_is_missing();
            }
        }
        self.tx = Some(tx);
    }

    /// The transaction in whose middle we were did not come again.
    fn half_is_missing(&mut self) {
        let Some(inside) = self.position.inside.take() else {
            return;
        };
        self.gap(
            GapReason::PositionLost,
            format!(
                "The transaction {} was handed over in part, and the server did not send it \
                 again; its other changes are unknown.",
                inside.tx
            ),
        );
    }

    /// The open transaction is taken in.
    pub(super) fn end_transaction(&mut self) {
        let Some(tx) = self.tx.take() else {
            return;
        };
        if self
            .position
            .inside
            .as_ref()
            .is_some_and(|inside| inside.tx == tx.name)
        {
            self.position.inside = None;
        }
        if tx.is_known {
            if let Some(again) = &mut self.again {
                again.add(&tx.name);
            }
            return;
        }
        self.again = None;
        self.position.whole.gtids.add(&tx.name);
        self.position.whole.place.clone_from(&self.here);
        self.has_moved = true;
    }

    /// Outside of a transaction, everything before this place has been sent. On another
    /// server than before that is certain only at the log's end (`is_end`): what was taken
    /// in already is left out without a word.
    pub(super) fn idle(&mut self, is_end: bool) {
        if self.tx.is_some() || self.position.inside.is_some() {
            return;
        }
        let Some(here) = &self.here else {
            return;
        };
        let is_ahead = match &self.position.whole.place {
            Some(place) => here.covers(place).unwrap_or(is_end),
            None => is_end,
        };
        if is_ahead && self.position.whole.place.as_ref() != Some(here) {
            self.position.whole.place = Some(here.clone());
            self.has_moved = true;
        }
    }

    /// The rows of the open transaction are put by until its XA name is heard again.
    fn prepare(&mut self, xid: Vec<u8>) {
        let Some(tx) = &self.tx else {
            return;
        };
        let before = Point {
            gtids: self
                .again
                .as_ref()
                .unwrap_or(&self.position.whole.gtids)
                .clone(),
            place: tx
                .begins
                .clone()
                .or_else(|| self.position.whole.place.clone()),
        };
        self.parking.prepare(xid, tx.name.clone(), before);
        self.end_transaction();
    }

    /// An XA transaction commits in the open one.
    pub(super) fn replay(&mut self, found: Found) {
        match found {
            Found::Events(events) if !events.is_empty() => {
                self.enter();
                self.within = Some(Within::Parked(events.into_iter()));
            }
            Found::Events(_) => self.end_transaction(),
            Found::Unknown => {
                if self.tx.as_ref().is_some_and(|tx| !tx.is_known) {
                    self.gap(
                        GapReason::NotInLog,
                        "An XA transaction committed whose rows are not known here: it was \
                         prepared before the log was read, or was too large to be kept."
                            .to_owned(),
                    );
                }
                self.end_transaction();
            }
        }
    }
}

/// Whether the log has gone past a transaction, of which it has just sent another one. In a
/// set of GTIDs there is no order.
fn follows(now: &TxName, awaited: &TxName) -> bool {
    match (now, awaited) {
        (TxName::MariaDb(now), TxName::MariaDb(awaited)) => {
            now.domain == awaited.domain && now.sequence > awaited.sequence
        }
        (TxName::Place(now), TxName::Place(awaited)) => now.covers(awaited).unwrap_or(true),
        _ => false,
    }
}
