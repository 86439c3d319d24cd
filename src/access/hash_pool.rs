//! The threads that compute Argon2: beside the event loop, bounded in number and in how many wait for them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::password::{Argon2Hash, HashError, HashMemory, Password};
use crate::sync::{lock, wait_timeout};
use crate::telemetry::names;

/// Threads at most, however many cores there are: each holds the memory of one hash, 19 MiB by default.
const MAX_THREADS: usize = 8;
/// Passwords that wait in each of the two queues at most. Beyond it a client is told to come again.
const MAX_WAITING: usize = 4_096;
/// How long a client waits for its turn: few clients wait longer for their CONNACK.
const PATIENCE: Duration = Duration::from_secs(10);
/// A thread without work ends after this time, and gives its memory back.
const IDLE: Duration = Duration::from_secs(10);
/// How much the threads stand back behind those that journal and answer: they get a tenth of a core that both want.
const NICE: i32 = 10;
/// Of so many checks one is of an address with failures, where there are others.
const FAIR_SHARE: u32 = 4;

/// Why a password was not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy;

/// Hands passwords to threads that come with the work and go without it.
#[derive(Debug)]
pub(super) struct HashPool {
    shared: Arc<HashPoolState>,
}

#[derive(Debug)]
struct HashPoolState {
    max_threads: usize,
    queue: Mutex<HashQueue>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct HashQueue {
    /// Of addresses without failures.
    first: VecDeque<HashJob>,
    /// Of addresses with failures.
    second: VecDeque<HashJob>,
    taken: u32,
    threads: usize,
    idle: usize,
}

#[derive(Debug)]
struct HashJob {
    hash: Secret,
    password: Password,
    answer: oneshot::Sender<Result<bool, HashError>>,
}

/// A hash that is not shown.
struct Secret(Argon2Hash);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Argon2(…)")
    }
}

impl HashQueue {
    fn next(&mut self) -> Option<HashJob> {
        self.taken = self.taken.wrapping_add(1);
        if self.taken.is_multiple_of(FAIR_SHARE) {
            self.second.pop_front().or_else(|| self.first.pop_front())
        } else {
            self.first.pop_front().or_else(|| self.second.pop_front())
        }
    }

    fn waiting(&self) -> usize {
        self.first.len() + self.second.len()
    }
}

impl HashPool {
    /// As many threads at most as there are cores, and [`MAX_THREADS`].
    pub fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::with_threads(cores.min(MAX_THREADS))
    }

    fn with_threads(max_threads: usize) -> Self {
        Self { shared: Arc::new(HashPoolState { max_threads, queue: Mutex::default(), work: Condvar::new() }) }
    }

    /// Whether this is the password. `suspect`: others go first.
    ///
    /// # Errors
    /// Too many wait, or there is no memory: the client may come again.
    pub async fn verify(&self, hash: Argon2Hash, password: Password, suspect: bool) -> Result<bool, Busy> {
        let (answer, answered) = oneshot::channel();
        self.shared.submit(HashJob { hash: Secret(hash), password, answer }, suspect)?;
        match timeout(PATIENCE, answered).await {
            Ok(Ok(Ok(right))) => Ok(right),
            Ok(Ok(Err(HashError::Input))) => Ok(false),
            Ok(Ok(Err(HashError::Memory | HashError::Random)) | Err(_)) | Err(_) => Err(Busy),
        }
    }

    /// Sets the gauge; called once per second.
    pub fn measure(&self) {
        gauge!(names::MQTT_PASSWORDS_WAITING).set(self.shared.lock().waiting() as f64);
    }
}

impl HashPoolState {
    fn lock(&self) -> MutexGuard<'_, HashQueue> {
        lock(&self.queue)
    }

    fn submit(self: &Arc<Self>, job: HashJob, suspect: bool) -> Result<(), Busy> {
        let mut queue = self.lock();
        let line = if suspect { &mut queue.second } else { &mut queue.first };
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
        let shared = Arc::clone(self);
        let spawned = thread::Builder::new().name("argon2".into()).spawn(move || {
            let counted = ThreadCount(&shared);
            shared.work();
            // Without work it was taken out of the count before the lock was given back.
            std::mem::forget(counted);
        });
        match spawned {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::error!("cannot start a thread to check passwords: {error}");
                let mut queue = self.lock();
                queue.threads -= 1;
                // Nobody would answer those that wait.
                if queue.threads == 0 {
                    (queue.first, queue.second) = Default::default();
                }
                Err(Busy)
            }
        }
    }

    fn work(&self) {
        // Where it is not allowed the threads are as important as others.
        let _ = rustix::process::setpriority_process(None, NICE);
        let mut memory = HashMemory::default();
        while let Some(job) = self.next() {
            // Its client may have waited too long.
            if !job.answer.is_closed() {
                let right = job.hash.0.verify(&job.password, &mut memory);
                counter!(names::MQTT_PASSWORDS_CHECKED, "how" => "argon2").increment(1);
                let _ = job.answer.send(right);
            }
        }
    }

    /// Waits for work; `None` where there was none for a while.
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
                // Here, or work that comes right after would be left to a thread that is gone.
                queue.threads -= 1;
                return None;
            }
        }
    }
}

/// Takes a thread out of the count that ends by a panic.
struct ThreadCount<'a>(&'a HashPoolState);

impl Drop for ThreadCount<'_> {
    fn drop(&mut self) {
        self.0.lock().threads -= 1;
    }
}
