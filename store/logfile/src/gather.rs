//! What was written and not yet handed on.

/// As much is handed on at once. Larger pieces take no less time.
const CAPACITY: usize = 64 << 10;

/// The end of a log, as far as the system does not have it. Offsets and sizes are in bytes.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    bytes: Vec<u8>,
    /// Where it begins in the file.
    begin: u64,
}

impl Gathered {
    /// Takes `data`, which belongs at `at`. What does not go on where this ends, or has no room
    /// in it, is taken after what there was is handed on.
    pub(crate) fn write<E>(
        &mut self,
        at: u64,
        data: &[u8],
        mut hand_on: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let goes_on = !self.bytes.is_empty() && at == self.end();
        if !goes_on || self.bytes.len() + data.len() > CAPACITY {
            self.hand_on(&mut hand_on)?;
            if data.len() >= CAPACITY {
                return hand_on(at, data);
            }
            self.begin = at;
            self.bytes.reserve_exact(CAPACITY);
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    /// Hands on what there is. After a failure it is still there.
    pub(crate) fn hand_on<E>(
        &mut self,
        hand_on: impl FnOnce(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.bytes.is_empty() {
            hand_on(self.begin, &self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }

    /// Whether there is something of what lies at `at`.
    pub(crate) fn has_part_of(&self, at: u64, size: u64) -> bool {
        !self.bytes.is_empty() && at < self.end() && self.begin < at.saturating_add(size)
    }

    fn end(&self) -> u64 {
        self.begin + self.bytes.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file, and the pieces in which it was written.
    #[derive(Default)]
    struct File {
        pieces: Vec<(u64, usize)>,
        bytes: Vec<u8>,
        is_full: bool,
    }

    impl File {
        fn take(&mut self, at: u64, data: &[u8]) -> Result<(), &'static str> {
            if self.is_full {
                return Err("full");
            }
            self.pieces.push((at, data.len()));
            let begin = usize::try_from(at).map_err(|_| "far away")?;
            let end = begin + data.len();
            self.bytes.resize(self.bytes.len().max(end), 0);
            self.bytes[begin..end].copy_from_slice(data);
            Ok(())
        }
    }

    #[test]
    fn what_follows_is_handed_on_as_one() {
        let (mut gathered, mut file) = (Gathered::default(), File::default());
        for n in 0..100_u8 {
            let at = u64::from(n) * 1_000;
            let written = gathered.write(at, &[n; 1_000], |at, data| file.take(at, data));
            assert_eq!(written, Ok(()));
        }
        assert_eq!(file.pieces, [(0, 65_000)]);
        assert!(gathered.has_part_of(99_999, 1));
        assert!(!gathered.has_part_of(100_000, 1));
        assert!(!gathered.has_part_of(0, 65_000));
        assert_eq!(gathered.hand_on(|at, data| file.take(at, data)), Ok(()));
        assert_eq!(file.pieces, [(0, 65_000), (65_000, 35_000)]);
        let whole: Vec<u8> = (0..100).flat_map(|n| [n; 1_000]).collect();
        assert_eq!(file.bytes, whole);
        assert!(!gathered.has_part_of(0, 100_000));
    }

    #[test]
    fn what_lies_elsewhere_comes_after_what_there_was() {
        let (mut gathered, mut file) = (Gathered::default(), File::default());
        for (at, data) in [(0, [1; 8]), (8, [2; 8]), (4, [3; 8]), (100, [4; 8])] {
            let written = gathered.write(at, &data, |at, data| file.take(at, data));
            assert_eq!(written, Ok(()));
        }
        assert_eq!(file.pieces, [(0, 16), (4, 8)]);
        assert_eq!(gathered.hand_on(|at, data| file.take(at, data)), Ok(()));
        assert_eq!(
            file.bytes[..16],
            [1, 1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2]
        );
        assert_eq!(file.bytes[100..], [4; 8]);
    }

    #[test]
    fn more_than_fits_is_handed_on_as_it_is() {
        let (mut gathered, mut file) = (Gathered::default(), File::default());
        let large = vec![7; CAPACITY];
        assert_eq!(gathered.write(0, &[1; 8], |a, d| file.take(a, d)), Ok(()));
        assert_eq!(gathered.write(8, &large, |a, d| file.take(a, d)), Ok(()));
        assert_eq!(file.pieces, [(0, 8), (8, CAPACITY)]);
    }

    #[test]
    fn what_was_refused_stays_and_comes_first() {
        let (mut gathered, mut file) = (Gathered::default(), File::default());
        assert_eq!(gathered.write(0, &[1; 8], |a, d| file.take(a, d)), Ok(()));
        file.is_full = true;
        assert_eq!(gathered.hand_on(|a, d| file.take(a, d)), Err("full"));
        assert_eq!(
            gathered.write(4, &[2; 8], |a, d| file.take(a, d)),
            Err("full")
        );
        assert!(gathered.has_part_of(0, 1));
        file.is_full = false;
        assert_eq!(gathered.write(4, &[2; 8], |a, d| file.take(a, d)), Ok(()));
        assert_eq!(gathered.hand_on(|a, d| file.take(a, d)), Ok(()));
        assert_eq!(file.pieces, [(0, 8), (4, 8)]);
        assert_eq!(file.bytes, [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2]);
    }
}
