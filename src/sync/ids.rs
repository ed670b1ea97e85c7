//! Ids of users: UUIDs of version 7 (RFC 9562 section 5.7), each greater than all before it.
//!
//! The order is what the store finds users by, so it must hold when the clock stands still
//! or goes back, and over restarts. Without version and variant, which are the same in all,
//! an id is a number of 122 bits: milliseconds, then 74 random bits. Where a fresh number
//! would not be greater than the last one, the last one is continued by a random step.

use rollcall_core::id::{NewIds, UserId};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::clock;

const RANDOM_BITS: u32 = 74;

/// Makes ids.
pub struct Ids {
    last: u128,
    seed: u64,
    made: u64,
}

impl Ids {
    /// Ids greater than the last one of the store.
    pub fn behind(last: Option<UserId>) -> Ids {
        // Ids name people and keep no secret: without the system's random bytes (which
        // have no reason to fail) they are still distinct, by time and order.
        let seed = clock::chance().unwrap_or_else(|| std::process::id().into());
        Ids {
            last: last.map_or(0, number),
            seed,
            made: 0,
        }
    }
}

impl NewIds for Ids {
    fn user_id(&mut self, now_us: i64) -> UserId {
        self.made += 1;
        let random = xxh3_128_with_seed(&self.made.to_le_bytes(), self.seed);
        let milliseconds = (now_us.max(0) / 1000) as u128;
        let fresh = milliseconds << RANDOM_BITS | random >> (128 - RANDOM_BITS);
        let step = 1 + (random & u128::from(u32::MAX));
        self.last = fresh.max(self.last + step);
        id(self.last)
    }
}

/// The id of a number: time, version, 12 random bits, variant, 62 random bits.
fn id(number: u128) -> UserId {
    let time = number >> RANDOM_BITS;
    let first = number >> 62 & 0xfff;
    let second = number & ((1 << 62) - 1);
    let bits = time << 80 | 7 << 76 | first << 64 | 0b10 << 62 | second;
    UserId(bits.to_be_bytes())
}

fn number(id: UserId) -> u128 {
    let bits = u128::from_be_bytes(id.0);
    let (time, first) = (bits >> 80, bits >> 64 & 0xfff);
    time << RANDOM_BITS | first << 62 | bits & ((1 << 62) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_ascend_when_the_clock_stands_still_or_goes_back_and_over_a_restart() {
        let mut ids = Ids::behind(None);
        let mut last = UserId([0; 16]);
        for now in [5_000, 5_000, 5_001, 9_000, 4_000, 4_000, 9_500] {
            let next = ids.user_id(1_700_000_000_000_000 + now);
            assert!(next > last, "{next} comes after {last}");
            let uuid = uuid::Uuid::from_bytes(next.0);
            assert_eq!(uuid.get_version_num(), 7);
            assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
            last = next;
        }
        assert_eq!(id(number(last)), last);
        assert!(Ids::behind(Some(last)).user_id(0) > last);
    }

    #[test]
    fn an_id_begins_with_the_time() {
        let made = Ids::behind(None).user_id(1_709_210_096_123_456);
        let text = uuid::Uuid::from_bytes(made.0).simple().to_string();
        assert!(
            text.starts_with(&format!("{:012x}7", 1_709_210_096_123_u64)),
            "{text}"
        );
    }
}
