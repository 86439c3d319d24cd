//! Stored errors are put into the journal again.

use super::*;
use crate::core::record::{Record, RecordDecoder};
use crate::core::tests::replay_of;
use crate::http::received_body::BodyError;

/// Errors with their indexes, and the payload of their message.
type Replayed = (Vec<(u64, u32)>, Vec<u8>);

impl TestApi {
    /// An API whose pipeline has caught up, with these errors.
    fn with_errors<'a>(errors: impl IntoIterator<Item = ErrorEntry<'a>>) -> Self {
        let api = TestApi::new();
        api.pipeline.update(|status| status.caught_up = true);
        api.add_errors(errors);
        api.journal_record(record::encode_resumed);
        api
    }

    /// The pipeline has processed a replay of this error.
    fn replayed(&self, seq: u64) {
        self.pipeline.apply(NOW_MS, &[replay_of(seq, &late())]);
    }

    fn journal_record(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut records = Records::default();
        records.push_with(encode);
        self.journal.append_wait(&records).expect("an open log");
        self.journal.sync().expect("a disk");
    }

    async fn post(&self, path: &str, body: &'static str) -> ApiAnswer {
        let request = Request::post(path).header("content-type", "application/json").body(Body::from(body));
        self.ask(request.expect("a request")).await
    }

    /// The replays that the journal holds.
    fn replays(&self) -> Vec<Replayed> {
        let mut reader = self.journal.reader(Lsn(0));
        let mut found = Vec::new();
        while let Some(batch) = reader.next_batch().expect("a readable journal") {
            let mut decoder = RecordDecoder::default();
            for bytes in batch.records() {
                if let Record::Replay(replay) = decoder.decode(bytes).expect("a record") {
                    let errors = replay.items.iter().map(|item| (item.error_seq, item.index)).collect();
                    found.push((errors, replay.payload.to_vec()));
                }
            }
        }
        found
    }
}

fn late() -> ErrorEntry<'static> {
    error(Some("a"), Reason::Late, 100)
}

fn outcomes(answer: &ApiAnswer) -> Vec<(u64, String)> {
    let json = answer.json();
    let results = json["results"].as_array().unwrap_or_else(|| panic!("{answer:?}")).clone();
    let outcome = |one: &serde_json::Value| (one["seq"].as_u64().unwrap(), one["outcome"].as_str().unwrap().to_owned());
    results.iter().map(outcome).collect()
}

#[tokio::test]
async fn one_error_by_its_number() {
    let api = TestApi::with_errors([late(), late()]);
    let mut expected = Vec::new();
    late().write_json(1, &mut expected);
    let answer = api.get("/api/v1/errors/1").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_bytes()), (200, expected.as_slice()));
    api.get("/api/v1/errors/2").await.is_problem(404, "there is no error 2");
    api.get("/api/v1/errors/x").await.is_problem(404, "not the number of an error");
    api.get("/api/v1/errors/1?a=1").await.is_problem(400, "takes none");
}

#[tokio::test]
async fn a_replay_is_in_the_journal_when_it_is_answered() {
    let api = TestApi::with_errors([late(), ErrorEntry { index: 3, ..late() }]);
    let answer = api.post("/api/v1/errors/1/replay", "").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, r#"{"seq":1,"journal_position":1}"#));
    assert_eq!(api.journal.durable(), Lsn(2));
    assert_eq!(api.replays(), [(vec![(1, 3)], b"{}".to_vec())]);
    // The pipeline has not processed it: it does not know of it yet, but this server does.
    api.post("/api/v1/errors/1/replay", "").await.is_problem(409, "being replayed by another request");
    api.replayed(1);
    api.pipeline.update(|status| status.position = 2);
    api.post("/api/v1/errors/1/replay", "").await.is_problem(409, "replayed before");
    assert_eq!(api.replays().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_replayed_is_told() {
    let cut = ErrorEntry { payload_bytes: 5_000, ..late() };
    let errors = [error(None, Reason::DeviceError, 1), error(None, Reason::Duplicate, 2), cut];
    let api = TestApi::with_errors(errors);
    api.replayed(7);
    for (seq, status, part) in [
        (0, 409, "a fault that the device reported"),
        (1, 409, "came before"),
        (2, 409, "journal.retention would have kept it"),
        (3, 404, "there is no error 3"),
        (7, 409, "replayed before"),
    ] {
        api.post(&format!("/api/v1/errors/{seq}/replay"), "").await.is_problem(status, part);
    }
    api.post("/api/v1/errors/x/replay", "").await.is_problem(404, "not the number of an error");
    let answer = api.post("/api/v1/errors/replay", r#"{"seqs":[7,3,2,1,0,0]}"#).await;
    let names = ["device_error", "duplicate", "payload_cut", "unknown", "already_replayed"];
    assert_eq!(outcomes(&answer), [0, 1, 2, 3, 7].into_iter().zip(names.map(str::to_owned)).collect::<Vec<_>>());
    assert_eq!((&answer.json()["replayed"], &answer.json()["refused"]), (&0.into(), &5.into()));
    assert!(api.replays().is_empty());
}

#[tokio::test]
async fn a_cut_payload_is_taken_from_the_journal() {
    let payload = vec![b'x'; 9_000];
    let cut = |journal_position, client_id| ErrorEntry {
        journal_position,
        client_id,
        payload: &payload[..4_096],
        payload_bytes: 9_000,
        ..late()
    };
    let api =
        TestApi::with_errors([cut(2, "client"), cut(2, "other"), cut(1, "client"), cut(0, "client"), cut(9, "client")]);
    let mut records = Records::default();
    records.push(&publish("client", "devices/a/telemetry", b"short", false));
    // It shares client and topic with the one before.
    records.push(&publish("client", "devices/a/telemetry", &payload, true));
    api.journal.append_wait(&records).expect("an open log");
    api.journal.sync().expect("a disk");
    let answer = api.post("/api/v1/errors/replay", r#"{"seqs":[0,1,2,3,4]}"#).await;
    let names: Vec<String> = outcomes(&answer).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(names, ["replayed", "payload_cut", "payload_cut", "payload_cut", "payload_cut"]);
    assert_eq!(api.replays(), [(vec![(0, 0)], payload)]);
}

#[tokio::test]
async fn a_thousand_at_a_time() {
    let payload = vec![b'x'; 1_000];
    let errors = (0..1_000).map(|seq| ErrorEntry {
        journal_position: seq / 3,
        index: seq as u32 % 3,
        payload: &payload,
        payload_bytes: 1_000,
        ..late()
    });
    let api = TestApi::with_errors(errors);
    let list = |count: usize| (0..count).map(|seq| seq.to_string()).collect::<Vec<_>>().join(",");
    let body: &'static str = format!("{{\"seqs\":[{}]}}", list(1_000)).leak();
    // More than the journal's queue takes at once in these tests may be refused for now: then those are tried again.
    let answer = api.post("/api/v1/errors/replay", body).await;
    let done = outcomes(&answer);
    assert_eq!(done.len(), 1_000);
    assert!(done.iter().all(|(_, outcome)| outcome == "replayed"), "{:?}", answer.json()["results"][0]);
    // Errors of one message are replayed as one.
    let replays = api.replays();
    assert_eq!(replays.len(), 334);
    let order: Vec<(u64, u32)> = replays.into_iter().flat_map(|(errors, _)| errors).collect();
    assert_eq!(order, (0..1_000).map(|seq| (seq, seq as u32 % 3)).collect::<Vec<_>>());
    for (seq, result) in (0..).zip(answer.json()["results"].as_array().expect("results")) {
        assert_eq!(result["journal_position"], 1 + seq / 3, "{result}");
    }
    let body: &'static str = format!("{{\"seqs\":[{}]}}", list(1_001)).leak();
    api.post("/api/v1/errors/replay", body).await.is_problem(400, "give 1 to 1000");
}

#[tokio::test]
async fn two_at_once_replay_once() {
    let api = TestApi::with_errors((0..200).map(|journal_position| ErrorEntry { journal_position, ..late() }));
    let body: &'static str =
        format!("{{\"seqs\":[{}]}}", (0..200).map(|seq| seq.to_string()).collect::<Vec<_>>().join(",")).leak();
    let post = || api.post("/api/v1/errors/replay", body);
    let (first, second) = tokio::join!(post(), post());
    let replayed = [&first, &second].map(|answer| answer.json()["replayed"].as_u64().unwrap());
    assert_eq!(replayed.iter().sum::<u64>(), 200, "{first:?} {second:?}");
    assert_eq!(api.replays().len(), 200);
}

#[tokio::test]
async fn bodies_and_pages_of_other_sites() {
    let api = TestApi::with_errors([late()]);
    for (body, part) in [
        ("", "not of the form"),
        ("{}", "missing field"),
        (r#"{"seqs":[]}"#, "seqs has 0 numbers"),
        (r#"{"seqs":["1"]}"#, "not of the form"),
        (r#"{"seqs":[-1]}"#, "not of the form"),
        (r#"{"seqs":[1],"reason":"late"}"#, "unknown field"),
    ] {
        api.post("/api/v1/errors/replay", body).await.is_problem(400, part);
    }
    api.post("/api/v1/errors/0/replay", "{}").await.is_problem(400, "takes no body");
    let form = |name: &'static str, value: &'static str, body: &'static str| {
        Request::post("/api/v1/errors/0/replay").header(name, value).body(Body::from(body)).expect("a request")
    };
    for kind in ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"] {
        api.ask(form("content-type", kind, "")).await.is_problem(415, "application/json");
    }
    api.ask(form("origin", "https://example.org", "")).await.is_problem(403, "another site");
    api.ask(form("sec-fetch-site", "cross-site", "")).await.is_problem(403, "another site");
    let long = Request::post("/api/v1/errors/replay").header("content-type", "application/json");
    let long = long.body(Body::from(" ".repeat(70 << 10))).expect("a request");
    api.ask(long).await.is_problem(413, "65536 bytes");
    assert!(api.replays().is_empty());
    let plain = Request::post("/api/v1/errors/0/replay").body(Body::empty()).expect("a request");
    assert_eq!(api.ask(plain).await.status, 200);
    api.get("/api/v1/errors/0/replay").await.is_problem(405, "GET");
}

#[tokio::test]
async fn a_pipeline_that_does_not_answer_gives_the_claim_back() {
    let api = TestApi::with_errors([late(), late()]);
    let busy = api.pipeline.busy();
    let answer = api.post("/api/v1/errors/1/replay", "").await;
    answer.is_problem(503, "too many questions wait");
    assert_eq!(answer.header("retry-after"), "1");
    drop(busy);
    api.pipeline.answers().await;
    assert_eq!(api.post("/api/v1/errors/1/replay", "").await.status, 200);
    api.pipeline.update(|status| status.caught_up = false);
    api.post("/api/v1/errors/0/replay", "").await.is_problem(503, "still being processed");
}

#[tokio::test]
async fn before_mqtt_is_served_nothing_is_replayed() {
    let api = TestApi::new();
    api.pipeline.update(|status| status.caught_up = true);
    api.add_errors([late()]);
    api.post("/api/v1/errors/0/replay", "").await.is_problem(503, "just starting");
    api.journal_record(record::encode_resumed);
    assert_eq!(api.post("/api/v1/errors/0/replay", "").await.status, 200);
}

#[tokio::test]
async fn a_journal_that_takes_nothing() {
    let api = TestApi::with_errors([late(), late()]);
    api.journal.close().expect("a disk");
    let answer = api.post("/api/v1/errors/0/replay", "").await;
    answer.is_problem(503, "no room");
    assert_eq!(answer.header("retry-after"), "1");
    api.post("/api/v1/errors/replay", r#"{"seqs":[0,1]}"#).await.is_problem(503, "no room");
}

#[tokio::test]
async fn what_became_of_replays() {
    let api = TestApi::with_errors([late(), late(), late()]);
    let ask = async |seqs: &str| api.get(&format!("/api/v1/errors/replay?seqs={seqs}")).await;
    let states = async || {
        let json = ask("0,1,2").await.json();
        let states =
            json["results"].as_array().expect("results").iter().map(|one| one["state"].as_str().unwrap().to_owned());
        states.collect::<Vec<_>>()
    };
    assert_eq!(states().await, ["not_replayed", "not_replayed", "not_replayed"]);
    assert_eq!(api.post("/api/v1/errors/replay", r#"{"seqs":[0,1]}"#).await.status, 200);
    assert_eq!(states().await, ["pending", "pending", "not_replayed"], "in the journal and not processed");
    api.replayed(1);
    assert_eq!(states().await, ["pending", "processed", "not_replayed"]);
    let one = &ask("1").await.json()["results"][0];
    let expected = serde_json::json!({"seq": 1, "state": "processed", "counted": 0, "rejected": {"missing_field": 1},
        "detail": one["detail"], "new_error": one["new_error"]});
    assert_eq!((one, one["detail"].is_string()), (&expected, true));
    for wrong in ["", "x", "1,,2", "-1", "1,"] {
        ask(wrong).await.is_problem(400, "seqs=1,2,3");
    }
    api.get("/api/v1/errors/replay").await.is_problem(400, "seqs=1,2,3");
    ask(&["7"; 1_001].join(",")).await.is_problem(400, "give 1 to 1000");
    api.pipeline.update(|status| status.caught_up = false);
    ask("1").await.is_problem(503, "still being processed");
}

#[tokio::test]
async fn a_body_without_an_end_says_why() {
    let api = TestApi::with_errors([late()]);
    for (error, status, part) in [
        (BodyError::TooSlow, 408, "within 10 s"),
        (BodyError::NoPlace, 503, "too many requests send their body slowly"),
        (BodyError::Broken, 400, "ended early"),
    ] {
        for path in ["/api/v1/errors/replay", "/api/v1/errors/0/replay"] {
            let body = Body::from_stream(futures_util::stream::iter([Ok("{"), Err(error)]));
            let request = Request::post(path).header("content-type", "application/json").body(body);
            api.ask(request.expect("a request")).await.is_problem(status, part);
        }
    }
}
