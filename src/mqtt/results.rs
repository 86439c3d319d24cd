//! weir's own publishes: windows and errors as they enter their logs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use super::broker::Broker;
use crate::core::output::{ErrorEntry, WindowResult};
use crate::log::{Batch, Log, Lsn, Reader};

const WINDOWS: &str = "weir/windows/";
const ERRORS: &str = "weir/errors/";
/// QoS of results: the subscriber's own QoS decides below it.
const QOS: u8 = 1;
/// How long the thread sleeps without being woken, so that it notices `stop` without a wake-up too.
const PARK: Duration = Duration::from_millis(500);

/// Follows the output logs and publishes what enters them. Results are not retained.
#[derive(Debug)]
pub struct Results {
    broker: Arc<Broker>,
    windows: Option<Follower>,
    errors: Option<Follower>,
}

#[derive(Debug)]
struct Follower {
    log: Log,
    reader: Reader,
    prefix: &'static str,
    publish: fn(&Broker, u64, &[u8], &mut Scratch),
}

#[derive(Debug, Default)]
struct Scratch {
    topic: String,
    json: Vec<u8>,
}

impl Results {
    /// Publishes windows from position `.1` of the log `.0` on, and errors likewise; `None` where config says not to.
    pub fn new(broker: Arc<Broker>, windows: Option<(Log, Lsn)>, errors: Option<(Log, Lsn)>) -> Self {
        let follow = |prefix, publish| {
            move |(log, from): (Log, Lsn)| Follower { reader: log.reader(from), log, prefix, publish }
        };
        Self {
            broker,
            windows: windows.map(follow(WINDOWS, publish_window)),
            errors: errors.map(follow(ERRORS, publish_error)),
        }
    }

    /// Runs until `stop` is set; meant for a thread of its own. Unpark the thread after setting `stop`, or it notices
    /// within half a second.
    pub fn run(mut self, stop: &AtomicBool) {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        for follower in self.windows.iter().chain(&self.errors) {
            follower.log.watch(waker.clone());
        }
        let mut scratch = Scratch::default();
        while !stop.load(Ordering::Acquire) {
            let mut idle = true;
            for follower in self.windows.iter_mut().chain(&mut self.errors) {
                idle &= follower.step(&self.broker, &mut scratch);
            }
            if idle {
                thread::park_timeout(PARK);
            }
        }
    }
}

impl Follower {
    /// Publishes one batch; `true` if there was none.
    fn step(&mut self, broker: &Broker, scratch: &mut Scratch) -> bool {
        let from = self.reader.position();
        match self.reader.next_batch() {
            Ok(Some(batch)) => {
                if broker.may_have_subscribers(self.prefix) {
                    for (position, record) in positions(&batch).filter(|(position, _)| *position >= from.0) {
                        (self.publish)(broker, position, record, scratch);
                    }
                }
                false
            }
            Ok(None) => true,
            Err(error) => {
                // Retention overtook the cursor, or the file is damaged: subscribers go on with what is new.
                tracing::warn!(%error, prefix = self.prefix, "results were not published over MQTT; going on at the end");
                self.reader = self.log.reader(self.log.readable());
                true
            }
        }
    }
}

fn positions(batch: &Batch) -> impl Iterator<Item = (u64, &[u8])> {
    (batch.first().0..).zip(batch.records())
}

fn publish_window(broker: &Broker, seq: u64, record: &[u8], scratch: &mut Scratch) {
    let Ok(window) = WindowResult::decode(record) else {
        tracing::error!(seq, "a record of the windows log cannot be read; it is not published");
        return;
    };
    scratch.begin(&[WINDOWS, window.device_id, "/", window.metric]);
    window.write_json(seq, &mut scratch.json);
    scratch.publish(broker);
}

fn publish_error(broker: &Broker, seq: u64, record: &[u8], scratch: &mut Scratch) {
    let Ok(entry) = ErrorEntry::decode(record) else {
        tracing::error!(seq, "a record of the errors log cannot be read; it is not published");
        return;
    };
    scratch.begin(&[ERRORS, entry.reason.as_str()]);
    entry.write_json(seq, &mut scratch.json);
    scratch.publish(broker);
}

impl Scratch {
    fn begin(&mut self, topic: &[&str]) {
        self.topic.clear();
        self.topic.extend(topic.iter().copied());
        self.json.clear();
    }

    fn publish(&self, broker: &Broker) {
        if broker.has_subscribers(&self.topic) {
            broker.publish(&self.topic, self.json.clone().into(), QOS, false);
        }
    }
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Instant;

    use super::*;
    use crate::clock::SystemClock;
    use crate::config::MqttConfig;
    use crate::core::reason::Reason;
    use crate::disk::sim::SimDisk;
    use crate::log::{LogOptions, Records, Retention, SyncPolicy};
    use crate::mqtt::Version;
    use crate::mqtt::broker::{Attach, Attached};
    use crate::mqtt::session::timeline::Timeline;
    use crate::mqtt::testing::{Sent, attaching, packets};
    use crate::mqtt::wire::codec::{Filter, RetainHandling, SubscribeOutcome};

    fn log(name: &'static str) -> Log {
        let options = LogOptions {
            name,
            dir: PathBuf::from(name),
            segment_bytes: 1 << 20,
            commit_max_bytes: 1 << 16,
            queue_max_bytes: 1 << 18,
            tail_max_bytes: 1 << 18,
            sync: SyncPolicy::OnRequest,
            min_free_bytes: 0,
            retention: Retention::default(),
        };
        Log::open(Arc::new(SimDisk::new()), Arc::new(SystemClock), options, Lsn(0)).unwrap().0
    }

    /// Appends a window of each metric, or an error of each message.
    fn append(log: &Log, encode: fn(&str, &mut Vec<u8>), texts: &[&str]) {
        let mut records = Records::default();
        for text in texts {
            records.push_with(|out| encode(text, out));
        }
        log.append_wait(&records).unwrap();
        log.sync().unwrap();
    }

    fn window(metric: &str, out: &mut Vec<u8>) {
        let window = WindowResult {
            device_id: "pump-7",
            metric,
            window_start_ms: 0,
            window_end_ms: 5_000,
            revision: 0,
            supersedes: None,
            count: 1,
            sum: 1.0,
            mean: 1.0,
            min: 1.0,
            max: 1.0,
            first: 1.0,
            last: 1.0,
            stddev: 0.0,
        };
        window.encode(out);
    }

    fn error(message: &str, out: &mut Vec<u8>) {
        let entry = ErrorEntry {
            journal_position: 1,
            index: 0,
            arrival_ms: 2,
            reason: Reason::Late,
            message,
            device_id: None,
            metric: None,
            client_id: "c",
            topic: "t",
            own_device: None,
            payload: b"{}",
            payload_bytes: 2,
            origin: None,
        };
        entry.encode(out);
    }

    struct Case {
        broker: Arc<Broker>,
        windows: Log,
        errors: Log,
        subscriber: Attached,
    }

    impl Case {
        fn new() -> Self {
            let broker = Arc::new(Broker::new(&MqttConfig::default(), Arc::default(), Timeline::default()));
            let attach = Attach { expiry_s: 0, ..attaching("s") };
            let subscriber = broker.attach(&attach).unwrap();
            Self { broker, windows: log("windows"), errors: log("errors"), subscriber }
        }

        fn subscribe(&self, filter: &str) {
            let filter = Filter {
                filter: filter.into(),
                qos: 1,
                no_local: false,
                retain_as_published: false,
                retain: RetainHandling::Always,
                identifier: None,
            };
            let granted = self.broker.subscribe(&self.subscriber.handle, self.subscriber.connection, &filter);
            assert_eq!(granted, SubscribeOutcome::Granted(1));
        }

        fn results(&self, from: u64) -> Results {
            let windows = Some((self.windows.clone(), Lsn(from)));
            Results::new(Arc::clone(&self.broker), windows, Some((self.errors.clone(), Lsn(0))))
        }

        /// Topic, QoS and the JSON's `seq` of what the subscriber is sent.
        fn received(&self) -> Vec<(String, u8, u64)> {
            let (handle, connection) = (&self.subscriber.handle, self.subscriber.connection);
            let mut out = Vec::new();
            handle.write(connection, Version::V4, usize::MAX, usize::MAX, Instant::now, &mut out);
            let messages = packets(&out, Version::V4).into_iter().map(|packet| match packet {
                Sent::Publish { topic, qos, payload, retain: false, .. } => {
                    let json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
                    (topic, qos, json["seq"].as_u64().unwrap())
                }
                other => panic!("{other:?}"),
            });
            messages.collect()
        }
    }

    fn work_off(results: &mut Results) {
        for follower in results.windows.iter_mut().chain(&mut results.errors) {
            while !follower.step(&results.broker, &mut Scratch::default()) {}
        }
    }

    #[test]
    fn results_are_published_from_the_position_on() {
        let case = Case::new();
        case.subscribe("weir/#");
        append(&case.windows, window, &["temperature", "humidity", "a/b"]);
        append(&case.errors, error, &["late"]);
        work_off(&mut case.results(1));
        let expected = [
            ("weir/windows/pump-7/humidity".into(), 1, 1),
            ("weir/windows/pump-7/a/b".into(), 1, 2),
            ("weir/errors/late".into(), 1, 0),
        ];
        assert_eq!(case.received(), expected);
    }

    #[test]
    fn without_subscribers_results_are_passed_over() {
        let case = Case::new();
        let mut results = case.results(0);
        append(&case.windows, window, &["temperature"]);
        work_off(&mut results);
        case.subscribe("weir/windows/+/humidity");
        append(&case.windows, window, &["temperature", "humidity"]);
        work_off(&mut results);
        assert_eq!(case.received(), [("weir/windows/pump-7/humidity".into(), 1, 2)]);
    }

    #[test]
    fn the_thread_follows_and_stops() {
        let case = Case::new();
        case.subscribe("weir/#");
        let stop = Arc::new(AtomicBool::new(false));
        let results = case.results(0);
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || results.run(&stop)
        });
        append(&case.windows, window, &["temperature"]);
        while case.broker.stats().queued_messages == 0 {
            thread::yield_now();
        }
        stop.store(true, Ordering::Release);
        thread.thread().unpark();
        thread.join().unwrap();
        assert_eq!(case.received().len(), 1);
    }
}
