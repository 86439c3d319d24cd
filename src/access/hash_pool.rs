//! The threads that check Argon2 hashes.
//!
//! A check takes tens of milliseconds of CPU time and 19 MiB by default, so it must not run on the event loop. The number
//! of threads and of waiting passwords is bounded. Threads are started when passwords wait and end after a while without
//! work, so an idle broker keeps no memory for hashes.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::sync::oneshot;

use super::password::Password;
use super::stored_password::{Argon2Hash, HashError, HashMemory};
use crate::stall::timeout;
use crate::sync::{lock, wait_timeout};
use crate::telemetry::names;

/// Largest number of threads, however many cores there are: each holds the memory of one hash, 19 MiB by default.
const MAX_THREADS: usize = 8;
/// Largest number of passwords that wait in each of the two queues. Clients beyond it are refused as "server busy".
const MAX_WAITING: usize = 4_096;
/// Longest time that a client waits for its check. Few clients wait longer for their CONNACK.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// A thread without work ends after this time, and frees its memory.
const IDLE: Duration = Duration::from_secs(10);
/// Nice value of the threads. Journaling and answering come first: a thread of this pool gets about a tenth of a core that
/// both kinds of threads want.
const NICE: i32 = 10;
/// Every fourth check is taken from the queue of suspect addresses, so that these wait longer and not for ever.
const FAIR_SHARE: u32 = 4;

/// The password was not checked: too many wait, or memory is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy;

/// Checks passwords on threads of its own.
#[derive(Debug)]
pub(super) struct HashPool {
    state: Arc<HashPoolState>,
}

#[derive(Debug)]
struct HashPoolState {
    max_threads: usize,
    queue: Mutex<HashQueue>,
    /// Wakes a thread that waits for work.
    work: Condvar,
}

#[derive(Debug, Default)]
struct HashQueue {
    /// Passwords from addresses that are not suspect.
    normal: VecDeque<HashJob>,
    /// Passwords from suspect addresses.
    suspect: VecDeque<HashJob>,
    /// Number of jobs taken so far, wrapping.
    taken: u32,
    /// Threads that run, those in `idle` included.
    threads: usize,
    /// Threads that wait for work.
    idle: usize,
}

#[derive(Debug)]
struct HashJob {
    hash: HiddenHash,
    password: Password,
    answer: oneshot::Sender<Result<bool, HashError>>,
}

/// A hash that `Debug` does not print.
struct HiddenHash(Argon2Hash);

impl std::fmt::Debug for HiddenHash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Argon2(…)")
    }
}

impl HashQueue {
    fn next(&mut self) -> Option<HashJob> {
        self.taken = self.taken.wrapping_add(1);
        if self.taken.is_multiple_of(FAIR_SHARE) {
            self.suspect.pop_front().or_else(|| self.normal.pop_front())
        } else {
            self.normal.pop_front().or_else(|| self.suspect.pop_front())
        }
    }

    fn waiting(&self) -> usize {
        self.normal.len() + self.suspect.len()
    }
}

impl HashPool {
    /// A pool of at most one thread per core, and at most [`MAX_THREADS`].
    pub fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::with_threads(cores.min(MAX_THREADS))
    }

    fn with_threads(max_threads: usize) -> Self {
        Self { state: Arc::new(HashPoolState { max_threads, queue: Mutex::default(), work: Condvar::new() }) }
    }

    /// Whether `password` has this hash. With `suspect`, the checks of other addresses go first.
    ///
    /// # Errors
    /// Too many passwords wait, the check does not begin in time, or memory is short. The client may try again.
    pub async fn verify(&self, hash: Argon2Hash, password: Password, suspect: bool) -> Result<bool, Busy> {
        let (answer, answered) = oneshot::channel();
        self.state.submit(HashJob { hash: HiddenHash(hash), password, answer }, suspect)?;
        match timeout(MAX_WAIT, answered).await {
            Ok(Ok(Ok(right))) => Ok(right),
            Ok(Ok(Err(HashError::Input))) => Ok(false),
            Ok(Ok(Err(HashError::Memory | HashError::Random(_))) | Err(_)) | Err(_) => Err(Busy),
        }
    }

    /// Sets the gauge of waiting passwords. Called once per second.
    pub fn measure(&self) {
        gauge!(names::MQTT_PASSWORDS_WAITING).set(self.state.lock().waiting() as f64);
    }
}

impl HashPoolState {
    fn lock(&self) -> MutexGuard<'_, HashQueue> {
        lock(&self.queue)
    }

    fn submit(self: &Arc<Self>, job: HashJob, suspect: bool) -> Result<(), Busy> {
        let mut queue = self.lock();
        let line = if suspect { &mut queue.suspect } else { &mut queue.normal };
        if line.len() >= MAX_WAITING {
            counter!(names::LIMITS_HIT, "limit" => "mqtt_passwords_waiting").increment(1);
            return Err(Busy);
        }
        line.push_back(job);
        if queue.idle < queue.waiting() && queue.threads < self.max_threads {
            queue.threads += 1;
            drop(queue);
            return self.spawn();
        }
        self.work.notify_one();
        Ok(())
    }

    fn spawn(self: &Arc<Self>) -> Result<(), Busy> {
        let state = Arc::clone(self);
        let spawned = thread::Builder::new().name("argon2".into()).spawn(move || {
            let count = ThreadCount(&state);
            state.work();
            // A thread that ends for lack of work has left the count under the lock already, see `next`.
            std::mem::forget(count);
        });
        match spawned {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::error!("cannot start a thread to check passwords: {error}");
                let mut queue = self.lock();
                queue.threads -= 1;
                // Without any thread nobody would check the passwords that wait: dropping them answers their clients with Busy.
                if queue.threads == 0 {
                    (queue.normal, queue.suspect) = Default::default();
                }
                Err(Busy)
            }
        }
    }

    fn work(&self) {
        // Where the system does not allow it, the threads run at normal priority.
        let _ = rustix::process::setpriority_process(None, NICE);
        let mut memory = HashMemory::default();
        while let Some(job) = self.next() {
            // The client may have given up or waited too long.
            if !job.answer.is_closed() {
                let right = job.hash.0.verify(&job.password, &mut memory);
                counter!(names::MQTT_PASSWORDS_CHECKED, "how" => "argon2").increment(1);
                let _ = job.answer.send(right);
            }
        }
    }

    /// Waits for work. `None`: there was none for a while, and the thread ends.
    fn next(&self) -> Option<HashJob> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.next() {
                return Some(job);
            }
            queue.idle += 1;
            let (woken, waited) = wait_timeout(&self.work, queue, IDLE);
            queue = woken;
            queue.idle -= 1;
            if waited.timed_out() && queue.waiting() == 0 {
                // Counted under the lock: a job submitted right after must find that this thread is gone.
                queue.threads -= 1;
                return None;
            }
        }
    }
}

/// Takes a thread out of the count if it ends by a panic.
struct ThreadCount<'a>(&'a HashPoolState);

impl Drop for ThreadCount<'_> {
    fn drop(&mut self) {
        self.0.lock().threads -= 1;
    }
}
