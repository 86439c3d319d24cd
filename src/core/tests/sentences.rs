//! Every sentence of the errors log says what would have helped, and is right: whoever does it has the reading counted.

use std::collections::BTreeSet;

use super::{Effect, Input, OperatorHarness, T0, own_device, reading};
use crate::core::formats::MapSettings;
use crate::core::reason::Reason;
use crate::core::settings::{MetricRange, Settings, TenantSettings, TimeSource, TimestampUnit};

/// What a sentence advises.
enum Advice {
    /// To send something else.
    Send(Input),
    /// To change a setting.
    Set(fn(&mut Settings)),
    /// To forget this device.
    Forget(&'static str),
    /// To replay the error.
    Replay,
}

/// A message that is rejected, and what its sentence advises.
struct Case {
    settings: Settings,
    /// What arrives first.
    before: Vec<Input>,
    /// Time from each of these to the next.
    every_ms: i64,
    input: Input,
    reason: Reason,
    /// Part of the sentence.
    says: &'static str,
    advice: Advice,
}

fn case(input: Input, reason: Reason, says: &'static str, advice: Advice) -> Case {
    Case { settings: Settings::default(), before: Vec::new(), every_ms: 0, input, reason, says, advice }
}

/// A message of device `a` for which another payload is advised.
fn payload(wrong: &str, reason: Reason, says: &'static str, right: &str) -> Case {
    case(Input::telemetry("a", wrong), reason, says, Advice::Send(Input::telemetry("a", right)))
}

impl Case {
    /// Under these settings, after these messages.
    fn with(self, set: fn(&mut Settings), before: Vec<Input>) -> Self {
        let mut settings = self.settings.clone();
        set(&mut settings);
        Self { settings, before, ..self }
    }

    /// The state after the other messages, and the time of the next one.
    fn begin(&self, settings: &Settings) -> (OperatorHarness, i64) {
        let mut harness = OperatorHarness::new(settings.clone());
        let mut now_ms = T0;
        for input in &self.before {
            let unexpected = errors(&harness.apply(now_ms, std::slice::from_ref(input)));
            assert!(unexpected.is_empty(), "{}: {unexpected:?}", self.says);
            now_ms += self.every_ms;
        }
        (harness, now_ms + 100)
    }

    /// Applies a message after the others. Returns its errors, and how many of its readings are counted.
    fn apply(&self, settings: &Settings, inputs: &[Input]) -> (Vec<(String, String)>, u64) {
        let (mut harness, now_ms) = self.begin(settings);
        let before = harness.operator.totals().in_windows;
        let errors = errors(&harness.apply(now_ms, inputs));
        (errors, harness.operator.totals().in_windows - before)
    }

    /// Applies the message, and then the replay of its error.
    fn replay(&self) -> (Vec<(String, String)>, u64) {
        let (mut harness, now_ms) = self.begin(&self.settings);
        harness.apply(now_ms, std::slice::from_ref(&self.input));
        let (before, replay) = (harness.operator.totals().in_windows, harness.replay(0));
        let errors = errors(&harness.apply(now_ms, &[replay]));
        (errors, harness.operator.totals().in_windows - before)
    }

    #[track_caller]
    fn check(&self) {
        let own = std::slice::from_ref(&self.input);
        let (errors, _) = self.apply(&self.settings, own);
        let [(reason, sentence)] = &errors[..] else { panic!("{} {errors:?}", self.says) };
        assert_eq!(reason, self.reason.as_str(), "{sentence}");
        assert!(sentence.contains(self.says), "{sentence:?} does not say {:?}", self.says);
        assert!(sentence.len() <= 215, "{} bytes: {sentence}", sentence.len());
        let (errors, counted) = match &self.advice {
            Advice::Send(input) => self.apply(&self.settings, std::slice::from_ref(input)),
            Advice::Set(set) => {
                let mut settings = self.settings.clone();
                set(&mut settings);
                self.apply(&settings, own)
            }
            Advice::Forget(device) => {
                let mut record = Vec::new();
                crate::core::record::encode_forget([*device], &mut record);
                self.apply(&self.settings, &[Input::Encoded(record), self.input.clone()])
            }
            Advice::Replay => self.replay(),
        };
        assert!(errors.is_empty() && counted > 0, "{sentence:?} does not help: {errors:?}");
    }
}

/// Reasons and sentences.
fn errors(effects: &[Effect]) -> Vec<(String, String)> {
    let text = |json: &serde_json::Value, name: &str| json[name].as_str().unwrap().to_owned();
    let errors = effects.iter().filter_map(|effect| match effect {
        Effect::Error { json, .. } => Some((text(json, "reason"), text(json, "message"))),
        Effect::Window { .. } => None,
    });
    errors.collect()
}

const GOOD: &str = r#"{"metric":"m","value":1}"#;

fn forms() -> Vec<Case> {
    use Advice::Set;
    use Reason::{Malformed, MissingField, WrongType};
    let good = format!("[{GOOD}]");
    let raise = Set(|settings| settings.max_readings_per_message = 2);
    vec![
        payload(r#"{"metric":"m","value":1"#, Malformed, "send all of it", GOOD),
        payload("21.5", Malformed, "send it with its metric", GOOD),
        payload("[]", Malformed, "array", &good),
        payload("[1]", Malformed, "send objects with readings", &good),
        payload(r#"{"metrics":{}}"#, Malformed, "give it at least one metric", r#"{"metrics":{"m":1}}"#),
        payload(r#"{"metrics":{"m":1},"value":1}"#, Malformed, "send one metric or several", r#"{"metrics":{"m":1}}"#),
        case(Input::telemetry("a", format!("[{GOOD},{GOOD}]")), Malformed, "ingest.max_readings_per_message", raise)
            .with(|settings| settings.max_readings_per_message = 1, Vec::new()),
        payload(r#"{"metric":"m"}"#, MissingField, "`value`", GOOD),
        payload(r#"{"value":1}"#, MissingField, "`metric`", GOOD),
        payload(
            r#"{"temperature":21.5}"#,
            MissingField,
            r#"send {"metric":"temperature","value":21.5} or"#,
            r#"{"metric":"temperature","value":21.5}"#,
        ),
        // The map that the sentence names takes the message as it is.
        case(
            Input::telemetry("a", r#"{"temp":21.5}"#),
            MissingField,
            r#"or this on flat/DEVICE for a map: [[ingest.map]] name="flat" topics=["flat/{device}"]"#,
            Advice::Send(Input::on("flat/a", r#"{"temp":21.5}"#)),
        )
        .with(
            |settings| {
                let topics = vec!["flat/{device}".into()];
                settings.maps = vec![MapSettings { name: "flat".into(), topics, ..MapSettings::default() }];
            },
            Vec::new(),
        ),
        payload(
            r#"{"temperature":21.5}"#,
            MissingField,
            r#"or {"metrics":{"temperature":21.5}}"#,
            r#"{"metrics":{"temperature":21.5}}"#,
        ),
        case(Input::on("plant/a", GOOD), MissingField, "`device_id`", Advice::Send(Input::telemetry("a", GOOD))),
        payload(r#"{"metric":7,"value":1}"#, WrongType, "send a string", GOOD),
        payload(r#"{"metric":"m","value":[1]}"#, WrongType, "the value is an array; send a number", GOOD),
        payload(
            r#"{"metrics":{"m":[1]}}"#,
            WrongType,
            "the value is an array; send a number",
            r#"{"metrics":{"m":1}}"#,
        ),
        payload(r#"{"metric":"m","value":"hot"}"#, WrongType, "send a number", GOOD),
        payload(
            r#"{"metrics":{"m":"hot"}}"#,
            WrongType,
            "or null where there is none",
            r#"{"metrics":{"m":null,"n":1}}"#,
        ),
        payload(r#"{"metric":"m","value":1e999}"#, WrongType, "64-bit float", GOOD),
        payload(r#"{"metric":"m","value":1,"boot":1.5}"#, WrongType, "send a string or an integer", GOOD),
        payload(r#"{"metric":"m","value":1,"timestamp":true}"#, WrongType, "send Unix time", GOOD),
        payload(r#"{"metrics":[1]}"#, WrongType, "an object of metric names and values", r#"{"metrics":{"m":1}}"#),
        case(
            Input::telemetry("a", r#"{"metric":"m","value":"1.5"}"#),
            WrongType,
            "ingest.numeric_strings",
            Set(|settings| settings.numeric_strings = true),
        ),
    ]
}

/// Compressed payloads.
fn packed() -> Vec<Case> {
    use std::io::Write;
    let gzip = |text: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    };
    let (whole, large) = (gzip(GOOD.as_bytes()), [GOOD.as_bytes(), &[b' '; 70_000]].concat());
    let mut damaged = whole.clone();
    damaged[15] ^= 0xff;
    let send = |payload: &[u8]| Advice::Send(Input::telemetry("a", payload));
    let check = |payload: &[u8], says, advice| case(Input::telemetry("a", payload), Reason::Malformed, says, advice);
    vec![
        check(&whole[..20], "send all of it", send(&whole)),
        check(&damaged, "send it unchanged", send(&whole)),
        check(&damaged, "or without compression", send(GOOD.as_bytes())),
        check(&gzip(&large), "send several messages", send(&whole)),
        check(&gzip(&large), "or send it without compression", send(&large)),
        check(b"\x28\xb5\x2f\xfd\x04", "compress it with gzip or zlib", send(&whole)),
    ]
}

fn names_and_values() -> Vec<Case> {
    use Advice::{Send, Set};
    use Reason::{DeviceMismatch, InvalidDeviceId, InvalidMetric, TimestampInvalid, UnknownDevice, ValueOutOfRange};
    let of_other = |topic: &str| Input::on(topic, r#"{"metric":"m","value":1,"device_id":"b"}"#);
    vec![
        case(
            Input::telemetry("a ", GOOD),
            InvalidDeviceId,
            "without white space at either end",
            Send(Input::telemetry("a", GOOD)),
        ),
        case(of_other("devices/a/telemetry"), DeviceMismatch, "make them equal", Send(of_other("devices/b/telemetry"))),
        case(
            of_other("devices/a/telemetry"),
            DeviceMismatch,
            "leave `device_id` out",
            Send(Input::telemetry("a", GOOD)),
        ),
        case(
            own_device::publish("a", "readings", r#"{"metric":"m","value":1,"device_id":"b"}"#),
            DeviceMismatch,
            "give its user a role with any_device",
            Send(of_other("readings")),
        )
        .with(|settings| settings.telemetry_topics.push("readings".to_owned()), Vec::new()),
        payload(
            r#"{"metric":"a b","value":1}"#,
            InvalidMetric,
            "A-Z a-z 0-9 . _ : / -",
            r#"{"metric":"a_b","value":1}"#,
        ),
        case(
            Input::telemetry("a", GOOD),
            ValueOutOfRange,
            "validate.metrics",
            Set(|settings| settings.metrics.clear()),
        )
        .with(
            |settings| {
                settings.metrics.insert("m".to_owned(), MetricRange { min: Some(5.0), ..MetricRange::default() });
            },
            Vec::new(),
        ),
        payload(
            r#"{"metric":"m","value":1,"timestamp":"today"}"#,
            TimestampInvalid,
            "RFC 3339",
            r#"{"metric":"m","value":1,"timestamp":"2024-11-20T10:32:45Z"}"#,
        ),
        payload(
            r#"{"metric":"m","value":1,"timestamp":1e30}"#,
            TimestampInvalid,
            "send Unix time in s",
            r#"{"metric":"m","value":1,"timestamp":1732098765}"#,
        ),
        case(
            Input::telemetry("a", r#"{"metric":"m","value":1,"timestamp":"2024-02-30T10:32:45Z"}"#),
            TimestampInvalid,
            "set ingest.time to arrival",
            Set(|settings| settings.time_source = TimeSource::Arrival),
        ),
        case(
            Input::telemetry("a", r#"{"metric":"m","value":1,"timestamp":"2024-11-20T11:32:45"}"#),
            TimestampInvalid,
            "set ingest.timezone",
            Set(|settings| settings.timezone = "Europe/Berlin".to_owned()),
        ),
        case(
            Input::telemetry("a", GOOD),
            UnknownDevice,
            "validate.allowed_devices",
            Set(|settings| settings.allowed_devices.push("a".to_owned())),
        )
        .with(|settings| settings.allowed_devices.push("b".to_owned()), Vec::new()),
    ]
}

fn times() -> Vec<Case> {
    use Advice::{Send, Set};
    use Reason::{Late, TimestampInFuture, TimestampTooOld};
    let at = |offset_ms| Input::telemetry("a", reading(offset_ms, 1.0));
    let (future, past) = (|| at(400_000), || at(-8 * 86_400_000));
    let arrival = || Set(|settings| settings.time_source = TimeSource::Arrival);
    // One reading has fired the window, and another one has closed it.
    let late = |says, advice| {
        case(at(-60_000), Late, says, advice).with(
            |settings| (settings.allowed_lateness_ms, settings.backlog) = (0, false),
            vec![at(-59_000), at(-10_000)],
        )
    };
    vec![
        case(future(), TimestampInFuture, "more than validate.max_future", Set(|s| s.max_future_ms = Some(500_000))),
        case(future(), TimestampInFuture, "set ingest.time to arrival", arrival()),
        case(future(), TimestampInFuture, "set the device's clock", Send(at(0))),
        case(
            past(),
            TimestampTooOld,
            "raise validate.max_age for stored readings",
            Set(|s| s.max_age_ms = Some(9 * 86_400_000)),
        ),
        case(past(), TimestampTooOld, "set ingest.time to arrival", arrival()),
        case(past(), TimestampTooOld, "else set the device's clock", Send(at(0))),
        case(
            Input::telemetry("a", format!(r#"{{"metric":"m","value":1,"ts":{}}}"#, T0 / 1_000)),
            TimestampTooOld,
            "set it to auto",
            Set(|settings| settings.timestamp_unit = TimestampUnit::Auto),
        )
        .with(|settings| settings.timestamp_unit = TimestampUnit::Ms, Vec::new()),
        late("window.allowed_lateness", Set(|settings| settings.allowed_lateness_ms = 120_000)),
        // The window of this reading has never fired.
        case(at(-60_000), Late, "or window.backlog = \"on\" if it never fired", Set(|s| s.backlog = true))
            .with(|settings| (settings.allowed_lateness_ms, settings.backlog) = (0, false), vec![at(-10_000)]),
    ]
}

/// Numbers that came before, and what came with them is no longer remembered.
fn repeated_numbers() -> Vec<Case> {
    let object = |seq: u64, boot: &str, value: u64| {
        let payload = format!(r#"{{"metric":"m","value":{value},"timestamp":{T0},"seq":{seq},"boot":"{boot}"}}"#);
        Input::telemetry("a", payload)
    };
    let repeated = |says, advice| Case {
        before: (1..=40).map(|seq| object(seq, "x", seq)).collect(),
        every_ms: 2_000,
        ..case(object(2, "x", 99), Reason::SeqRepeated, says, advice)
    };
    vec![
        repeated("send a new `boot` when numbers begin anew", Advice::Send(object(2, "y", 99))),
        repeated("set dedup.enabled = false", Advice::Set(|settings| settings.dedup = false)),
        repeated("`weir errors replay` counts it if it is another one", Advice::Replay),
    ]
}

fn limits() -> Vec<Case> {
    use Advice::{Forget, Set};
    use Reason::{TooManyDevices, TooManyMetrics};
    let other = || vec![Input::telemetry("b", GOOD)];
    let good = || Input::telemetry("a", GOOD);
    let of_tenant = |advice| {
        let set = |settings: &mut Settings| {
            settings.tenants.push(TenantSettings { prefix: "acme/".into(), max_devices: Some(1) });
        };
        let on = |device: &str| Input::on(&format!("acme/devices/{device}/telemetry"), GOOD);
        case(on("a"), TooManyDevices, "devices in [[tenants]]", advice).with(set, vec![on("b")])
    };
    vec![
        of_tenant(Set(|settings| settings.tenants[0].max_devices = Some(2))),
        of_tenant(Forget("acme/b")),
        case(good(), TooManyDevices, "`weir device forget`", Forget("b"))
            .with(|settings| settings.max_devices_per_user = Some(1), other()),
        case(good(), TooManyDevices, "limits.devices", Set(|settings| settings.max_devices = 2))
            .with(|settings| settings.max_devices = 1, other()),
        case(good(), TooManyDevices, "limits.devices_share", Set(|settings| settings.max_devices_per_user = Some(2)))
            .with(|settings| settings.max_devices_per_user = Some(1), other()),
        case(
            good(),
            TooManyDevices,
            "limits.new_devices_per_hour",
            Set(|settings| settings.max_new_devices_per_hour = Some(2)),
        )
        .with(|settings| settings.max_new_devices_per_hour = Some(1), other()),
        case(good(), TooManyMetrics, "limits.metrics_per_device", Set(|settings| settings.max_metrics_per_device = 2))
            .with(
                |settings| settings.max_metrics_per_device = 1,
                vec![Input::telemetry("a", r#"{"metric":"n","value":1}"#)],
            ),
    ]
}

#[test]
fn every_advice_helps() {
    let cases = [forms(), packed(), names_and_values(), times(), repeated_numbers(), limits()];
    let cases: Vec<Case> = cases.into_iter().flatten().collect();
    cases.iter().for_each(Case::check);
    let told: BTreeSet<Reason> = cases.iter().map(|case| case.reason).collect();
    // Of a duplicate nothing is to be done, a fault is no reading, and births define an alias.
    let others = [Reason::Duplicate, Reason::DeviceError, Reason::UnknownAlias];
    let missing: Vec<Reason> =
        Reason::ALL.into_iter().filter(|reason| !told.contains(reason) && !others.contains(reason)).collect();
    assert!(missing.is_empty(), "without a case: {missing:?}");
}

/// The sentence of the last error.
fn last_sentence(harness: &mut OperatorHarness, arrival_ms: i64, payload: &str) -> String {
    let errors = errors(&harness.apply(arrival_ms, &[Input::telemetry("a", payload)]));
    errors.last().map(|(reason, sentence)| format!("{reason}: {sentence}")).unwrap_or_default()
}

#[test]
fn a_clock_that_goes_back_repeats_times_unless_the_arrival_counts() {
    let mut harness = OperatorHarness::new(Settings::default());
    for second in 0..5_400 {
        assert_eq!(last_sentence(&mut harness, T0 + second * 1_000, &reading(second * 1_000, 1.0)), "");
    }
    let mut sentence = String::new();
    for second in 5_400..5_420 {
        sentence = last_sentence(&mut harness, T0 + second * 1_000, &reading((second - 3_600) * 1_000, 1.0));
        assert!(sentence.starts_with("late: "), "{sentence:?}");
    }
    assert!(
        sentence.ends_with("its clock went back by 1 h 0 min; correct it, or set ingest.time to arrival"),
        "{sentence}"
    );
    // It is corrected.
    assert_eq!(last_sentence(&mut harness, T0 + 5_420_000, &reading(5_420_000, 1.0)), "");
    let arrival = Settings { time_source: TimeSource::Arrival, ..Settings::default() };
    harness.apply(T0 + 5_421_000, &[Input::Settings(Box::new(arrival))]);
    let late = last_sentence(&mut harness, T0 + 5_421_000, &reading(5_421_000 - 3_600_000, 1.0));
    assert_eq!(late, "");
    // The windows of their arrivals have never fired.
    let before = harness.operator.totals().in_windows;
    let replays: Vec<Input> = (0..20).map(|seq| harness.replay(seq)).collect();
    let rejected = errors(&harness.apply(T0 + 5_422_000, &replays));
    assert_eq!(rejected, []);
    assert_eq!(harness.operator.totals().in_windows - before, 20);
}

#[test]
fn local_time_that_is_sent_as_utc_is_mended_in_three_ways() {
    const HOUR_MS: i64 = 3_600_000;
    let text = |form: &str| format!(r#"{{"metric":"m","value":1,"timestamp":"2024-11-20T{form}"}}"#);
    let mut harness = OperatorHarness::new(Settings::default());
    let sentences =
        (0..4).map(|second| last_sentence(&mut harness, T0 + second * 1_000, &reading(second * 1_000 + HOUR_MS, 1.0)));
    let sentence = sentences.last().unwrap_or_default();
    let advice = "it seems to send local time of +01:00 as UTC; send UTC, text with its zone, or text without one and set \
                  ingest.timezone (maps: timezone)";
    assert!(sentence.starts_with("timestamp_in_future: ") && sentence.ends_with(advice), "{sentence}");
    assert_eq!(last_sentence(&mut harness, T0 + 4_000, &reading(4_000, 1.0)), "");
    assert_eq!(last_sentence(&mut harness, T0 + 5_000, &text("11:32:50+01:00")), "");
    let zone = Settings { timezone: "Europe/Berlin".to_owned(), ..Settings::default() };
    harness.apply(T0 + 6_000, &[Input::Settings(Box::new(zone))]);
    assert_eq!(last_sentence(&mut harness, T0 + 6_000, &text("11:32:51")), "");
}

#[test]
fn a_wrong_clock_of_the_machine_is_named() {
    const DAY_MS: i64 = 86_400_000;
    let mut harness = OperatorHarness::new(Settings::default());
    assert_eq!(last_sentence(&mut harness, T0 + DAY_MS, &reading(DAY_MS, 1.0)), "");
    // A device that takes its time from this machine, before and after it does so again.
    harness.apply_set_back(T0, &[]);
    let sentence = last_sentence(&mut harness, T0, &reading(DAY_MS, 1.0));
    let ends = "weir's own clock was wrong until it was set back by 1 d 0 h; devices that take its time become right by \
                themselves";
    assert!(sentence.starts_with("timestamp_in_future: ") && sentence.ends_with(ends), "{sentence}");
    assert_eq!(last_sentence(&mut harness, T0 + 1_000, &reading(1_000, 1.0)), "");
}
