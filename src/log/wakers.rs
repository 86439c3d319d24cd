//! A set of tasks to wake. A connection with many publishes in one batch is in it once.

use std::task::Waker;

use hashbrown::HashSet;

/// Wakers in the order in which they were added, each task once however often it was added.
#[derive(Debug, Default)]
pub(super) struct WakerSet {
    wakers: Vec<Waker>,
    known: HashSet<(usize, usize), foldhash::fast::FixedState>,
}

impl WakerSet {
    /// Adds a waker, unless the set has one that wakes the same task.
    pub(super) fn add(&mut self, waker: &Waker) {
        if self.wakers.last().is_some_and(|last| last.will_wake(waker)) {
            return;
        }
        // The pair that `Waker::will_wake` compares. The clone in the set keeps the task alive, so no other task can have
        // its address.
        let key = (waker.data().addr(), std::ptr::from_ref(waker.vtable()).addr());
        if self.known.insert(key) {
            self.wakers.push(waker.clone());
        }
    }

    /// Adds all wakers of `other`.
    pub(super) fn append(&mut self, other: WakerSet) {
        if self.wakers.is_empty() {
            *self = other;
            return;
        }
        for waker in &other.wakers {
            self.add(waker);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.wakers.len()
    }

    /// Wakes all tasks.
    pub(super) fn wake(self) {
        for waker in self.wakers {
            waker.wake();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::{Arc, Condvar, Mutex};
    use std::task::Wake;

    /// Counts how often it was woken.
    #[derive(Debug, Default)]
    pub(in crate::log) struct Bell {
        rings: Mutex<usize>,
        rung: Condvar,
    }

    impl Bell {
        pub(in crate::log) fn new() -> (Arc<Bell>, Waker) {
            let bell = Arc::new(Bell::default());
            (Arc::clone(&bell), Waker::from(bell))
        }

        pub(in crate::log) fn rings(&self) -> usize {
            *self.rings.lock().unwrap()
        }

        /// Waits until it was woken.
        pub(in crate::log) fn wait(&self) {
            drop(self.rung.wait_while(self.rings.lock().unwrap(), |rings| *rings == 0).unwrap());
        }
    }

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            *self.rings.lock().unwrap() += 1;
            self.rung.notify_all();
        }
    }

    #[test]
    fn each_task_is_woken_once() {
        let ((first, first_waker), (second, second_waker)) = (Bell::new(), Bell::new());
        let mut set = WakerSet::default();
        for waker in [&first_waker, &first_waker, &second_waker, &first_waker.clone()] {
            set.add(waker);
        }
        let mut other = WakerSet::default();
        other.add(&second_waker);
        set.append(other);
        assert_eq!(set.len(), 2);
        set.wake();
        assert_eq!((first.rings(), second.rings()), (1, 1));
    }
}
