//! `/api/v1/stream`.

use std::thread::JoinHandle;

use axum::body::BodyDataStream;
use futures_util::StreamExt;

use super::*;

/// An API whose logs are followed, until it is dropped.
struct Followed {
    api: TestApi,
    thread: Option<JoinHandle<()>>,
}

impl Followed {
    fn new() -> Self {
        let api = TestApi::new();
        let follower = api.follower.clone();
        Self { api, thread: Some(std::thread::spawn(move || follower.run())) }
    }

    async fn open(&self, query: &str) -> EventReader {
        let request = Request::get(format!("/api/v1/stream?{query}"))
            .header("host", "localhost")
            .body(Body::empty())
            .expect("a request");
        let service = TowerToHyperService::new(router(self.api.state.clone()));
        let response = service.call(request).await.expect("infallible");
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"text/event-stream".parse().expect("a header"))
        );
        EventReader(response.into_body().into_data_stream())
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.api.follower.stop();
        self.thread.take().expect("the thread").join().expect("no panic");
    }
}

struct EventReader(BodyDataStream);

impl EventReader {
    /// The lines of the next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Vec<String>> {
        let bytes = self.0.next().await?.expect("a chunk");
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Some(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }
}

fn window_json(device: &str, seq: u64) -> String {
    let mut json = Vec::new();
    window(device, 0).write_json(seq, &mut json);
    String::from_utf8(json).expect("UTF-8")
}

#[tokio::test]
async fn events_from_now_on() {
    let followed = Followed::new();
    followed.api.add_windows([window("before", 0)]);
    let mut events = followed.open("").await;
    followed.api.add_windows([window("a", 0)]);
    let expected = ["event: window".into(), "id: w1".into(), format!("data: {}", window_json("a", 1))];
    assert_eq!(events.next().await.expect("an event"), expected);
    followed.api.add_errors([error(None, Reason::Malformed, 1)]);
    let shown = events.next().await.expect("an event");
    assert_eq!(shown[..2], ["event: error", "id: e0"]);
    assert!(shown[2].starts_with("data: {") && shown[2].contains("\"malformed\""), "{shown:?}");
}

#[tokio::test]
async fn a_stream_is_filtered() {
    let followed = Followed::new();
    let mut events = followed.open("windows=1&device=b").await;
    followed.api.add_errors([error(Some("b"), Reason::Late, 1)]);
    followed.api.add_windows([window("a", 0), window("b", 0)]);
    assert_eq!(events.next().await.expect("an event")[1], "id: w1");
}

#[tokio::test]
async fn nothing_is_read_for_nobody_and_a_later_stream_begins_anew() {
    let followed = Followed::new();
    let mut events = followed.open("").await;
    followed.api.add_windows([window("a", 0)]);
    assert_eq!(events.next().await.expect("an event")[1], "id: w0");
    drop(events);
    followed.api.add_windows([window("unseen", 0)]);
    let mut events = followed.open("").await;
    followed.api.add_windows([window("b", 0)]);
    let mut shown = events.next().await.expect("an event");
    // The thread may not have looked between the two streams; then they are one to it.
    if shown[1] == "id: w1" {
        shown = events.next().await.expect("an event");
    }
    assert_eq!(shown[1], "id: w2");
}

#[tokio::test]
async fn a_slow_reader_is_told_what_it_missed() {
    let followed = Followed::new();
    let mut slow = followed.open("windows=1").await;
    let mut witness = followed.api.feed.subscribe();
    let count = 9_000;
    followed.api.add_windows((0..count).map(|at| window("a", at)));
    // Once the last event was sent, what the slow one misses is settled.
    loop {
        match witness.recv().await {
            Ok(event) if event.seq == count as u64 - 1 => break,
            Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(slow.next().await.expect("an event"), ["event: missed", "data: {\"missed\":808}"]);
    assert_eq!(slow.next().await.expect("an event")[1], "id: w808");
}

#[tokio::test]
async fn streams_are_bounded_and_end_with_the_server() {
    let followed = Followed::new();
    let api = &followed.api;
    let permits = api.state.streams.clone().acquire_many_owned(63).await.expect("open");
    let mut last = followed.open("").await;
    api.get("/api/v1/stream").await.is_problem(503, "64 streams");
    api.get("/api/v1/stream?devices=a").await.is_problem(400, "known are windows, errors, device");
    drop(permits);
    api.state.closing.cancel();
    assert_eq!(last.next().await, None);
}
