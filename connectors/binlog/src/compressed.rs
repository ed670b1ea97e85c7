//! What MariaDB compresses: the statement of a QUERY_COMPRESSED, and the rows of a
//! compressed rows event (`log_bin_compress`).
//!
//! One byte says how: its high bits must be `1000` (zlib), its low three bits how many bytes
//! of length follow, most significant first. The length that it states is an upper bound
//! here, checked while bytes come out, and never a size to allocate at once.

use flate2::{Decompress, FlushDecompress, Status};

use crate::error::DecodeError;

const WHAT: &str = "a compressed event";
/// An event is smaller than 4 GiB, but `max_allowed_packet` ends at 1 GiB.
const MAX_LEN: usize = 1 << 30;
/// How much is made room for at a time.
const STEP: usize = 256 << 10;

/// Appends what the bytes hold.
pub(crate) fn expand(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let malformed = |why| DecodeError::malformed(WHAT, why);
    let (&head, rest) = bytes
        .split_first()
        .ok_or(DecodeError::Truncated { what: WHAT })?;
    if head & 0xF0 != 0x80 {
        return Err(DecodeError::Unsupported {
            what: WHAT,
            why: "an unknown compression",
        });
    }
    let (len, packed) = rest
        .split_at_checked(usize::from(head & 0x07))
        .filter(|(len, _)| (1..=4).contains(&len.len()))
        .ok_or(malformed("a length that is none"))?;
    let len = len.iter().fold(0usize, |n, &b| n << 8 | usize::from(b));
    if len > MAX_LEN {
        return Err(malformed("more than 1 GiB"));
    }
    let begin = out.len();
    let mut stream = Decompress::new(true);
    loop {
        let done = out.len() - begin;
        // One byte more than is expected, so that a stream which does not end there shows.
        out.reserve((len - done).min(STEP) + 1);
        let taken = stream.total_in() as usize;
        let status = stream
            .decompress_vec(&packed[taken..], out, FlushDecompress::None)
            .map_err(|_| malformed("not zlib"))?;
        let now = out.len() - begin;
        if now > len {
            return Err(malformed("longer than it says"));
        }
        match status {
            Status::StreamEnd if now == len => return Ok(()),
            Status::StreamEnd => return Err(malformed("shorter than it says")),
            Status::Ok | Status::BufError if now > done || stream.total_in() as usize > taken => {}
            Status::Ok | Status::BufError => return Err(DecodeError::Truncated { what: WHAT }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::Write;

    use super::*;
    use proptest::prelude::*;

    fn pack(plain: &[u8], stated: usize) -> Vec<u8> {
        let mut out = vec![0x84];
        out.extend((stated as u32).to_be_bytes());
        let mut zlib = flate2::write::ZlibEncoder::new(out, flate2::Compression::fast());
        zlib.write_all(plain).unwrap();
        zlib.finish().unwrap()
    }

    #[test]
    fn what_was_packed_comes_out_behind_what_is_there() {
        let plain = b"update t set a = 1".repeat(40_000);
        let mut out = b"before".to_vec();
        expand(&pack(&plain, plain.len()), &mut out).unwrap();
        assert_eq!(out[6..], plain);
    }

    #[test]
    fn a_length_that_is_not_true_is_refused_and_not_allocated() {
        let plain = vec![b'a'; 1 << 20];
        for stated in [0, 1, plain.len() - 1, plain.len() + 1, MAX_LEN] {
            let mut out = Vec::new();
            assert!(expand(&pack(&plain, stated), &mut out).is_err(), "{stated}");
            assert!(out.capacity() < 4 << 20, "{stated}: {}", out.capacity());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut out = Vec::new();
            let _ = expand(&bytes, &mut out);
            let mut good = pack(&bytes, bytes.len());
            good.truncate(cut.index(good.len()));
            out.clear();
            prop_assert!(expand(&good, &mut out).is_err() || out == bytes);
            bytes.insert(0, 0x81);
            let _ = expand(&bytes, &mut out);
        }
    }
}
