use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::*;
use crate::results::feed::EventFeed;
use crate::results::testing::{append_errors, append_windows, result_logs};

/// What a subscriber got, and whether it listens and stays.
#[derive(Debug, Default)]
struct Recorded {
    records: Mutex<Vec<(ResultKind, u64, Bytes)>>,
    deaf: AtomicBool,
    left: AtomicBool,
}

impl Recorded {
    fn seqs(&self, kind: ResultKind) -> Vec<u64> {
        lock(&self.records).iter().filter(|(found, ..)| *found == kind).map(|(_, seq, _)| *seq).collect()
    }
}

struct RecordingSubscriber(Arc<Recorded>);

impl ResultSubscriber for RecordingSubscriber {
    fn leave(&mut self) -> bool {
        self.0.left.load(Ordering::Relaxed)
    }

    fn listens_to(&self, _kind: ResultKind) -> bool {
        !self.0.deaf.load(Ordering::Relaxed)
    }

    fn receive(&mut self, record: &ResultRecord<'_>) {
        lock(&self.0.records).push((record.result.kind(), record.seq, record.json()));
    }
}

fn subscribe(follower: &ResultFollower, windows: u64) -> Arc<Recorded> {
    let recorded = Arc::new(Recorded::default());
    let from = ResultPositions { windows: Lsn(windows), errors: Lsn(0) };
    follower.subscribe(from, Box::new(RecordingSubscriber(recorded.clone())));
    recorded
}

fn follower() -> ResultFollower {
    ResultFollower::new(result_logs())
}

#[test]
fn each_subscriber_gets_everything_from_its_position_on_once() {
    let follower = follower();
    append_windows(follower.results(), &["a", "b", "c"]);
    append_windows(follower.results(), &["d"]);
    append_errors(follower.results(), &["late"]);
    let (all, some) = (subscribe(&follower, 0), subscribe(&follower, 2));
    follower.catch_up();
    append_windows(follower.results(), &["e", "f"]);
    follower.catch_up();
    assert_eq!(all.seqs(ResultKind::Window), [0, 1, 2, 3, 4, 5]);
    assert_eq!(some.seqs(ResultKind::Window), [2, 3, 4, 5]);
    assert_eq!((all.seqs(ResultKind::Error), some.seqs(ResultKind::Error)), (vec![0], vec![0]));
}

#[test]
fn subscribers_at_one_position_share_the_json() {
    let follower = follower();
    let (one, other) = (subscribe(&follower, 0), subscribe(&follower, 0));
    append_windows(follower.results(), &["a"]);
    follower.catch_up();
    let json = |recorded: &Recorded| lock(&recorded.records)[0].2.as_ptr();
    assert_eq!(json(&one), json(&other));
}

#[test]
fn results_that_nobody_wants_are_passed_over_and_indexed() {
    let follower = follower();
    let recorded = subscribe(&follower, 0);
    recorded.deaf.store(true, Ordering::Relaxed);
    append_windows(follower.results(), &["a", "b"]);
    follower.catch_up();
    recorded.deaf.store(false, Ordering::Relaxed);
    append_windows(follower.results(), &["c"]);
    follower.catch_up();
    assert_eq!(recorded.seqs(ResultKind::Window), [2]);
    assert!(follower.results().windows.index(0).unwrap(), "the follower has indexed all three");
}

#[test]
fn a_subscriber_that_leaves_gets_nothing_more() {
    let follower = follower();
    let recorded = subscribe(&follower, 0);
    recorded.left.store(true, Ordering::Relaxed);
    append_windows(follower.results(), &["a"]);
    follower.catch_up();
    assert_eq!((recorded.seqs(ResultKind::Window), Arc::strong_count(&recorded)), (vec![], 1));
}

#[test]
fn a_feed_follows_while_it_has_readers() {
    let follower = follower();
    let feed = EventFeed::new(follower.clone());
    append_windows(follower.results(), &["before"]);
    let mut reader = feed.subscribe();
    append_windows(follower.results(), &["a"]);
    follower.catch_up();
    assert_eq!(reader.try_recv().map(|event| event.seq).ok(), Some(1));
    drop(reader);
    append_windows(follower.results(), &["unseen"]);
    follower.catch_up();
    let mut reader = feed.subscribe();
    append_windows(follower.results(), &["b"]);
    follower.catch_up();
    assert_eq!(reader.try_recv().map(|event| event.seq).ok(), Some(3));
    assert!(reader.try_recv().is_err());
}
