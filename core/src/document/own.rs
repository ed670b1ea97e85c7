//! Values that the identity side gave: through a command or the API, not through a source.
//!
//! The value itself is a contribution without a link, beside those of the sources, and its
//! evidence says when it was written. What else is known of it stands here, behind the
//! contributions; a user without such values has nothing of it.

use super::codec::{Reader, put_bytes, put_int};
use crate::attribute::AttrId;

/// Beside the own value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own<'a> {
    /// Which field.
    pub attribute: AttrId,
    /// Who wrote it.
    pub actor: &'a str,
    /// Why, in the actor's words; may be empty.
    pub reason: &'a str,
    /// Whether it stays whatever sources say.
    pub pin: Option<Pin>,
    /// What a person decided between it and a source's value.
    pub decided: Option<Decided>,
    /// How it stands to the values of sources.
    pub standing: Standing,
}

/// An own value that no source replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Until somebody takes it off.
    ForGood,
    /// Until then, microseconds since the Unix epoch.
    Until(i64),
}

impl Pin {
    /// When it ends by itself, if it does.
    pub fn until_us(self) -> Option<i64> {
        match self {
            Pin::ForGood => None,
            Pin::Until(us) => Some(us),
        }
    }
}

/// A person's word between an own value and a source's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Whether the own value was taken.
    pub own: bool,
    /// Hash of the source's value that it was decided against: of another one it says
    /// nothing.
    pub against: u64,
}

/// Whether an own value counts before the sources', and which rule says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it does.
    pub wins: bool,
    /// By which rule.
    pub by: Rule,
}

/// The rule that decided between an own value and a source's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rule {
    /// No source gives the field a value.
    Alone = 0,
    /// It is pinned.
    Pin = 1,
    /// A source with authority over the field has a value.
    Authority = 2,
    /// The mode leaves the field to the identity side.
    TargetWins = 3,
    /// The field is a list in which all parts count.
    Merge = 4,
    /// The source's next change wins.
    SourceWins = 5,
    /// The newer one wins.
    MostRecent = 6,
    /// As [`Rule::SourceWins`], because the two are closer than clocks agree.
    WithinSkew = 7,
    /// As [`Rule::SourceWins`], because nothing says when the source's value was changed.
    NoEvidence = 8,
    /// Both are of the same time: what was there stays, and a person is asked.
    Tie = 9,
    /// A person has decided.
    Decision = 10,
    /// An undo has put it there. Of own values it is never said.
    Undone = 11,
}

impl Rule {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Alone => "alone",
            Rule::Pin => "pin",
            Rule::Authority => "authority",
            Rule::TargetWins => "target_wins",
            Rule::Merge => "merge",
            Rule::SourceWins => "source_wins",
            Rule::MostRecent => "most_recent",
            Rule::WithinSkew => "within_skew",
            Rule::NoEvidence => "no_evidence",
            Rule::Tie => "tie",
            Rule::Decision => "decision",
            Rule::Undone => "undone",
        }
    }

    fn from_u8(n: u8) -> Option<Rule> {
        Some(match n {
            0 => Rule::Alone,
            1 => Rule::Pin,
            2 => Rule::Authority,
            3 => Rule::TargetWins,
            4 => Rule::Merge,
            5 => Rule::SourceWins,
            6 => Rule::MostRecent,
            7 => Rule::WithinSkew,
            8 => Rule::NoEvidence,
            9 => Rule::Tie,
            10 => Rule::Decision,
            _ => return None,
        })
    }
}

// The first byte: what of it is there.
const PINNED: u8 = 1;
const ENDS: u8 = 2;
const DECIDED: u8 = 4;
const DECIDED_OWN: u8 = 8;
const WINS: u8 = 16;

/// Reads one.
pub(super) fn decode<'a>(r: &mut Reader<'a>) -> Option<Own<'a>> {
    let shape = r.u8()?;
    let attribute = AttrId(r.u16()?);
    let by = Rule::from_u8(r.u8()?)?;
    let (actor, reason) = (r.text()?, r.text()?);
    let pin = match (shape & PINNED != 0, shape & ENDS != 0) {
        (false, _) => None,
        (true, false) => Some(Pin::ForGood),
        (true, true) => Some(Pin::Until(r.i64()?)),
    };
    let decided = match shape & DECIDED != 0 {
        false => None,
        true => Some(Decided {
            own: shape & DECIDED_OWN != 0,
            against: r.u64()?,
        }),
    };
    Some(Own {
        attribute,
        actor,
        reason,
        pin,
        decided,
        standing: Standing {
            wins: shape & WINS != 0,
            by,
        },
    })
}

pub(super) fn encode(owns: &[Own<'_>], out: &mut Vec<u8>) {
    for own in owns {
        let mut shape = 0;
        if let Some(pin) = own.pin {
            shape |= PINNED;
            if pin.until_us().is_some() {
                shape |= ENDS;
            }
        }
        if let Some(decided) = own.decided {
            shape |= DECIDED;
            if decided.own {
                shape |= DECIDED_OWN;
            }
        }
        if own.standing.wins {
            shape |= WINS;
        }
        out.push(shape);
        put_int(out, u64::from(own.attribute.0));
        out.push(own.standing.by as u8);
        put_bytes(out, own.actor.as_bytes());
        put_bytes(out, own.reason.as_bytes());
        if let Some(until) = own.pin.and_then(Pin::until_us) {
            out.extend_from_slice(&until.to_le_bytes());
        }
        if let Some(decided) = own.decided {
            out.extend_from_slice(&decided.against.to_le_bytes());
        }
    }
}
