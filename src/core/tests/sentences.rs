//! Every sentence of the errors log says what would have helped, and is right: whoever does it has the reading counted.

use std::collections::BTreeSet;

use super::{Effect, Input, OperatorHarness, T0, reading};
use crate::core::reason::Reason;
use crate::core::settings::{MetricRange, Settings, TimestampUnit};

/// What a sentence advises.
enum Advice {
    /// To send something else.
    Send(Input),
    /// To change a setting.
    Set(fn(&mut Settings)),
}

/// A message that is rejected, and what its sentence advises.
struct Case {
    settings: Settings,
    /// What arrives first.
    before: Vec<Input>,
    input: Input,
    reason: Reason,
    /// Part of the sentence.
    says: &'static str,
    advice: Advice,
}

fn case(input: Input, reason: Reason, says: &'static str, advice: Advice) -> Case {
    Case { settings: Settings::default(), before: Vec::new(), input, reason, says, advice }
}

/// A message of device `a` for which another payload is advised.
fn payload(wrong: &str, reason: Reason, says: &'static str, right: &str) -> Case {
    case(Input::telemetry("a", wrong), reason, says, Advice::Send(Input::telemetry("a", right)))
}

impl Case {
    /// Under these settings, behind these messages.
    fn with(self, set: fn(&mut Settings), before: Vec<Input>) -> Self {
        let mut settings = self.settings.clone();
        set(&mut settings);
        Self { settings, before, ..self }
    }

    /// Applies a message behind the others. Returns its errors, and how many of its readings are counted.
    fn apply(&self, settings: &Settings, input: &Input) -> (Vec<(String, String)>, u64) {
        let mut harness = OperatorHarness::new(settings.clone());
        let unexpected = errors(&harness.apply(T0, &self.before));
        assert!(unexpected.is_empty(), "{}: {unexpected:?}", self.says);
        let before = harness.operator.totals().in_windows;
        let errors = errors(&harness.apply(T0 + 100, std::slice::from_ref(input)));
        (errors, harness.operator.totals().in_windows - before)
    }

    #[track_caller]
    fn check(&self) {
        let (errors, _) = self.apply(&self.settings, &self.input);
        let [(reason, sentence)] = &errors[..] else { panic!("{} {errors:?}", self.says) };
        assert_eq!(reason, self.reason.as_str(), "{sentence}");
        assert!(sentence.contains(self.says), "{sentence:?} does not say {:?}", self.says);
        assert!(sentence.len() <= 260, "{} bytes: {sentence}", sentence.len());
        let (errors, counted) = match &self.advice {
            Advice::Send(input) => self.apply(&self.settings, input),
            Advice::Set(set) => {
                let mut settings = self.settings.clone();
                set(&mut settings);
                self.apply(&settings, &self.input)
            }
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
        case(Input::on("plant/a", GOOD), MissingField, "`device_id`", Advice::Send(Input::telemetry("a", GOOD))),
        payload(r#"{"metric":7,"value":1}"#, WrongType, "send a string", GOOD),
        payload(r#"{"metric":"m","value":[1]}"#, WrongType, "send a number", GOOD),
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
        case(
            Input::telemetry("a", GOOD),
            UnknownDevice,
            "validate.allowed_devices",
            Set(|settings| settings.allowed_devices.push("a".to_owned())),
        )
        .with(|settings| settings.allowed_devices.push("b".to_owned()), Vec::new()),
    ]
}

fn times_and_limits() -> Vec<Case> {
    use Advice::Set;
    use Reason::{Late, TimestampInFuture, TimestampTooOld, TooManyDevices, TooManyMetrics};
    let other = || vec![Input::telemetry("b", GOOD)];
    let good = || Input::telemetry("a", GOOD);
    vec![
        case(
            Input::telemetry("a", reading(400_000, 1.0)),
            TimestampInFuture,
            "validate.max_future",
            Set(|settings| settings.max_future_ms = Some(500_000)),
        ),
        case(
            Input::telemetry("a", reading(-8 * 86_400_000, 1.0)),
            TimestampTooOld,
            "validate.max_age",
            Set(|settings| settings.max_age_ms = Some(9 * 86_400_000)),
        ),
        case(
            Input::telemetry("a", format!(r#"{{"metric":"m","value":1,"ts":{}}}"#, T0 / 1_000)),
            TimestampTooOld,
            "set it to auto",
            Set(|settings| settings.timestamp_unit = TimestampUnit::Auto),
        )
        .with(|settings| settings.timestamp_unit = TimestampUnit::Ms, Vec::new()),
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
        // Another reading has fired the window, and a third has closed it.
        case(
            Input::telemetry("a", reading(-60_000, 1.0)),
            Late,
            "window.allowed_lateness",
            Set(|settings| settings.allowed_lateness_ms = 120_000),
        )
        .with(
            |settings| (settings.allowed_lateness_ms, settings.backlog) = (0, false),
            vec![Input::telemetry("a", reading(-59_000, 1.0)), Input::telemetry("a", reading(-10_000, 1.0))],
        ),
    ]
}

#[test]
fn every_advice_helps() {
    let cases: Vec<Case> = [forms(), names_and_values(), times_and_limits()].into_iter().flatten().collect();
    cases.iter().for_each(Case::check);
    let told: BTreeSet<Reason> = cases.iter().map(|case| case.reason).collect();
    // A duplicate is counted already, and a fault is no reading. Repeated numbers have tests of their own.
    let others = [Reason::Duplicate, Reason::DeviceError, Reason::SeqRepeated];
    let missing: Vec<Reason> =
        Reason::ALL.into_iter().filter(|reason| !told.contains(reason) && !others.contains(reason)).collect();
    assert!(missing.is_empty(), "without a case: {missing:?}");
}
