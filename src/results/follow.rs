//! The follower: one thread that reads what enters the output logs, decodes each result once, indexes it and hands it to
//! every subscriber.
//!
//! The follower never holds up the logs' writers: it reads what is readable already. No subscriber holds up another
//! either: a subscriber takes a result without waiting, and each has a position of its own. Subscribers at the same
//! position, which is the rule, share what was read and decoded; one that is behind catches up a batch at a time, in
//! turns with the others.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Wake, Waker};

use crate::log::Lsn;
use crate::results::cursor::{ResultBatch, ResultCursor};
use crate::results::error::ScanError;
use crate::results::log::{ResultLog, ResultLogs, ResultPositions};
use crate::results::record::{ResultKind, ResultRecord};
use crate::sync::{lock, wait};

/// Records that are added to an index before subscribers get their turn again: some milliseconds.
const INDEX_STEP: u64 = 5_000;
/// Rounds of handing on before the indexes get a step, while there is something to hand on. After a start with large logs
/// the indexes are rebuilt from disk; new results must not wait for that.
const ROUNDS_PER_INDEX_STEP: usize = 64;

/// Takes results in the order of their logs. Methods must not wait. A subscriber whose receiver is slow drops results and
/// counts them, or reads with a [`ResultCursor`] on a thread of its own.
pub trait ResultSubscriber: Send {
    /// Returns `true` when the subscriber wants no more results. The follower asks before each round and then drops it.
    fn leave(&mut self) -> bool {
        false
    }

    /// Whether results of this kind are wanted at the moment. Where nobody wants them they are passed over unread.
    fn listens_to(&self, kind: ResultKind) -> bool;

    /// Takes the next result.
    fn receive(&mut self, record: &ResultRecord<'_>);
}

/// Handle of the follower. Clones share it.
#[derive(Clone)]
pub struct ResultFollower(Arc<FollowerShared>);

struct FollowerShared {
    results: Arc<ResultLogs>,
    /// Subscribers that the thread has not taken over yet.
    newcomers: Mutex<Vec<Subscription>>,
    signal: Arc<FollowerSignal>,
}

/// A subscriber with its positions.
struct Subscription {
    subscriber: Box<dyn ResultSubscriber>,
    windows: ResultCursor,
    errors: ResultCursor,
}

/// Wakes the thread. The logs get it as their waker.
#[derive(Debug, Default)]
struct FollowerSignal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SignalState {
    raised: bool,
    stop: bool,
}

impl FollowerSignal {
    fn raise(&self, stop: bool) {
        let mut state = lock(&self.state);
        state.raised = true;
        state.stop |= stop;
        self.changed.notify_one();
    }

    fn is_stopped(&self) -> bool {
        lock(&self.state).stop
    }

    fn wait(&self) {
        let mut state = lock(&self.state);
        while !state.raised {
            state = wait(&self.changed, state);
        }
        state.raised = false;
    }
}

impl Wake for FollowerSignal {
    fn wake(self: Arc<Self>) {
        self.raise(false);
    }
}

impl fmt::Debug for ResultFollower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultFollower").field("results", &self.0.results).finish_non_exhaustive()
    }
}

impl ResultFollower {
    /// A follower of these logs. Nothing is read before [`ResultFollower::run`].
    pub fn new(results: Arc<ResultLogs>) -> Self {
        Self(Arc::new(FollowerShared { results, newcomers: Mutex::default(), signal: Arc::default() }))
    }

    /// The logs that it follows.
    pub fn results(&self) -> &Arc<ResultLogs> {
        &self.0.results
    }

    /// Adds a subscriber, which gets everything from `from` on.
    pub fn subscribe(&self, from: ResultPositions, subscriber: Box<dyn ResultSubscriber>) {
        let results = &self.0.results;
        let windows = ResultCursor::new(&results.windows, from.windows);
        let errors = ResultCursor::new(&results.errors, from.errors);
        lock(&self.0.newcomers).push(Subscription { subscriber, windows, errors });
        self.0.signal.raise(false);
    }

    /// Follows both logs until [`ResultFollower::stop`]. Runs on a thread of its own, once.
    pub fn run(&self) {
        let FollowerShared { results, signal, .. } = &*self.0;
        let waker = Waker::from(Arc::clone(signal));
        results.windows.log().watch(waker.clone());
        results.errors.log().watch(waker);
        let mut work = FollowerWork::new(&self.0);
        while !signal.is_stopped() {
            if !work.turn() {
                signal.wait();
            }
        }
    }

    /// Hands on what the logs hold, on this thread.
    #[cfg(test)]
    pub(crate) fn catch_up(&self) {
        let mut work = FollowerWork::new(&self.0);
        while work.turn() {}
        lock(&self.0.newcomers).append(&mut work.subscriptions);
    }

    /// Ends [`ResultFollower::run`] soon.
    pub fn stop(&self) {
        self.0.signal.raise(true);
    }
}

/// State of the thread that follows.
struct FollowerWork<'a> {
    shared: &'a FollowerShared,
    subscriptions: Vec<Subscription>,
    indexes: [IndexUpkeep<'a>; 2],
}

impl<'a> FollowerWork<'a> {
    fn new(shared: &'a FollowerShared) -> Self {
        let ResultLogs { windows, errors } = &*shared.results;
        Self { shared, subscriptions: Vec::new(), indexes: [windows, errors].map(IndexUpkeep::new) }
    }

    /// Hands on some results and indexes some records. Returns whether there was anything to do.
    fn turn(&mut self) -> bool {
        // Taken out first: `leave` must not run under the lock that `subscribe` takes.
        self.subscriptions.append(&mut lock(&self.shared.newcomers));
        self.subscriptions.retain_mut(|subscription| !subscription.subscriber.leave());
        let ResultLogs { windows, errors } = &*self.shared.results;
        let mut worked = false;
        for _ in 0..ROUNDS_PER_INDEX_STEP {
            let handed_on = [windows, errors].map(|log| hand_on(log, &mut self.subscriptions));
            if handed_on == [false, false] {
                break;
            }
            worked = true;
        }
        for index in &mut self.indexes {
            worked |= index.step();
        }
        worked
    }
}

impl Subscription {
    fn cursor(&mut self, kind: ResultKind) -> &mut ResultCursor {
        match kind {
            ResultKind::Window => &mut self.windows,
            ResultKind::Error => &mut self.errors,
        }
    }
}

/// Hands the next results of one log to its subscribers: one batch to each position that a subscriber stands at.
/// Returns whether there were any.
fn hand_on(results: &ResultLog, subscriptions: &mut [Subscription]) -> bool {
    let (kind, mut any) = (results.kind(), false);
    for lead in 0..subscriptions.len() {
        let position = subscriptions[lead].cursor(kind).position();
        let readable = results.log().readable();
        if position >= readable {
            continue;
        }
        let mut group: Vec<&mut Subscription> = subscriptions.iter_mut().collect();
        group.retain_mut(|member| member.cursor(kind).position() == position);
        if !group.iter().any(|member| member.subscriber.listens_to(kind)) {
            move_to(&mut group, kind, readable);
            any = true;
            continue;
        }
        let [reader, ..] = &mut group[..] else { continue };
        match reader.cursor(kind).next_batch() {
            Ok(Some(batch)) => {
                any = true;
                move_to(&mut group, kind, batch.end());
                hand_on_batch(results, &batch, &mut group);
            }
            Ok(None) => {}
            Err(error) => {
                // The file is damaged here: subscribers go on with what is new.
                let log = kind.log_name();
                tracing::warn!(%error, log, "results cannot be handed to subscribers; they go on at the end of the log");
                any = true;
                move_to(&mut group, kind, readable);
            }
        }
    }
    any
}

fn move_to(group: &mut [&mut Subscription], kind: ResultKind, position: Lsn) {
    for member in group {
        member.cursor(kind).seek(position);
    }
}

fn hand_on_batch(results: &ResultLog, batch: &ResultBatch, group: &mut [&mut Subscription]) {
    let records: Vec<ResultRecord<'_>> = batch.results().collect();
    results.index_batch(&batch.positions(), &records);
    let subscribers = group.iter_mut().map(|member| &mut member.subscriber);
    for subscriber in subscribers.filter(|subscriber| subscriber.listens_to(results.kind())) {
        for record in &records {
            subscriber.receive(record);
        }
    }
}

/// Keeps the index of one log up to date, in steps.
struct IndexUpkeep<'a> {
    results: &'a ResultLog,
    /// Whether the last attempt failed: a failure that lasts is logged once.
    failed: bool,
}

impl<'a> IndexUpkeep<'a> {
    fn new(results: &'a ResultLog) -> Self {
        Self { results, failed: false }
    }

    /// Indexes some further records. Returns whether more are left.
    fn step(&mut self) -> bool {
        match self.results.index(INDEX_STEP) {
            Ok(complete) => {
                self.failed &= !complete;
                !complete
            }
            Err(error) => {
                if !self.failed {
                    self.log_failure(&error);
                }
                self.failed = true;
                // The next wake-up tries again.
                false
            }
        }
    }

    fn log_failure(&self, error: &ScanError) {
        tracing::error!(%error, log = self.results.kind().log_name(), "the index of results cannot be kept up to date");
    }
}

#[cfg(test)]
mod tests;
