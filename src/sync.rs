//! Locks that forgive poisoning.
//!
//! A panic in weir ends one connection or one request; the others go on. The standard library marks a mutex as
//! poisoned when a thread panics while it holds it, and every later `lock` returns an error. Passing that error on
//! would turn one panic into the end of every connection that shares the lock. The functions of this module take the
//! lock regardless.
//!
//! This is sound only because no section under a lock of weir's leaves its data half changed when it panics. Whoever
//! adds a section keeps it so: compute first, then change. Parts for which a panic is the end (the log's writer, the
//! pipeline) say so in a state of their own, which does not depend on poisoning.

use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, WaitTimeoutResult,
};
use std::time::Duration;

/// Locks `mutex`, also after a holder of it panicked.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes `lock` for reading, also after a holder of it panicked.
pub fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Takes `lock` for writing, also after a holder of it panicked.
pub fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `condition` is notified. Like every wait on a condition variable it may also return for no reason.
pub fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `condition` is notified or `limit` has passed. It may also return for no reason.
pub fn wait_timeout<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    limit: Duration,
) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
    condition.wait_timeout(guard, limit).unwrap_or_else(PoisonError::into_inner)
}

/// Waits while `waits` returns true, at most until `limit` has passed.
pub fn wait_timeout_while<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    limit: Duration,
    waits: impl FnMut(&mut T) -> bool,
) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
    condition.wait_timeout_while(guard, limit, waits).unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_lock_is_taken_after_its_holder_panicked() {
        let (mutex, shared) = (Mutex::new(1), RwLock::new(2));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _held = (lock(&mutex), write(&shared));
            panic!("while both are held");
        }));
        assert!(panicked.is_err() && mutex.is_poisoned() && shared.is_poisoned());
        *lock(&mutex) += 1;
        *write(&shared) += 1;
        assert_eq!((*lock(&mutex), *read(&shared)), (2, 3));
    }
}
