//! MariaDB's positions: the last transaction of each domain.
//!
//! Within a domain the sequence numbers of one history ascend, so a position is one GTID a
//! domain (MariaDB documentation, "Global Transaction ID"). That is only as true as
//! `gtid_strict_mode` makes it: a server without it may write a lower number after a higher
//! one. [`GtidState::observe`] therefore takes whatever came last, as the server's own
//! `gtid_binlog_pos` does, and never the higher of two.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::NotAGtid;

/// A replication domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u32);

/// One transaction: domain, the server that it was first written on, and its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gtid {
    /// The replication domain.
    pub domain: DomainId,
    /// `server_id` of the server on which it was committed first.
    pub server_id: u32,
    /// The number within the domain.
    pub sequence: u64,
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain.0, self.server_id, self.sequence)
    }
}

impl fmt::Debug for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const NOT_A_GTID: NotAGtid = NotAGtid {
    what: "GTID",
    expected: "domain-server-sequence, as in 0-1-100",
};

/// Decimal digits and nothing else: no sign, no space.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

impl FromStr for Gtid {
    type Err = NotAGtid;

    fn from_str(s: &str) -> Result<Gtid, NotAGtid> {
        let mut parts = s.trim_ascii().split('-');
        let gtid = (|| {
            Some(Gtid {
                domain: DomainId(number(parts.next()?)?),
                server_id: number(parts.next()?)?,
                sequence: number(parts.next()?)?,
            })
        })();
        gtid.filter(|_| parts.next().is_none()).ok_or(NOT_A_GTID)
    }
}

/// A position: at most one GTID a domain.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct GtidState {
    domains: BTreeMap<DomainId, Gtid>,
}

impl GtidState {
    /// The position before everything.
    pub fn new() -> Self {
        GtidState::default()
    }

    /// Whether it is the position before everything.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// The transaction was taken in: it is now the last of its domain.
    pub fn observe(&mut self, gtid: Gtid) {
        self.domains.insert(gtid.domain, gtid);
    }

    /// The last transaction of a domain.
    pub fn of(&self, domain: DomainId) -> Option<Gtid> {
        self.domains.get(&domain).copied()
    }

    /// The last transaction of each domain, by domain.
    pub fn iter(&self) -> impl Iterator<Item = Gtid> {
        self.domains.values().copied()
    }

    /// Whether a transaction is behind this position, by its number alone.
    pub fn covers(&self, gtid: Gtid) -> bool {
        self.of(gtid.domain)
            .is_some_and(|last| last.sequence >= gtid.sequence)
    }

    /// Whether everything that `earlier` covers is covered here too.
    pub fn covers_all(&self, earlier: &GtidState) -> bool {
        earlier.iter().all(|gtid| self.covers(gtid))
    }

    /// The GTIDs of `self`, domain by domain, that `other` does not cover.
    pub fn beyond<'a>(&'a self, other: &'a GtidState) -> impl Iterator<Item = Gtid> + 'a {
        self.iter().filter(|gtid| !other.covers(*gtid))
    }
}

impl FromIterator<Gtid> for GtidState {
    fn from_iter<I: IntoIterator<Item = Gtid>>(gtids: I) -> Self {
        let mut state = GtidState::new();
        for gtid in gtids {
            state.observe(gtid);
        }
        state
    }
}

impl fmt::Display for GtidState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, gtid) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            gtid.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for GtidState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for GtidState {
    type Err = NotAGtid;

    fn from_str(s: &str) -> Result<GtidState, NotAGtid> {
        let mut state = GtidState::new();
        if s.trim_ascii().is_empty() {
            return Ok(state);
        }
        for part in s.split(',') {
            let gtid: Gtid = part.parse()?;
            if state.domains.insert(gtid.domain, gtid).is_some() {
                return Err(NotAGtid {
                    what: "GTID position",
                    expected: "one GTID a domain, as in 0-1-100,1-2-7",
                });
            }
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn positions_print_and_parse_as_the_server_spells_them() {
        for text in [
            "",
            "0-1-100",
            "0-1-100,1-2-7,4294967295-4294967295-18446744073709551615",
        ] {
            assert_eq!(text.parse::<GtidState>().unwrap().to_string(), text);
        }
        assert_eq!(
            "1-2-7, 0-1-9".parse::<GtidState>().unwrap().to_string(),
            "0-1-9,1-2-7"
        );
        for text in [
            "0-1",
            "0-1-2-3",
            "-1-1-1",
            "0-1-+2",
            "a-1-1",
            "0-1-",
            ",",
            "0-1-1,",
            "0-1-1,0-2-2",
            "4294967296-1-1",
            "0-1-18446744073709551616",
        ] {
            assert!(text.parse::<GtidState>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_came_last_is_the_position_even_when_its_number_is_lower() {
        let mut state: GtidState = "0-1-100".parse().unwrap();
        state.observe("0-2-50".parse().unwrap());
        assert_eq!(state.to_string(), "0-2-50");
    }

    #[test]
    fn a_domain_that_is_not_known_is_not_covered() {
        let state: GtidState = "0-1-100".parse().unwrap();
        assert!(state.covers("0-7-100".parse().unwrap()));
        assert!(!state.covers("0-1-101".parse().unwrap()));
        assert!(!state.covers("1-1-1".parse().unwrap()));
        let other: GtidState = "0-1-10,1-1-1".parse().unwrap();
        assert!(!state.covers_all(&other));
        assert_eq!(
            other
                .beyond(&state)
                .map(|g| g.to_string())
                .collect::<Vec<_>>(),
            ["1-1-1"]
        );
        assert!(state.covers_all(&GtidState::new()));
    }

    fn gtid() -> impl Strategy<Value = Gtid> {
        (0..4u32, any::<u32>(), any::<u64>()).prop_map(|(d, server_id, sequence)| Gtid {
            domain: DomainId(d),
            server_id,
            sequence,
        })
    }

    proptest! {
        #[test]
        fn any_position_reads_back(gtids in proptest::collection::vec(gtid(), 0..6)) {
            let state: GtidState = gtids.into_iter().collect();
            prop_assert_eq!(state.to_string().parse::<GtidState>().unwrap(), state.clone());
            prop_assert!(state.covers_all(&state));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9,\\- ]{0,24}") {
            if let Ok(state) = text.parse::<GtidState>() {
                prop_assert_eq!(state.to_string().parse::<GtidState>().unwrap(), state);
            }
        }
    }
}
