use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::client::ApiArguments;
use crate::random::Random;
use crate::simulator::message::{DeviceMessage, MalformedPayload, MessageContent, MessageGenerator};

const MINUTE_MS: i64 = 60_000;

fn expectations() -> Expectations {
    let options = FleetOptions { boot: "b".into(), malformed_share: 0.1, fault_share: 0.1, ..FleetOptions::default() };
    Expectations::new(&Config::default(), &options)
}

/// A device that sent 200 messages in a minute, all of them acknowledged.
fn ledger(expectations: &Expectations) -> DeviceLedger {
    let mut generator = MessageGenerator::new(&expectations.options, Random::new(5));
    let mut ledger = DeviceLedger::new("d");
    for step in 0..200 {
        let message = generator.next_message(1_700_000_000_000 + step * MINUTE_MS / 200);
        ledger.produced(&message);
    }
    ledger.published(&(0..=199));
    ledger.acknowledged(&(0..=199));
    ledger
}

/// What a weir without faults shows of it, computed the plain way.
fn shown(ledger: &DeviceLedger, expectations: &Expectations) -> (Vec<WindowSeen>, Vec<ErrorSeen>) {
    let mut groups: BTreeMap<(String, i64), Vec<(i64, f64)>> = BTreeMap::new();
    let encoder = MessageEncoder::new(&expectations.options, &ledger.device_id);
    let mut errors = Vec::new();
    for DeviceMessage { seq, event_ms, content } in ledger.entries.iter().map(|entry| entry.message.clone()) {
        let reason = match &content {
            MessageContent::Readings(values) => {
                for (metric, value) in expectations.options.metrics.iter().zip(values) {
                    groups.entry((metric.clone(), event_ms / 5_000 * 5_000)).or_default().push((event_ms, *value));
                }
                continue;
            }
            MessageContent::Fault => "device_error",
            MessageContent::Malformed(MalformedPayload::WrongType) => "wrong_type",
            MessageContent::Malformed(_) => "malformed",
        };
        let payload = Some(encoder.text(&DeviceMessage { seq, event_ms, content }));
        errors.push(ErrorSeen { reason: reason.into(), payload, ..ErrorSeen::default() });
    }
    let windows = groups.into_iter().map(|((metric, window_start), mut readings)| {
        readings.sort_by_key(|reading| reading.0);
        let values: Vec<f64> = readings.iter().map(|reading| reading.1).collect();
        let sum: f64 = values.iter().sum();
        WindowSeen {
            metric,
            window_start,
            window_end: window_start + 5_000,
            count: values.len() as u64,
            sum: Some(sum),
            mean: Some(sum / values.len() as f64),
            min: values.iter().copied().reduce(f64::min),
            max: values.iter().copied().reduce(f64::max),
            first: values.first().copied(),
            last: values.last().copied(),
        }
    });
    (windows.collect(), errors)
}

/// Judges what `change` made of the right results; expects each of `differences` in the first difference.
fn check(change: impl FnOnce(&mut DeviceLedger, &mut Vec<WindowSeen>, &mut Vec<ErrorSeen>), difference: &str) {
    let expectations = expectations();
    let mut ledger = ledger(&expectations);
    let (mut windows, mut errors) = shown(&ledger, &expectations);
    change(&mut ledger, &mut windows, &mut errors);
    let outcome = judge(&ledger, &expectations, &windows, &errors);
    let first = outcome.differences.first().map_or("", String::as_str);
    assert!(first.contains(difference), "{first:?} does not say {difference:?}");
    assert_eq!(outcome.differences.is_empty(), difference.is_empty(), "{:?}", outcome.differences);
}

/// The message of the first entry with readings at or after `from`.
fn reading(ledger: &DeviceLedger, from: u64) -> &DeviceMessage {
    let mut later = ledger.entries.iter().map(|entry| &entry.message).filter(|message| message.seq >= from);
    later.find(|message| matches!(message.content, MessageContent::Readings(_))).expect("most messages are readings")
}

fn late(ledger: &DeviceLedger, expectations: &Expectations, message: &DeviceMessage, metric: &str) -> ErrorSeen {
    let payload = Some(MessageEncoder::new(&expectations.options, &ledger.device_id).text(message));
    let index = expectations.options.metrics.iter().position(|name| name == metric).expect("a metric of the fleet");
    ErrorSeen { reason: "late".into(), index, metric: Some(metric.into()), payload, ..ErrorSeen::default() }
}

#[test]
fn right_results_pass() {
    check(|_, _, _| (), "");
    let expectations = expectations();
    let ledger = ledger(&expectations);
    let (windows, errors) = shown(&ledger, &expectations);
    let outcome = judge(&ledger, &expectations, &windows, &errors);
    assert_eq!(outcome.windows, windows.len() as u64);
    assert_eq!(outcome.errors, errors.len() as u64);
    assert_eq!(outcome.readings, windows.iter().map(|window| window.count).sum::<u64>());
}

#[test]
fn a_lost_reading_is_found() {
    check(|_, windows, _| windows[3].count -= 1, "readings;");
    check(|_, windows, _| drop(windows.remove(3)), "is missing");
}

#[test]
fn a_reading_counted_twice_is_found() {
    check(|_, windows, _| windows[3].count += 1, "readings;");
}

#[test]
fn a_wrong_aggregate_is_found() {
    check(|_, windows, _| windows[1].sum = windows[1].sum.map(|sum| sum * (1.0 + 1e-7)), "sum is");
    check(|_, windows, _| windows[1].sum = windows[1].sum.map(|sum| sum * (1.0 + 1e-12)), "");
    check(|_, windows, _| windows[1].sum = None, "sum is");
    check(|_, windows, _| windows[1].mean = Some(0.0), "mean is");
    check(|_, windows, _| windows[1].min = windows[1].max, "min is");
    check(|_, windows, _| windows[1].max = windows[1].min, "max is");
    check(|_, windows, _| windows[1].first = windows[1].last, "first is");
    check(|_, windows, _| windows[1].last = windows[1].first, "last is");
}

#[test]
fn a_window_from_nowhere_is_found() {
    let stray = |windows: &mut Vec<WindowSeen>, change: fn(&mut WindowSeen)| {
        let mut window = windows[0].clone();
        change(&mut window);
        windows.push(window);
    };
    check(|_, windows, _| stray(windows, |window| window.window_start -= 5_000), "ends at");
    let before = |window: &mut WindowSeen| {
        window.window_start -= 5_000;
        window.window_end -= 5_000;
    };
    check(|_, windows, _| stray(windows, before), "none was sent");
    check(|_, windows, _| stray(windows, |window| window.metric = "pressure".into()), "not sent");
    check(|_, windows, _| stray(windows, |_| ()), "listed twice");
}

#[test]
fn what_was_not_acknowledged_may_be_there_or_not() {
    let last = |ledger: &mut DeviceLedger| {
        let seq = reading(ledger, 190).seq;
        ledger.entries[seq as usize].acknowledgements = 0;
        seq
    };
    check(|ledger, _, _| assert!(last(ledger) > 0), "");
    let expectations = expectations();
    let mut whole = ledger(&expectations);
    let seq = last(&mut whole);
    let mut without = whole.clone();
    without.entries[seq as usize].message.content = MessageContent::Fault;
    let (windows, mut errors) = shown(&without, &expectations);
    errors.retain(|error| {
        error.reason != "device_error" || !error.payload.as_deref().unwrap_or("").contains(&format!("\"seq\":{seq},"))
    });
    assert_eq!(judge(&whole, &expectations, &windows, &errors).differences, Vec::<String>::new());
}

#[test]
fn some_of_several_unacknowledged_readings_are_judged_by_bounds() {
    let unacknowledged = |ledger: &mut DeviceLedger, windows: &mut Vec<WindowSeen>, min: f64| {
        let window = &mut windows[2];
        let in_window = |ms: i64| (window.window_start..window.window_end).contains(&ms);
        let entries = ledger.entries.iter_mut().filter(|entry| in_window(entry.message.event_ms));
        entries.take(5).for_each(|entry| entry.acknowledgements = 0);
        window.count -= 1;
        window.min = Some(min);
    };
    check(|ledger, windows, _| unacknowledged(ledger, windows, -1e9), "cannot come from");
}

#[test]
fn rejected_messages_must_be_in_the_error_log() {
    check(|_, _, errors| errors.retain(|error| error.reason != "malformed"), "lacks the acknowledged malformed");
    check(|_, _, errors| errors.retain(|error| error.reason != "device_error"), "lacks the acknowledged fault");
    check(|_, _, errors| errors.push(errors[0].clone()), "times; it was sent 1 times");
    check(|_, _, errors| errors[0].payload = Some("noise".into()), "not sent");
    check(|_, _, errors| errors[0].reason = "invalid_metric".into(), "rejected as invalid_metric");
}

#[test]
fn a_redelivered_malformed_message_may_be_there_twice() {
    let again = |ledger: &mut DeviceLedger, errors: &mut Vec<ErrorSeen>| {
        ledger.published(&(0..=199));
        errors.push(errors[0].clone());
    };
    check(|ledger, _, errors| again(ledger, errors), "");
}

#[test]
fn late_readings_are_taken_out_of_their_window() {
    let expectations = expectations();
    let mut whole = ledger(&expectations);
    let message = reading(&whole, 0).clone();
    let (_, mut errors) = shown(&whole, &expectations);
    let mut without = whole.clone();
    without.entries[message.seq as usize].message.content = MessageContent::Fault;
    let (windows, _) = shown(&without, &expectations);
    for metric in expectations.options.metrics.clone() {
        errors.push(late(&whole, &expectations, &message, &metric));
    }
    assert_eq!(judge(&whole, &expectations, &windows, &errors).differences, Vec::<String>::new());
    errors.push(errors[errors.len() - 1].clone());
    assert!(judge(&whole, &expectations, &windows, &errors).differences[0].contains("late twice"));
    whole.entries.truncate(10);
    errors.pop();
    let early = judge(&whole, &expectations, &[], &errors).differences;
    assert!(early.iter().any(|difference| difference.contains("its window is open until")), "{early:?}");
}

#[test]
fn a_late_reading_is_found_within_a_backlog() {
    let expectations = expectations();
    let whole = ledger(&expectations);
    let readings: Vec<DeviceMessage> = whole.entries[..40].iter().map(|entry| entry.message.clone()).collect();
    let publications = MessageEncoder::new(&expectations.options, "d").encode_backlog(&readings);
    let array = publications.iter().find(|publication| publication.readings > 3).expect("readings travel together");
    let payload = Some(String::from_utf8(array.payload.to_vec()).unwrap());
    let (_, mut errors) = shown(&whole, &expectations);
    // Index 4 is the second metric of the second message.
    errors.push(ErrorSeen {
        reason: "late".into(),
        index: 4,
        metric: Some("humidity".into()),
        payload,
        ..ErrorSeen::default()
    });
    let mut outcome = DeviceVerification::default();
    let encoder = MessageEncoder::new(&expectations.options, "d");
    let found = rejections::examine(&whole, &expectations, &encoder, &errors, &mut outcome);
    assert_eq!(outcome.differences, Vec::<String>::new());
    assert_eq!(found.late.into_iter().collect::<Vec<_>>(), [((array.seqs.start() + 1, 1), 1)]);
}

#[test]
fn windows_that_nothing_closes_may_be_open() {
    let mut config = Config::default();
    config.window.idle_timeout_ms = None;
    let expectations = Expectations::new(&config, &expectations().options);
    let ledger = ledger(&expectations);
    let (mut windows, errors) = shown(&ledger, &expectations);
    let last = windows.iter().map(|window| window.window_start).max().unwrap();
    windows.retain(|window| window.window_start != last);
    assert_eq!(judge(&ledger, &expectations, &windows, &errors).differences, Vec::<String>::new());
    windows.retain(|window| window.window_start != last - 10_000);
    assert!(judge(&ledger, &expectations, &windows, &errors).differences[0].contains("is missing"));
}

#[test]
fn windows_before_1970_are_aligned() {
    assert_eq!(window_start_ms(-1, 5_000), -5_000);
    assert_eq!(window_start_ms(-5_000, 5_000), -5_000);
    assert_eq!(window_start_ms(4_999, 5_000), 0);
}

#[test]
fn the_number_of_differences_shown_is_bounded() {
    let mut verification = Verification::default();
    let differences = (0..50).map(|number| format!("difference {number}")).collect();
    verification.add(DeviceVerification { differences, ..DeviceVerification::default() });
    assert_eq!((verification.differing, verification.differences.len()), (50, SHOWN));
    assert!(!verification.passed());
    assert!(verification.to_string().contains("50 differences"));
}

#[tokio::test]
async fn follows_cursors_through_a_real_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let client = HttpClient::new(&url, &ApiArguments::default()).unwrap();
    let server = async {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1_024];
            let read = stream.read(&mut request).await.unwrap();
            let second = String::from_utf8_lossy(&request[..read]).contains("&cursor=a%2Fb");
            let cursor = if second { "null" } else { "\"a/b\"" };
            let body =
                format!(r#"{{"errors":[{{"reason":"late","seq":{}}}],"next_cursor":{cursor}}}"#, u8::from(second));
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    let errors = pages(&client, "/api/v1/errors?limit=1", |page: ErrorPage| (page.errors, page.next_cursor));
    let (errors, ()) = tokio::join!(errors, server);
    assert_eq!(errors.unwrap().len(), 2);
}
