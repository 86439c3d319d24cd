//! What drives the writer: a thread of its own, or those who call.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::queue::Queue;
use super::shared::Shared;
use super::writer::{Next, Writer};
use crate::sync::{lock, wait, wait_timeout};

/// Keeps the writer going as long as a handle of the log lives.
#[derive(Debug)]
pub(super) enum Driver {
    /// The thread does a unit of work after the other and waits between them. Dropping this closes the log.
    Thread { shared: Arc<Shared>, thread: Mutex<Option<JoinHandle<()>>> },
    /// Nothing happens but in [`Driver::step`] and in calls that need progress. Dropping this leaves what waits
    /// unwritten, as a crash does.
    Inline { shared: Arc<Shared>, writer: Box<Mutex<Writer>> },
}

impl Driver {
    pub(super) fn thread(name: &str, shared: Arc<Shared>, writer: Writer) -> io::Result<Driver> {
        let running = Running(writer);
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(format!("log-{name}")).spawn(move || running.run(&for_thread))?;
        Ok(Driver::Thread { shared, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn inline(shared: Arc<Shared>, writer: Writer) -> Driver {
        Driver::Inline { shared, writer: Box::new(Mutex::new(writer)) }
    }

    pub(super) fn is_inline(&self) -> bool {
        matches!(self, Driver::Inline { .. })
    }

    /// Does one unit of an inline writer's work; `false`: there is none now, or a thread does it.
    pub(super) fn step(&self) -> bool {
        let Driver::Inline { shared, writer } = self else { return false };
        let mut writer = lock(writer);
        let next = writer.next_work(&mut lock(&shared.queue));
        match next {
            Next::Do(work) => {
                writer.perform(work);
                true
            }
            Next::Wait(_) | Next::Ended => false,
        }
    }

    /// Gives the writer the time to get on, and `None` where it cannot without help: only inline, where waiting would
    /// be for ever.
    pub(super) fn progress<'a>(&'a self, queue: MutexGuard<'a, Queue>) -> Option<MutexGuard<'a, Queue>> {
        match self {
            Driver::Thread { shared, .. } => Some(wait_for_progress(shared, queue)),
            Driver::Inline { shared, .. } => {
                drop(queue);
                self.step().then(|| lock(&shared.queue))
            }
        }
    }

    /// Lets the writer write what waits and end, and waits for that.
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
                    // A waker or callback that owns the last handle runs on the writer itself, which ends on its own.
                    Some(thread) if thread.thread().id() == std::thread::current().id() => {}
                    // A panic of the writer is recorded as the log's failure.
                    Some(thread) => drop(thread.join()),
                    None => wait_for_end(shared),
                }
            }
            // A closing log either gets on or fails: it never waits.
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

fn wait_for_progress<'a>(shared: &'a Shared, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
    queue.waiting_threads += 1;
    queue = wait(&shared.progress, queue);
    queue.waiting_threads -= 1;
    queue
}

fn wait_for_end(shared: &Shared) {
    let mut queue = lock(&shared.queue);
    while !queue.ended {
        queue = wait_for_progress(shared, queue);
    }
}

/// The writer on its thread.
struct Running(Writer);

impl Running {
    /// Works until the log is closed or fails.
    fn run(mut self, shared: &Shared) {
        let mut queue = lock(&shared.queue);
        loop {
            match self.0.next_work(&mut queue) {
                Next::Do(work) => {
                    drop(queue);
                    self.0.perform(work);
                    queue = lock(&shared.queue);
                }
                Next::Wait(until) => {
                    let limit = until.map(|until| until.saturating_sub(self.0.clock().monotonic()));
                    queue = wait_for_work(shared, queue, limit);
                }
                Next::Ended => return,
            }
        }
    }
}

fn wait_for_work<'a>(
    shared: &'a Shared,
    mut queue: MutexGuard<'a, Queue>,
    limit: Option<Duration>,
) -> MutexGuard<'a, Queue> {
    queue.writer_waits = true;
    queue = match limit {
        None => wait(&shared.work, queue),
        Some(limit) => wait_timeout(&shared.work, queue, limit).0,
    };
    queue.writer_waits = false;
    queue
}

impl Drop for Running {
    /// Tells those who wait when the writer ends by a panic.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.shared().fail("the writer thread panicked: a defect in weir");
            self.0.end();
        }
    }
}
