//! The event time of an element, and the checks that it must pass.

use crate::core::decode::ElementFields;
use crate::core::json::JsonToken;
use crate::core::problem::ReadingProblem;
use crate::core::settings::{Settings, TimeSource};
use crate::core::timestamp::{self, StatedTime};
use crate::core::timezone;
use crate::core::validate::ValidationRules;

/// The event time that an element states; `None` where it states none. A replay arrives again, but its message was sent
/// before it first arrived. So the later arrival bounds the future, and the first one the age.
#[inline]
pub(super) fn event_time<'m>(
    fields: &'m ElementFields<'_>,
    settings: &Settings,
    rules: &ValidationRules,
    arrival_ms: i64,
    first_arrival_ms: i64,
) -> Result<Option<i64>, ReadingProblem<'m>> {
    let unit = settings.timestamp_unit;
    let usual = match &fields.timestamp {
        JsonToken::Number(number) => timestamp::from_number(number, unit),
        JsonToken::Text(text) => timestamp::from_text(text, unit),
        _ => None,
    };
    let time_ms = match usual {
        Some(time_ms) if time_ms > 0 && settings.time_source == TimeSource::Event => time_ms,
        _ => match unusual_time(fields, settings, rules, first_arrival_ms)? {
            Some(time_ms) => time_ms,
            None => return Ok(None),
        },
    };
    if settings.max_future_ms.is_some_and(|max| time_ms > arrival_ms.saturating_add(max)) {
        return Err(ReadingProblem::InFuture { time_ms, arrival_ms });
    }
    if settings.max_age_ms.is_some_and(|max| time_ms < first_arrival_ms.saturating_sub(max)) {
        return Err(ReadingProblem::TooOld { time_ms, arrival_ms: first_arrival_ms });
    }
    Ok(Some(time_ms))
}

/// Times before this one are no times but durations where a field other than `timestamp` states them: 1973-03-03.
const FIRST_OTHER_TIME_MS: i64 = 100_000_000_000;

/// The event time of an element whose `timestamp` is not a time after 1970 in one of the usual forms.
#[inline(never)]
fn unusual_time<'m>(
    fields: &'m ElementFields<'_>,
    settings: &Settings,
    rules: &ValidationRules,
    first_arrival_ms: i64,
) -> Result<Option<i64>, ReadingProblem<'m>> {
    if settings.time_source == TimeSource::Arrival {
        return Ok(None);
    }
    if !settings.has_field_rules() {
        return strict_time(&fields.timestamp, settings);
    }
    let read = |field| read_time(field, settings, rules, first_arrival_ms);
    if !timestamp::states_none(&fields.timestamp) {
        return read(&fields.timestamp);
    }
    if timestamp::states_none(&fields.other_time) {
        return Ok(None);
    }
    match read(&fields.other_time) {
        Ok(time_ms) => Ok(time_ms.filter(|time_ms| *time_ms >= FIRST_OTHER_TIME_MS)),
        Err(problem @ (ReadingProblem::NoZone(_) | ReadingProblem::NoSuchTime(_))) => Err(problem),
        // The field is something else than a time.
        Err(_) => Ok(None),
    }
}

/// The event time that a field states.
fn read_time<'m>(
    token: &'m JsonToken<'_>,
    settings: &Settings,
    rules: &ValidationRules,
    first_arrival_ms: i64,
) -> Result<Option<i64>, ReadingProblem<'m>> {
    let text = match token {
        JsonToken::Number(number) => number.text(),
        JsonToken::Text(text) => text.as_ref(),
        other => return Err(wrong_timestamp(other)),
    };
    match timestamp::stated(token, settings.timestamp_unit) {
        StatedTime::At(time_ms) => Ok(Some(time_ms)),
        StatedTime::Unknown => Ok(None),
        StatedTime::Local(local_ms) => {
            let zone = rules.timezone.as_ref().ok_or(ReadingProblem::NoZone(text))?;
            let time_ms = timezone::instant_ms(local_ms, zone, first_arrival_ms);
            time_ms.map(Some).ok_or(ReadingProblem::TimestampOutOfRange(text))
        }
        StatedTime::OutOfRange => Err(ReadingProblem::TimestampOutOfRange(text)),
        StatedTime::NoSuchTime => Err(ReadingProblem::NoSuchTime(text)),
        StatedTime::Unreadable => Err(ReadingProblem::InvalidTimestamp(text)),
    }
}

/// The event time that a `timestamp` states under rules 0.
fn strict_time<'m>(token: &'m JsonToken<'_>, settings: &Settings) -> Result<Option<i64>, ReadingProblem<'m>> {
    let unit = settings.timestamp_unit;
    let (time_ms, text) = match token {
        JsonToken::Number(number) => (timestamp::from_number(number, unit), number.text()),
        JsonToken::Text(text) => (timestamp::from_text(text, unit), text.as_ref()),
        JsonToken::Absent | JsonToken::Null => return Ok(None),
        other => return Err(wrong_timestamp(other)),
    };
    time_ms.map(Some).ok_or(ReadingProblem::InvalidTimestamp(text))
}

fn wrong_timestamp<'m>(token: &JsonToken<'_>) -> ReadingProblem<'m> {
    ReadingProblem::WrongType {
        field: "timestamp",
        found: token.kind(),
        wanted: "Unix time, or RFC 3339 with a zone such as 2026-11-30T07:00:00Z",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::core::decode::{DecodeRules, DecodedMessage};
    use crate::core::reason::Reason;
    use crate::core::settings::TimestampUnit;

    #[test]
    fn event_times_are_bounded_by_the_arrival() {
        let settings = Settings { max_future_ms: Some(1000), max_age_ms: Some(5000), ..Settings::default() };
        let arrival = 1_732_098_765_123;
        let check = |time: i64, expected: Result<(), Reason>| {
            let result = time_of(&json!({ "timestamp": time }), &settings, arrival).map_err(|(reason, _)| reason);
            assert_eq!(result, expected.map(|()| Some(time)), "{time}");
        };
        check(arrival + 1000, Ok(()));
        check(arrival + 1001, Err(Reason::TimestampInFuture));
        check(arrival - 5000, Ok(()));
        check(arrival - 5001, Err(Reason::TimestampTooOld));
        assert_eq!(time_of(&json!({}), &settings, arrival), Ok(None));
        assert_eq!(time_of(&json!({ "timestamp": null }), &settings, arrival), Ok(None));
        let off = Settings { max_future_ms: None, max_age_ms: None, ..settings.clone() };
        assert_eq!(time_of(&json!({"timestamp": 99_999_999_999i64}), &off, arrival), Ok(Some(99_999_999_999_000)));
    }

    /// The event time of an object, or the reason and the sentence of its rejection.
    fn time_of(
        object: &serde_json::Value,
        settings: &Settings,
        arrival_ms: i64,
    ) -> Result<Option<i64>, (Reason, String)> {
        let text = object.to_string();
        let mut message = DecodedMessage::default();
        message.decode_text(&text, DecodeRules::of(settings)).unwrap();
        let rules = ValidationRules::new(settings);
        event_time(message.single().unwrap(), settings, &rules, arrival_ms, arrival_ms)
            .map_err(|problem| (problem.reason(), problem.to_string()))
    }

    const ARRIVAL_MS: i64 = 1_796_022_000_000;

    #[test]
    fn a_device_without_a_clock_states_no_time() {
        let settings = Settings::default();
        for timestamp in [
            json!(0),
            json!(0.0),
            json!(-1),
            json!(""),
            json!(" "),
            json!("0"),
            json!("0.0"),
            json!("-1"),
            json!(null),
            json!("0000-00-00 00:00:00"),
            json!("0000-00-00T00:00:00Z"),
            json!("1970-01-01T00:00:00Z"),
            json!("1970-01-01 00:00:00"),
        ] {
            assert_eq!(time_of(&json!({ "timestamp": timestamp }), &settings, ARRIVAL_MS), Ok(None), "{timestamp}");
        }
        for timestamp in [json!(1), json!(-2), json!(946_684_800), json!("1970-01-01T00:00:12Z")] {
            let outcome = time_of(&json!({ "timestamp": timestamp }), &settings, ARRIVAL_MS);
            assert_eq!(outcome.unwrap_err().0, Reason::TimestampTooOld, "{timestamp}");
        }
    }

    #[test]
    fn the_first_field_that_states_a_time_counts() {
        let settings = Settings::default();
        let (a, b, c) = (ARRIVAL_MS - 1, ARRIVAL_MS - 2, ARRIVAL_MS - 3);
        let check = |object: serde_json::Value, expected| {
            assert_eq!(time_of(&object, &settings, ARRIVAL_MS), Ok(expected), "{object}");
        };
        check(json!({"timestamp": a, "ts": b, "time": c}), Some(a));
        check(json!({"time": c, "ts": b, "timestamp": 0}), Some(b));
        check(json!({"ts": b, "time": c}), Some(b));
        check(json!({"ts": null, "time": c}), Some(c));
        check(json!({"time": c, "ts": ""}), Some(c));
        check(json!({"Timestamp": a, "TS": b, "Time": c}), Some(a));
        check(json!({"Time": "2026-11-30T07:00:00Z"}), Some(ARRIVAL_MS));
        // What is no time of a clock: an uptime, a time of day, a flag.
        for other in [json!(12.5), json!(99_999_999), json!("08:15:00"), json!(true), json!({"s": 1}), json!(1e300)] {
            check(json!({ "time": other }), None);
        }
    }

    #[test]
    fn the_arrival_counts_where_it_is_configured() {
        let settings = Settings { time_source: TimeSource::Arrival, ..Settings::default() };
        for timestamp in [json!(ARRIVAL_MS + 600_000), json!(1), json!("x"), json!(true), json!("2026-11-30T07:00:00")]
        {
            assert_eq!(time_of(&json!({ "timestamp": timestamp }), &settings, ARRIVAL_MS), Ok(None), "{timestamp}");
        }
    }

    /// The sentence names `advice`, and the reading is accepted once it is followed.
    fn check_advice(
        timestamp: serde_json::Value,
        advice: &str,
        changed: Settings,
        changed_timestamp: serde_json::Value,
    ) {
        let object = json!({ "timestamp": timestamp });
        let (_, sentence) = time_of(&object, &Settings::default(), ARRIVAL_MS).unwrap_err();
        assert!(sentence.contains(advice), "{sentence:?} names {advice}");
        let outcome = time_of(&json!({ "timestamp": changed_timestamp }), &changed, ARRIVAL_MS);
        assert!(outcome.is_ok(), "{advice}: {outcome:?}");
    }

    #[test]
    fn the_advice_about_times_helps() {
        let usual = Settings::default;
        let arrival = || Settings { time_source: TimeSource::Arrival, ..usual() };
        let berlin = || Settings { timezone: "Europe/Berlin".into(), ..usual() };
        let local = json!("2026-11-30T08:00:00");
        check_advice(local.clone(), "ingest.timezone", berlin(), local.clone());
        check_advice(local, "Z at the end", usual(), json!("2026-11-30T07:00:00Z"));
        let wrong = json!("30.11.2026 08:00");
        check_advice(wrong.clone(), "2026-11-30T07:00:00Z", usual(), json!("2026-11-30T07:00:00Z"));
        check_advice(wrong, "Unix time", usual(), json!(ARRIVAL_MS));
        check_advice(json!(true), "2026-11-30T07:00:00Z", usual(), json!("2026-11-30T07:00:00Z"));
        check_advice(json!("2026-02-30T08:00:00Z"), "ingest.time to arrival", arrival(), json!("2026-02-30T08:00:00Z"));
        let ahead = json!(ARRIVAL_MS + 600_000);
        check_advice(ahead.clone(), "ingest.time to arrival", arrival(), ahead.clone());
        check_advice(ahead.clone(), "validate.max_future", Settings { max_future_ms: None, ..usual() }, ahead);
        let old = json!(ARRIVAL_MS - 8 * 86_400_000);
        check_advice(old.clone(), "ingest.time to arrival", arrival(), old.clone());
        check_advice(
            old.clone(),
            "raise validate.max_age",
            Settings { max_age_ms: Some(9 * 86_400_000), ..usual() },
            old,
        );
        let large = json!(9e15);
        let seconds = Settings { timestamp_unit: TimestampUnit::S, ..usual() };
        let (_, sentence) = time_of(&json!({ "timestamp": large }), &seconds, ARRIVAL_MS).unwrap_err();
        assert!(sentence.contains("ingest.timestamp_unit"), "{sentence}");
        let auto = Settings { max_future_ms: None, ..usual() };
        assert!(time_of(&json!({ "timestamp": large }), &auto, ARRIVAL_MS - 600_000_000_000).is_ok());
    }

    #[test]
    fn rules_0_read_times_strictly() {
        let settings = Settings { rules: 0, ..Settings::default() };
        let check = |object: serde_json::Value, expected: Result<Option<i64>, Reason>| {
            let outcome = time_of(&object, &settings, ARRIVAL_MS).map_err(|(reason, _)| reason);
            assert_eq!(outcome, expected, "{object}");
        };
        check(json!({"timestamp": 0}), Err(Reason::TimestampTooOld));
        check(json!({"timestamp": ""}), Err(Reason::TimestampInvalid));
        check(json!({"timestamp": "2026-11-30T08:00:00+0100"}), Err(Reason::TimestampInvalid));
        check(json!({"timestamp": true}), Err(Reason::WrongType));
        check(json!({"ts": ARRIVAL_MS - 9_000_000_000}), Ok(None));
        check(json!({"timestamp": "2026-11-30T08:00:00+01:00"}), Ok(Some(ARRIVAL_MS)));
    }
}
