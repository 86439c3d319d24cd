//! The threads that check Argon2 hashes.
//!
//! A check takes tens of milliseconds of CPU time and 19 MiB by default, so it must not run on the event loop. The memory
//! of all threads, and the number and memory of waiting passwords, are bounded. Threads are started when passwords wait and
//! end after a while without work, so an idle broker keeps no memory for hashes.

use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::sync::oneshot;

use super::hash_line::{HashJob, HashLine, HiddenHash};
use super::password::Password;
use super::stored_password::{Argon2Hash, HashError, HashMemory};
use crate::admission::PendingConnections;
use crate::stall::timeout;
use crate::sync::{lock, wait_timeout};
use crate::telemetry::names;

/// Largest number of threads, however many cores there are.
const MAX_THREADS: usize = 8;
/// Memory of the hashes that are computed at once: two of the default size. One hash is computed whatever its size.
const MAX_HASH_BYTES: usize = 40 << 20;
/// Part of the memory of all pending connections that those whose passwords wait in one of the two lines may hold.
const LINE_SHARE: usize = 4;
/// Longest time that a client waits for its check. Few clients wait longer for their CONNACK.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// A thread without work ends after this time, and frees its memory.
const IDLE: Duration = Duration::from_secs(5);
/// Nice value of the threads. Journaling and answering come first: a thread of this pool gets about a tenth of a core that
/// both kinds of threads want.
const NICE: i32 = 10;
/// Every fourth check is taken from the queue of suspect addresses, so that these wait longer and not for ever.
const FAIR_SHARE: u32 = 4;

/// The password was not checked: too many wait, or memory is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy;

/// The client whose password is checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct HashClient<'a> {
    /// Address of the client.
    pub address: Option<IpAddr>,
    /// The user name that the client presents. The user may be unknown.
    pub user: &'a str,
    /// Whether other clients go first.
    pub suspect: bool,
    /// Memory that the connection holds while it waits.
    pub held_bytes: usize,
}

/// Checks passwords on threads of its own.
#[derive(Debug)]
pub(super) struct HashPool {
    state: Arc<HashPoolState>,
}

#[derive(Debug)]
struct HashPoolState {
    max_threads: usize,
    /// Memory of all connections that have not logged in. While more than a quarter of it is in use, one hash is computed at a time.
    pending_bytes: OnceLock<Arc<PendingConnections>>,
    queue: Mutex<HashQueue>,
    /// Wakes a thread that waits for work.
    work: Condvar,
}

#[derive(Debug, Default)]
struct HashQueue {
    /// Passwords from addresses that are not suspect.
    normal: HashLine,
    /// Passwords from suspect addresses.
    suspect: HashLine,
    /// Number of jobs taken so far, wrapping.
    taken: u32,
    /// Threads that run, those in `idle` included.
    threads: usize,
    /// Threads that wait for work.
    idle: usize,
}

impl HashQueue {
    fn next(&mut self) -> Option<HashJob> {
        self.taken = self.taken.wrapping_add(1);
        if self.taken.is_multiple_of(FAIR_SHARE) {
            self.suspect.pop().or_else(|| self.normal.pop())
        } else {
            self.normal.pop().or_else(|| self.suspect.pop())
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
        Self {
            state: Arc::new(HashPoolState {
                max_threads,
                pending_bytes: OnceLock::new(),
                queue: Mutex::default(),
                work: Condvar::new(),
            }),
        }
    }

    /// Sets the memory of all connections that have not logged in; those that wait here are part of them. Before it is set,
    /// any number may wait.
    pub fn set_pending_bytes(&self, pending_bytes: Arc<PendingConnections>) {
        // Set once, when the server is built.
        let _ = self.state.pending_bytes.set(pending_bytes);
    }

    /// Whether `password` has this hash. The clients of different addresses and user names take turns.
    ///
    /// # Errors
    /// Too many passwords wait, the check does not begin in time, or memory is short. The client may try again.
    pub async fn verify(&self, hash: Argon2Hash, password: Password, client: &HashClient<'_>) -> Result<bool, Busy> {
        let (answer, answered) = oneshot::channel();
        self.state.submit(HashJob { hash: HiddenHash(hash), password, bytes: client.held_bytes, answer }, client)?;
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

    fn submit(self: &Arc<Self>, job: HashJob, client: &HashClient<'_>) -> Result<(), Busy> {
        let line_bytes = self.pending_bytes.get().map_or(usize::MAX, |pending| pending.limit() / LINE_SHARE);
        let is_memory_short = self.is_memory_short();
        let mut queue = self.lock();
        let hash_bytes = job.hash.0.memory_bytes();
        let line = if client.suspect { &mut queue.suspect } else { &mut queue.normal };
        if !line.push(job, (client.address, client.user), line_bytes) {
            counter!(names::LIMITS_HIT, "limit" => "mqtt_passwords_waiting").increment(1);
            return Err(Busy);
        }
        let all_bytes = (queue.threads + 1).saturating_mul(hash_bytes);
        let fits = queue.threads == 0 || all_bytes <= MAX_HASH_BYTES && !is_memory_short;
        if queue.idle < queue.waiting() && queue.threads < self.max_threads && fits {
            queue.threads += 1;
            drop(queue);
            return self.spawn();
        }
        self.work.notify_one();
        Ok(())
    }

    fn is_memory_short(&self) -> bool {
        self.pending_bytes.get().is_some_and(|pending| pending.is_quarter_full())
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

    /// Waits for work. `None`: there was none for a while, or memory is short and another thread works; the thread ends.
    fn next(&self) -> Option<HashJob> {
        let is_memory_short = self.is_memory_short();
        let mut queue = self.lock();
        if is_memory_short && queue.threads > 1 {
            queue.threads -= 1;
            // The job that woke this thread may wait for another one.
            self.work.notify_one();
            return None;
        }
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
