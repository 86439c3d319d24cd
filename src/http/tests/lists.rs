//! `/api/v1/windows` and `/api/v1/errors`.

use super::*;

/// The sequence numbers of an answer and its cursor.
#[track_caller]
fn page(answer: &ApiAnswer, name: &str) -> (Vec<u64>, Option<String>) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    let items = json[name].as_array().expect("a list");
    let seqs = items.iter().map(|item| item["seq"].as_u64().expect("a sequence number")).collect();
    (seqs, json["next_cursor"].as_str().map(str::to_owned))
}

async fn seqs(api: &TestApi, name: &str, query: &str) -> Vec<u64> {
    page(&api.get(&format!("/api/v1/{name}?{query}")).await, name).0
}

/// All pages of a list.
async fn all(api: &TestApi, name: &str, query: &str) -> Vec<u64> {
    let (mut seqs, mut cursor) = page(&api.get(&format!("/api/v1/{name}?{query}")).await, name);
    while let Some(next) = cursor {
        let (more, after) = page(&api.get(&format!("/api/v1/{name}?{query}&cursor={next}")).await, name);
        seqs.extend(more);
        cursor = after;
    }
    seqs
}

#[tokio::test]
async fn an_empty_log_is_an_empty_list() {
    let api = TestApi::new();
    for path in ["/api/v1/windows", "/api/v1/windows?order=desc"] {
        assert_eq!(api.get(path).await.body, "{\"windows\":[],\"next_cursor\":null}");
    }
    assert_eq!(api.get("/api/v1/errors").await.body, "{\"errors\":[],\"next_cursor\":null}");
}

#[tokio::test]
async fn a_window_is_shown_as_everywhere() {
    let api = TestApi::new();
    api.add_windows([window("a", 5_000)]);
    let mut expected = Vec::new();
    window("a", 5_000).write_json(0, &mut expected);
    let expected = String::from_utf8(expected).expect("UTF-8");
    let answer = api.get("/api/v1/windows").await;
    assert_eq!(answer.body, format!("{{\"windows\":[{expected}],\"next_cursor\":null}}"));
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn the_newest_revision_stands_for_a_window() {
    let api = TestApi::new();
    let corrected = |revision, supersedes| WindowResult { revision, supersedes, ..window("a", 0) };
    api.add_windows([window("a", 0), window("b", 0), corrected(1, Some(0))]);
    assert_eq!(seqs(&api, "windows", "").await, [1, 2]);
    // What comes later changes what is newest, also for records that were indexed already.
    api.add_windows([corrected(2, Some(2))]);
    assert_eq!(seqs(&api, "windows", "").await, [1, 3]);
    assert_eq!(seqs(&api, "windows", "order=desc").await, [3, 1]);
    assert_eq!(seqs(&api, "windows", "revisions=all").await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn windows_are_selected_by_device_metric_and_time() {
    let api = TestApi::new();
    let humid = WindowResult { metric: "humidity", ..window("a", 10_000) };
    api.add_windows([window("a", 0), window("b", 5_000), humid, window("a", 15_000)]);
    for (query, expected) in [
        ("device=a", vec![0, 2, 3]),
        ("metric=humidity", vec![2]),
        ("device=a&metric=temperature", vec![0, 3]),
        ("from=5000&to=15000", vec![1, 2]),
        ("from=1970-01-01T00:00:15Z", vec![3]),
        ("to=0", vec![]),
        ("device=c", vec![]),
        ("limit=2", vec![0, 1]),
        ("limit=2&order=desc", vec![3, 2]),
    ] {
        assert_eq!(seqs(&api, "windows", query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn pages_hold_everything_once_in_both_orders() {
    let api = TestApi::new();
    let count = 9_000u64;
    let ids: Vec<String> = (0..count).map(|seq| format!("device-{}", seq % 3)).collect();
    api.add_windows(ids.iter().zip(0i64..).map(|(id, at)| window(id, at * 10)));
    let forwards: Vec<u64> = (0..count).collect();
    let backwards: Vec<u64> = forwards.iter().rev().copied().collect();
    assert_eq!(all(&api, "windows", "limit=777").await, forwards);
    assert_eq!(all(&api, "windows", "limit=777&order=desc").await, backwards);
    let third: Vec<u64> = (0..count).filter(|seq| seq % 3 == 1).collect();
    assert_eq!(all(&api, "windows", "limit=1000&device=device-1").await, third);
    // Only the second block of the index has these times.
    let middle: Vec<u64> = (5_000..5_010).collect();
    assert_eq!(all(&api, "windows", "limit=4&from=50000&to=50100").await, middle);
    let middle: Vec<u64> = middle.into_iter().rev().collect();
    assert_eq!(all(&api, "windows", "limit=4&from=50000&to=50100&order=desc").await, middle);
}

#[tokio::test]
async fn windows_as_csv() {
    let api = TestApi::new();
    api.add_windows([window("a,b", 0), window("c", 5_000)]);
    let csv = |path: &str| Request::get(path).header("accept", "text/csv").body(Body::empty()).expect("a request");
    let answer = api.ask(csv("/api/v1/windows?limit=1")).await;
    assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8; header=present");
    let lines: Vec<&str> = answer.body.split("\r\n").collect();
    assert_eq!(
        lines,
        [
            "seq,device_id,metric,window_start,window_end,revision,count,sum,mean,min,max,first,last,stddev,backlog,wrong_clock,unit",
            "0,\"a,b\",temperature,0,5000,0,2,3.0,1.5,1.0,2.0,1.0,2.0,0.5,,,",
            "",
        ]
    );
    let next = answer.header("x-next-cursor");
    let answer = api.ask(csv(&format!("/api/v1/windows?limit=1&cursor={next}"))).await;
    assert!(answer.body.contains("\r\n1,c,"), "{answer:?}");
}

#[tokio::test]
async fn errors_are_selected_by_reason_device_and_arrival() {
    let api = TestApi::new();
    api.add_errors([
        error(Some("a"), Reason::Late, 100),
        error(None, Reason::Malformed, 200),
        error(Some("b"), Reason::Late, 300),
        error(Some("a"), Reason::ValueOutOfRange, 300),
    ]);
    for (query, expected) in [
        ("", vec![0, 1, 2, 3]),
        ("order=desc", vec![3, 2, 1, 0]),
        ("reason=late", vec![0, 2]),
        ("reason=late&device=a", vec![0]),
        ("device=a", vec![0, 3]),
        ("from=200&to=300", vec![1]),
    ] {
        assert_eq!(seqs(&api, "errors", query).await, expected, "{query}");
    }
    assert_eq!(all(&api, "errors", "limit=1&order=desc").await, [3, 2, 1, 0]);
    let shown = api.get("/api/v1/errors?reason=malformed").await.json();
    assert_eq!(shown["errors"][0]["reason"], "malformed");
}

#[tokio::test]
async fn wrong_parameters_say_what_is_right() {
    let api = TestApi::new();
    api.add_windows([window("a", 0), window("a", 5_000)]);
    let (_, cursor) = page(&api.get("/api/v1/windows?limit=1").await, "windows");
    let cursor = cursor.expect("a second page");
    for (path, part) in [
        ("/api/v1/windows?devise=a", "known are device, metric"),
        ("/api/v1/windows?limit=0", "from 1 to 1000"),
        ("/api/v1/windows?revisions=some", "give all"),
        ("/api/v1/windows?order=up", "asc (oldest first) or desc"),
        ("/api/v1/windows?from=tomorrow", "RFC 3339"),
        ("/api/v1/windows?cursor=x", "next_cursor"),
        (&format!("/api/v1/windows?order=desc&cursor={cursor}"), "next_cursor"),
        ("/api/v1/errors?reason=lat", "malformed, missing_field"),
        ("/api/v1/errors?metric=t", "known are reason"),
    ] {
        api.get(path).await.is_problem(400, part);
    }
}

#[tokio::test]
async fn a_cursor_lies_behind_the_last_record_when_nothing_follows() {
    let api = TestApi::new();
    api.add_windows([window("a", 0), window("a", 5_000)]);
    assert_eq!(page(&api.get("/api/v1/windows?limit=2").await, "windows"), (vec![0, 1], None));
    assert_eq!(page(&api.get("/api/v1/windows?limit=2&order=desc").await, "windows"), (vec![1, 0], None));
}

#[tokio::test]
async fn scans_beyond_the_bound_are_asked_to_come_back() {
    let api = TestApi::new();
    let permits = api.state.scans.clone().acquire_many_owned(3).await.expect("open");
    let answer = api.get("/api/v1/errors").await;
    answer.is_problem(503, "try again");
    assert_eq!(answer.header("retry-after"), "1");
    drop(permits);
    assert_eq!(api.get("/api/v1/errors").await.status, 200);
}

#[tokio::test]
async fn the_index_is_built_in_steps() {
    let api = TestApi::new();
    api.add_windows((0..300).map(|at| window("a", at)));
    let mut steps = 0;
    while !api.follower.results().windows.index(100).expect("a readable log") {
        steps += 1;
    }
    assert_eq!(steps, 2);
    assert_eq!(seqs(&api, "windows", "limit=1&order=desc").await, [299]);
}
