//! New results for readers that come and go, such as event streams. A reader that does not keep up misses results and is
//! told how many.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::results::follow::{ResultFollower, ResultSubscriber};
use crate::results::record::{ResultKind, ResultRecord};
use crate::sync::lock;

/// Results that wait for the slowest reader. A reader that falls further behind misses the oldest.
const RESULTS_KEPT: usize = 8_192;

/// A result on its way to the readers.
#[derive(Debug, PartialEq, Eq)]
pub struct ResultEvent {
    /// Which log the result comes from.
    pub kind: ResultKind,
    /// Sequence number of the result in its log.
    pub seq: u64,
    /// The device, where it is known.
    pub device_id: Option<String>,
    /// The same JSON as in lists and over MQTT.
    pub json: Bytes,
}

/// Hands results to any number of readers. Without readers nothing is decoded for the feed.
#[derive(Debug)]
pub struct EventFeed {
    follower: ResultFollower,
    channel: Arc<FeedChannel>,
}

#[derive(Debug)]
struct FeedChannel {
    sender: broadcast::Sender<Arc<ResultEvent>>,
    /// Whether the follower has the feed among its subscribers.
    subscribed: Mutex<bool>,
}

/// The feed as the follower's subscriber, from the first reader to the last.
struct FeedSubscriber(Arc<FeedChannel>);

impl EventFeed {
    /// A feed of what `follower` reads.
    pub fn new(follower: ResultFollower) -> Arc<Self> {
        let channel = FeedChannel { sender: broadcast::Sender::new(RESULTS_KEPT), subscribed: Mutex::new(false) };
        Arc::new(Self { follower, channel: Arc::new(channel) })
    }

    /// A new reader: results that enter the logs after the call.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<ResultEvent>> {
        let mut subscribed = lock(&self.channel.subscribed);
        // Under the lock, so that the feed cannot leave the follower before it sees this reader.
        let receiver = self.channel.sender.subscribe();
        if !*subscribed {
            *subscribed = true;
            let from = self.follower.results().readable();
            self.follower.subscribe(from, Box::new(FeedSubscriber(Arc::clone(&self.channel))));
        }
        receiver
    }
}

impl ResultSubscriber for FeedSubscriber {
    fn leave(&mut self) -> bool {
        let mut subscribed = lock(&self.0.subscribed);
        *subscribed = self.0.sender.receiver_count() > 0;
        !*subscribed
    }

    fn listens_to(&self, _kind: ResultKind) -> bool {
        true
    }

    fn receive(&mut self, record: &ResultRecord<'_>) {
        let event = ResultEvent {
            kind: record.result.kind(),
            seq: record.seq,
            device_id: record.result.device_id().map(str::to_owned),
            json: record.json(),
        };
        // No receiver: the last reader has just gone.
        drop(self.0.sender.send(Arc::new(event)));
    }
}
