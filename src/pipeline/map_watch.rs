//! Live views of what maps make of messages, for people.
//!
//! A view follows the journal from where the pipeline is, with a copy of what maps remember, on a thread that runs as long as the
//! view is open (a blocking thread of tokio). Messages that are not journaled, because a map ignores their topic or no map takes it, come from the connections.
//! Without a view nothing of this costs anything, except one look at a counter for each message that is not journaled.
//!
//! A view is lossy: it shows so many messages in a second at most, and a reader that does not keep up misses messages. What it misses
//! is counted.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::core::formats::MappedOutcome;
use crate::core::map_view::{MapView, ViewedMessage};
use crate::core::record::{PublishRecord, Record, RecordDecoder};
use crate::log::{Batch, Log, Lsn};
use crate::pipeline::handle::Pipeline;
use crate::sync::lock;

/// Views at a time.
pub const MAX_WATCHERS: usize = 4;
/// Messages that a view shows in a second, at most.
const MAX_PER_SECOND: u32 = 1_000;
/// Messages that wait for the reader of a view.
const WAITING_MESSAGES: usize = 256;
/// Payloads of more bytes are not shown.
const SHOWN_PAYLOAD_BYTES: usize = 16 * 1024;
/// Readings of a message that are shown, at most.
const SHOWN_READINGS: usize = 256;
/// Sleep of a view at the end of the journal.
const REST: Duration = Duration::from_millis(20);

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WatchedMessage {
    /// Topic of the message.
    pub topic: String,
    /// Client identifier of its sender.
    pub client_id: String,
    /// Arrival, Unix milliseconds; `None` for a message that is not journaled.
    pub arrival_ms: Option<i64>,
    /// The map that takes the message; `None`: none does.
    pub map: Option<String>,
    /// What the map makes of it.
    #[serde(flatten)]
    pub outcome: MappedOutcome,
    /// Number of further readings, which are not shown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub readings_left_out: usize,
    /// Bytes of the payload.
    pub payload_bytes: usize,
    /// The payload where it is text of at most 16 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The payload where it is no text, of at most 16 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl WatchedMessage {
    fn new((topic, client_id): (&str, &str), payload: &[u8], viewed: Option<ViewedMessage>) -> Self {
        let (map, mut outcome) =
            viewed.map_or_else(Default::default, |ViewedMessage { map, outcome }| (Some(map), outcome));
        let readings_left_out = outcome.readings.len().saturating_sub(SHOWN_READINGS);
        outcome.readings.truncate(SHOWN_READINGS);
        outcome.errors.truncate(SHOWN_READINGS);
        let shown = (payload.len() <= SHOWN_PAYLOAD_BYTES).then_some(payload);
        let text = shown.and_then(|payload| std::str::from_utf8(payload).ok());
        Self {
            topic: topic.to_owned(),
            client_id: client_id.to_owned(),
            arrival_ms: None,
            map,
            outcome,
            readings_left_out,
            payload_bytes: payload.len(),
            payload: text.map(str::to_owned),
            payload_base64: shown.filter(|_| text.is_none()).map(|payload| BASE64_STANDARD.encode(payload)),
        }
    }
}

/// Which messages a view shows.
pub struct WatchFilter {
    /// Only those that this map takes.
    pub map: Option<String>,
    /// Only those on these topics.
    pub topic: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

impl std::fmt::Debug for WatchFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchFilter").field("map", &self.map).finish_non_exhaustive()
    }
}

impl WatchFilter {
    fn passes(&self, map: Option<&str>) -> bool {
        self.map.is_none() || self.map.as_deref() == map
    }
}

/// All views that are open. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MapWatchers(Arc<WatcherList>);

#[derive(Debug, Default)]
struct WatcherList {
    count: AtomicUsize,
    all: Mutex<Vec<Arc<MapWatcher>>>,
}

/// One view.
#[derive(Debug)]
struct MapWatcher {
    filter: WatchFilter,
    sender: mpsc::Sender<WatchedMessage>,
    missed: AtomicU64,
}

impl MapWatcher {
    fn miss(&self, count: u64) {
        self.missed.fetch_add(count, Ordering::Relaxed);
    }

    fn send(&self, message: WatchedMessage) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(message) {
            self.miss(1);
        }
    }
}

/// The reading end of a view. The view ends when it is dropped.
#[derive(Debug)]
pub struct MapWatch {
    receiver: mpsc::Receiver<WatchedMessage>,
    watcher: Arc<MapWatcher>,
    watchers: MapWatchers,
}

impl MapWatchers {
    /// Opens a view of `journal`; `None`: [`MAX_WATCHERS`] views are open. It must be called within a tokio runtime.
    pub fn open(&self, filter: WatchFilter, journal: &Log, pipeline: &Pipeline) -> Option<MapWatch> {
        let position = journal.readable().0;
        let watch = self.add(filter)?;
        let follower =
            JournalView { watcher: Arc::clone(&watch.watcher), journal: journal.clone(), pipeline: pipeline.clone() };
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || follower.run(position, &runtime));
        Some(watch)
    }

    fn add(&self, filter: WatchFilter) -> Option<MapWatch> {
        let (sender, receiver) = mpsc::channel(WAITING_MESSAGES);
        let watcher = Arc::new(MapWatcher { filter, sender, missed: AtomicU64::new(0) });
        let mut all = lock(&self.0.all);
        if all.len() >= MAX_WATCHERS {
            return None;
        }
        all.push(Arc::clone(&watcher));
        self.0.count.store(all.len(), Ordering::Relaxed);
        Some(MapWatch { receiver, watcher, watchers: self.clone() })
    }

    /// Whether a view is open.
    #[inline]
    pub fn are_open(&self) -> bool {
        self.0.count.load(Ordering::Relaxed) > 0
    }

    /// Shows a message that is not journaled: the map `ignoring` ignores it, or no map takes it.
    #[cold]
    pub fn show_unjournaled(&self, topic: &str, client_id: &str, payload: &[u8], ignoring: Option<&str>) {
        let all: Vec<Arc<MapWatcher>> = lock(&self.0.all).clone();
        for watcher in all.iter().filter(|watcher| watcher.filter.passes(ignoring) && (watcher.filter.topic)(topic)) {
            // A reader that does not keep up costs no copy of the payload.
            if watcher.sender.capacity() == 0 {
                watcher.miss(1);
                continue;
            }
            let viewed =
                ignoring.map(|map| ViewedMessage { map: map.to_owned(), outcome: MappedOutcome::ignored_topic() });
            watcher.send(WatchedMessage::new((topic, client_id), payload, viewed));
        }
    }
}

impl MapWatch {
    /// The next message; `None` when weir ends.
    pub async fn next(&mut self) -> Option<WatchedMessage> {
        self.receiver.recv().await
    }

    /// Number of messages that the view missed since the last call.
    pub fn take_missed(&self) -> u64 {
        self.watcher.missed.swap(0, Ordering::Relaxed)
    }
}

impl Drop for MapWatch {
    fn drop(&mut self) {
        let mut all = lock(&self.watchers.0.all);
        all.retain(|other| !Arc::ptr_eq(other, &self.watcher));
        self.watchers.0.count.store(all.len(), Ordering::Relaxed);
        self.receiver.close();
    }
}

/// Follows the journal for one view.
struct JournalView {
    watcher: Arc<MapWatcher>,
    journal: Log,
    pipeline: Pipeline,
}

/// How far a view has come.
struct ViewProgress {
    view: MapView,
    /// Records below this position were shown, or came before the view.
    position: u64,
    /// Messages shown in this second; one more than [`MAX_PER_SECOND`] where some were missed.
    shown: u32,
}

impl JournalView {
    /// Shows messages from this position on.
    fn run(self, mut position: u64, runtime: &Handle) {
        // After a second in which messages were missed, births may be among them: the view takes what maps remember anew.
        while let Ok(view) = runtime.block_on(self.pipeline.map_view()) {
            match self.follow(view, position) {
                Some(reached) => position = reached,
                None => return,
            }
        }
    }

    /// Shows messages from `position` on. Returns how far it came, after a second in which some were missed; `None`: the view ends.
    fn follow(&self, view: MapView, position: u64) -> Option<u64> {
        // What the pipeline has not processed yet is not among what its maps remember.
        let mut reader = self.journal.reader(Lsn(self.pipeline.status().position.min(position)));
        let mut progress = ViewProgress { view, position, shown: 0 };
        let mut second = Instant::now();
        while !self.watcher.sender.is_closed() {
            if second.elapsed() >= Duration::from_secs(1) {
                if progress.shown > MAX_PER_SECOND {
                    return Some(progress.position);
                }
                (second, progress.shown) = (Instant::now(), 0);
            }
            let skipped = reader.skipped();
            match reader.next_batch().ok()? {
                Some(batch) => self.batch(&mut progress, &batch),
                None => std::thread::sleep(REST),
            }
            self.watcher.miss(reader.skipped() - skipped);
        }
        None
    }

    fn batch(&self, progress: &mut ViewProgress, batch: &Batch) {
        let mut decoder = RecordDecoder::default();
        for (lsn, bytes) in (batch.first().0..).zip(batch.records()) {
            let Ok(Record::Publish(publish, _)) = decoder.decode(bytes) else { continue };
            if lsn < progress.position || !(self.watcher.filter.topic)(publish.topic) {
                progress.view.remember(publish.topic, publish.payload, batch.arrival_ms());
            } else if progress.shown < MAX_PER_SECOND {
                progress.shown += u32::from(self.message(&mut progress.view, &publish, batch.arrival_ms()));
            } else {
                progress.shown = MAX_PER_SECOND + 1;
                self.watcher.miss(1);
            }
        }
        progress.position = progress.position.max(batch.end().0);
    }

    /// Shows a message if a map takes it. Returns whether one does.
    fn message(&self, view: &mut MapView, publish: &PublishRecord<'_>, arrival_ms: i64) -> bool {
        let Some(viewed) = view.look(publish.topic, publish.payload, arrival_ms) else { return false };
        if self.watcher.filter.passes(Some(&viewed.map)) {
            let message = WatchedMessage::new((publish.topic, publish.client_id), publish.payload, Some(viewed));
            self.watcher.send(WatchedMessage { arrival_ms: Some(arrival_ms), ..message });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(map: Option<&str>) -> WatchFilter {
        WatchFilter { map: map.map(str::to_owned), topic: Box::new(|topic| topic.starts_with("a/")) }
    }

    #[tokio::test]
    async fn a_reader_that_does_not_keep_up_misses_messages_and_is_told() {
        let watchers = MapWatchers::default();
        let mut watch = watchers.add(filter(None)).expect("a view");
        for number in 0..WAITING_MESSAGES + 7 {
            watchers.show_unjournaled("a/b", "c", number.to_string().as_bytes(), None);
            watchers.show_unjournaled("b", "c", b"", None);
        }
        assert_eq!((watch.take_missed(), watch.take_missed()), (7, 0));
        let first = watch.next().await.expect("a message");
        assert_eq!((first.topic.as_str(), first.payload.as_deref(), first.map), ("a/b", Some("0"), None));
    }

    #[tokio::test]
    async fn views_are_bounded_and_end_when_they_are_dropped() {
        let watchers = MapWatchers::default();
        assert!(!watchers.are_open());
        let mut views: Vec<MapWatch> =
            (0..MAX_WATCHERS).map(|_| watchers.add(filter(Some("m"))).expect("a view")).collect();
        assert!(watchers.add(filter(None)).is_none() && watchers.are_open());
        watchers.show_unjournaled("a/b", "c", b"\xff", None);
        watchers.show_unjournaled("a/b", "c", b"\xff", Some("m"));
        let shown = views[0].next().await.expect("a message");
        assert_eq!((shown.map.as_deref(), shown.payload_base64.as_deref()), (Some("m"), Some("/w==")));
        assert_eq!(shown.outcome, MappedOutcome::ignored_topic());
        views.clear();
        assert!(!watchers.are_open() && watchers.add(filter(None)).is_some());
    }
}
