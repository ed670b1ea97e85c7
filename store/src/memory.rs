//! The memory of blocks of events, used again.
//!
//! Under load a block is some MiB long, and many of them come and go in a second. Memory that is
//! new for each is given by the kernel page by page, and emptied first, which costs more than to
//! write what it is for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// So much is kept for later: of a block that is made while the one before it is written.
const KEPT: usize = 2;

/// Less is not worth keeping, bytes.
const WORTH: usize = 64 << 10;

/// What was used before, and is free. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockMemory(Arc<Mutex<Vec<Vec<u8>>>>);

impl BlockMemory {
    /// Some, empty: new if nothing is free.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.free().pop().unwrap_or_default()
    }

    /// Bytes to be shared, whose memory is free again when nobody holds them any more.
    pub(crate) fn share(&self, bytes: Vec<u8>) -> Bytes {
        // What is held for long is no larger than it must be.
        if bytes.capacity() >= WORTH && bytes.len() < bytes.capacity() / 2 {
            let small = Bytes::copy_from_slice(&bytes);
            self.give_back(bytes);
            return small;
        }
        Bytes::from_owner(Lent {
            bytes,
            memory: self.clone(),
        })
    }

    /// Keeps nothing that is free.
    pub(crate) fn rest(&self) {
        *self.free() = Vec::new();
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut free = self.free();
        if free.len() < KEPT && bytes.capacity() >= WORTH {
            free.push(bytes);
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // The list is whole whatever panicked while it was held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that are shared.
struct Lent {
    bytes: Vec<u8>,
    memory: BlockMemory,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.memory.give_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_any_more_is_used_again() {
        let memory = BlockMemory::default();
        let mut bytes = Vec::with_capacity(1 << 20);
        bytes.resize(900 << 10, 7);
        let at = bytes.as_ptr();
        let shared = memory.share(bytes);
        let part = shared.slice(..10);
        drop(shared);
        assert_eq!(memory.take().capacity(), 0, "a part of it is held");
        assert_eq!(part, [7; 10].as_slice());
        drop(part);
        let again = memory.take();
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
    }

    #[test]
    fn little_that_is_held_holds_no_large_memory() {
        let memory = BlockMemory::default();
        let mut bytes = Vec::with_capacity(1 << 20);
        bytes.extend_from_slice(b"little");
        let at = bytes.as_ptr();
        let shared = memory.share(bytes);
        assert_eq!(shared, b"little".as_slice());
        let again = memory.take();
        assert_eq!(again.as_ptr(), at, "it is free at once");
    }

    #[test]
    fn at_rest_nothing_is_kept() {
        let memory = BlockMemory::default();
        drop(memory.share(vec![0; 1 << 20]));
        memory.rest();
        assert_eq!(memory.take().capacity(), 0);
    }
}
