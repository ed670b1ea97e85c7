//! Inputs made from other inputs, the same ones for the same seed.

/// Numbers that lengths and counts break at.
const EXTREMES: [u64; 14] = [
    0,
    1,
    0x7F,
    0x80,
    0xFA,
    0xFB,
    0xFC,
    0xFE,
    0xFF,
    0xFFFF,
    0x00FF_FFFF,
    0x3FFF_FFFF,
    0x7FFF_FFFF,
    u64::MAX,
];

/// Damages inputs. A sequence is determined by its seed.
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// Begins a sequence.
    pub fn new(seed: u64) -> Self {
        Mutator {
            state: seed | 1 << 63,
        }
    }

    /// A number below `end`, which is not 0 (xorshift64*).
    fn below(&mut self, end: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let random = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        random as usize % end.max(1)
    }

    /// One of the corpus, damaged in one to four places.
    pub fn next(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            let other = &corpus[self.below(corpus.len())];
            self.damage(&mut input, other);
        }
        input
    }

    fn damage(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let len = input.len();
        let at = self.below(len);
        match self.below(10) {
            _ if input.is_empty() => input.extend_from_slice(other),
            0 => input[at] ^= 1 << self.below(8),
            1 | 2 => input[at] = self.below(256) as u8,
            // A number of 1, 2, 4 or 8 bytes, in either order.
            3..=5 => {
                let width = (1 << self.below(4)).min(len - at);
                let number = EXTREMES[self.below(EXTREMES.len())];
                let bytes = match self.below(2) {
                    0 => number.to_le_bytes(),
                    _ => (number << (64 - 8 * width)).to_be_bytes(),
                };
                input[at..at + width].copy_from_slice(&bytes[..width]);
            }
            6 => input.truncate(at),
            7 => {
                let end = at + self.below(len - at).min(64);
                input.drain(at..end);
            }
            // A piece of itself, or of another, in between.
            8 => {
                let end = at + self.below(len - at).min(64);
                let piece = input[at..end].to_vec();
                let to = self.below(len);
                input.splice(to..to, piece);
            }
            _ => {
                let from = self.below(other.len());
                let end = from + self.below(other.len() - from).min(256);
                input.splice(at..at, other[from..end].iter().copied());
            }
        }
    }
}
