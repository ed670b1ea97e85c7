//! Memory that goes round: from whoever fills it to whoever is done with it, and back.
//!
//! Batches are large and many. Memory that is given back to the system for each of them is
//! zeroed and mapped again for the next one, which costs as much as filling it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// At most so many wait to be used again.
const KEPT: usize = 3;

/// Where values of one kind wait to be used again. Cloning shares it.
#[derive(Debug)]
pub struct Pool<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Pool(Arc::clone(&self.0))
    }
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Pool(Arc::default())
    }
}

impl<T> Pool<T> {
    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        // The list is whole whatever panicked while it was held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Default> Pool<T> {
    /// A value that was used before (as it was left), or a new one.
    pub fn take(&self) -> Pooled<T> {
        Pooled {
            value: self.lock().pop().unwrap_or_default(),
            pool: Some(self.clone()),
        }
    }
}

/// A value that returns to its pool, if it has one.
#[derive(Debug, Default)]
pub struct Pooled<T: Default> {
    value: T,
    pool: Option<Pool<T>>,
}

impl<T: Default> Deref for Pooled<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Default> DerefMut for Pooled<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Default> Drop for Pooled<T> {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            let value = std::mem::take(&mut self.value);
            let mut waiting = pool.lock();
            if waiting.len() < KEPT {
                waiting.push(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_with_its_memory_and_few_are_kept() {
        let pool: Pool<Vec<u8>> = Pool::default();
        let mut first = pool.take();
        first.reserve(1000);
        let capacity = first.capacity();
        drop(first);
        assert_eq!(pool.take().capacity(), capacity);
        let many: Vec<_> = (0..10).map(|_| pool.take()).collect();
        drop(many);
        assert_eq!(pool.lock().len(), KEPT);
    }
}
