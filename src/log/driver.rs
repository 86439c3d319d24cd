//! Runs the writer: on a thread of its own, or inside the calls of the log's users.
//!
//! The writer itself never waits, so that the same code runs in the simulation, where one thread does everything and time
//! is a number. All waiting is here.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::error::WriterError;
use super::queue::CommitQueue;
use super::shared::LogState;
use super::writer::{LogWriter, NextWork};
use crate::sync::{lock, wait, wait_timeout};

/// Runs the writer as long as a handle of the log lives.
#[derive(Debug)]
pub(super) enum Driver {
    /// A thread does one unit of work after the other and waits between them. Dropping this closes the log.
    Thread { shared: Arc<LogState>, thread: Mutex<Option<JoinHandle<()>>> },
    /// Work is done only in [`Driver::step`] and in calls that need progress. Dropping this leaves records that wait
    /// unwritten, as a crash does.
    Inline { shared: Arc<LogState>, writer: Box<Mutex<LogWriter>> },
}

impl Driver {
    pub(super) fn thread(name: &str, shared: Arc<LogState>, writer: LogWriter) -> io::Result<Driver> {
        let running = RunningWriter(writer);
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(format!("log-{name}")).spawn(move || running.run(&for_thread))?;
        Ok(Driver::Thread { shared, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn inline(shared: Arc<LogState>, writer: LogWriter) -> Driver {
        Driver::Inline { shared, writer: Box::new(Mutex::new(writer)) }
    }

    pub(super) fn is_inline(&self) -> bool {
        matches!(self, Driver::Inline { .. })
    }

    /// Does one unit of an inline writer's work. `false` where there is none, or where a thread does the work.
    pub(super) fn step(&self) -> bool {
        let Driver::Inline { shared, writer } = self else { return false };
        let mut writer = lock(writer);
        let next = writer.next_work(&mut lock(&shared.queue));
        match next {
            NextWork::Do(work) => {
                writer.perform(work);
                true
            }
            NextWork::Wait(_) | NextWork::Ended => false,
        }
    }

    /// Lets the writer make progress: waits for its thread, or does one unit of its work. `None` where an inline writer has
    /// nothing to do: waiting for it would never end.
    pub(super) fn progress<'a>(&'a self, queue: MutexGuard<'a, CommitQueue>) -> Option<MutexGuard<'a, CommitQueue>> {
        match self {
            Driver::Thread { shared, .. } => Some(wait_for_progress(shared, queue)),
            Driver::Inline { shared, .. } => {
                drop(queue);
                self.step().then(|| lock(&shared.queue))
            }
        }
    }

    /// Lets the writer write the records that wait and end, and waits for its end.
    pub(super) fn close(&self) {
        let (Driver::Thread { shared, .. } | Driver::Inline { shared, .. }) = self;
        let mut queue = lock(&shared.queue);
        queue.closing = true;
        let room = queue.take_room_waiters();
        drop(queue);
        shared.work.notify_one();
        shared.progress.notify_all();
        room.wake();
        match self {
            Driver::Thread { thread, .. } => {
                let thread = lock(thread).take();
                match thread {
                    // A waker or callback that owns the last handle runs on the writer's thread, which cannot join itself;
                    // it ends on its own.
                    Some(thread) if thread.thread().id() == std::thread::current().id() => {}
                    // A panic of the writer is already recorded as the log's failure.
                    Some(thread) => drop(thread.join()),
                    None => wait_for_end(shared),
                }
            }
            // A closing log makes progress or fails; it never waits, so this ends.
            Driver::Inline { .. } => while self.step() {},
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Driver::Thread { thread, .. } = self
            && lock(thread).is_some()
        {
            self.close();
        }
    }
}

fn wait_for_progress<'a>(shared: &'a LogState, mut queue: MutexGuard<'a, CommitQueue>) -> MutexGuard<'a, CommitQueue> {
    queue.waiting_threads += 1;
    queue = wait(&shared.progress, queue);
    queue.waiting_threads -= 1;
    queue
}

fn wait_for_end(shared: &LogState) {
    let mut queue = lock(&shared.queue);
    while !queue.ended {
        queue = wait_for_progress(shared, queue);
    }
}

/// The writer on its thread. Dropping it tells those who wait when the thread ends by a panic.
struct RunningWriter(LogWriter);

impl RunningWriter {
    /// Works until the log is closed or fails.
    fn run(mut self, shared: &LogState) {
        let mut queue = lock(&shared.queue);
        loop {
            match self.0.next_work(&mut queue) {
                NextWork::Do(work) => {
                    drop(queue);
                    self.0.perform(work);
                    queue = lock(&shared.queue);
                }
                NextWork::Wait(until) => {
                    let limit = until.map(|until| until.saturating_sub(self.0.clock().monotonic()));
                    queue = wait_for_work(shared, queue, limit);
                }
                NextWork::Ended => return,
            }
        }
    }
}

fn wait_for_work<'a>(
    shared: &'a LogState,
    mut queue: MutexGuard<'a, CommitQueue>,
    limit: Option<Duration>,
) -> MutexGuard<'a, CommitQueue> {
    queue.writer_waits = true;
    queue = match limit {
        None => wait(&shared.work, queue),
        Some(limit) => wait_timeout(&shared.work, queue, limit).0,
    };
    queue.writer_waits = false;
    queue
}

impl Drop for RunningWriter {
    /// A panic of the writer is a failure of the log: nobody may wait for a thread that is gone.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.shared().fail(&WriterError::Panicked);
            self.0.end();
        }
    }
}
