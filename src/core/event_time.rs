//! The event time of an element, and the checks that it must pass.

use crate::core::decode::ElementFields;
use crate::core::json::{JsonToken, RefusedValue};
use crate::core::problem::ReadingProblem;
use crate::core::reason::Reason;
use crate::core::settings::{Settings, TimeSource, TimestampUnit};
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
        JsonToken::UnixMs(time_ms) => Some(*time_ms),
        _ => None,
    };
    let time_ms = match usual {
        Some(time_ms) if time_ms > 0 && settings.time_source == TimeSource::Event => time_ms,
        _ => match unusual_time(fields, settings, rules, first_arrival_ms)? {
            Some(time_ms) => time_ms,
            None => return Ok(None),
        },
    };
    match check_bounds(time_ms, settings, arrival_ms, first_arrival_ms) {
        Ok(()) => Ok(Some(time_ms)),
        Err(problem) => {
            let is_bounded = |other_ms| check_bounds(other_ms, settings, arrival_ms, first_arrival_ms).is_ok();
            Err(wrong_unit(fields, settings, time_ms, problem.reason(), is_bounded).unwrap_or(problem))
        }
    }
}

/// Checks that an event time is not too far from the arrival.
#[inline]
fn check_bounds<'m>(
    time_ms: i64,
    settings: &Settings,
    arrival_ms: i64,
    first_arrival_ms: i64,
) -> Result<(), ReadingProblem<'m>> {
    if settings.max_future_ms.is_some_and(|max| time_ms > arrival_ms.saturating_add(max)) {
        return Err(ReadingProblem::InFuture { time_ms, arrival_ms });
    }
    if settings.max_age_ms.is_some_and(|max| time_ms < first_arrival_ms.saturating_sub(max)) {
        return Err(ReadingProblem::TooOld { time_ms, arrival_ms: first_arrival_ms });
    }
    Ok(())
}

/// Blames the configured unit for a number that is too far from the arrival, if the unit that its magnitude tells makes a
/// time of it that is not.
#[cold]
fn wrong_unit<'m>(
    fields: &'m ElementFields<'_>,
    settings: &Settings,
    time_ms: i64,
    reason: Reason,
    is_bounded: impl Fn(i64) -> bool,
) -> Option<ReadingProblem<'m>> {
    if settings.timestamp_unit == TimestampUnit::Auto || !settings.has_field_rules() {
        return None;
    }
    let tokens = [Some(&fields.timestamp), fields.stated_other_time()].into_iter().flatten();
    let mut stated =
        tokens.filter(|token| timestamp::stated(token, settings.timestamp_unit) == StatedTime::At(time_ms));
    let token = stated.next()?;
    let StatedTime::At(other_ms) = timestamp::stated(token, TimestampUnit::Auto) else { return None };
    let text = match token {
        JsonToken::Number(number) => number.text(),
        JsonToken::Text(text) => text.as_ref(),
        _ => return None,
    };
    (other_ms != time_ms && is_bounded(other_ms)).then_some(ReadingProblem::WrongUnit { text, time_ms, reason })
}

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
    match (read(&fields.timestamp)?, fields.stated_other_time()) {
        (Some(time_ms), _) => Ok(Some(time_ms)),
        (None, Some(other_time)) => read(other_time),
        (None, None) => Ok(None),
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
        JsonToken::Absent | JsonToken::Null | JsonToken::BareWord => return Ok(None),
        JsonToken::UnixMs(time_ms) => return Ok(Some(*time_ms)),
        JsonToken::Refused(refused) => return Err(refused_time(refused)),
        other => return Err(wrong_timestamp(other)),
    };
    match timestamp::stated(token, settings.timestamp_unit) {
        StatedTime::At(time_ms) => Ok(Some(time_ms)),
        StatedTime::Unknown => Ok(None),
        StatedTime::Local(local_ms) => {
            let zone = rules.timezone.as_ref().ok_or(ReadingProblem::NoZone(text))?;
            let time_ms = timezone::instant_ms(local_ms, zone, first_arrival_ms);
            let time_ms = time_ms.ok_or(ReadingProblem::TimestampOutOfRange(text))?;
            // Where a clock begins that was never set.
            Ok((time_ms != 0).then_some(time_ms))
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

/// The problem of a time that a map cannot read.
#[cold]
fn refused_time<'m>(refused: &'m RefusedValue<'_>) -> ReadingProblem<'m> {
    match refused {
        RefusedValue::Time(text) => ReadingProblem::InvalidTimestamp(text),
        RefusedValue::NameTwice(..) | RefusedValue::UnknownAlias(_) | RefusedValue::Malformed(_) => {
            ReadingProblem::InvalidTimestamp("")
        }
    }
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
        time_of_text(&object.to_string(), settings, arrival_ms)
    }

    fn time_of_text(text: &str, settings: &Settings, arrival_ms: i64) -> Result<Option<i64>, (Reason, String)> {
        let mut message = DecodedMessage::default();
        message.decode_text(text, DecodeRules::of(settings)).unwrap();
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
            json!("0000/00/00 00:00"),
            json!("NaN"),
            json!("null"),
            json!("Unavailable"),
            json!("-"),
            json!("00000000T000000Z"),
            json!("1970-01-01T00:00:00Z"),
            json!("1970-01-01 00:00:00"),
            json!(-1.0),
            json!("-1.0"),
            json!("-1e0"),
            json!("0e0"),
        ] {
            assert_eq!(time_of(&json!({ "timestamp": timestamp }), &settings, ARRIVAL_MS), Ok(None), "{timestamp}");
        }
        for number in ["-1.0", "-1e0", "-10e-1", "-1.000", "0e7", "-0.0"] {
            let object: String = format!(r#"{{"timestamp":{number}}}"#);
            assert_eq!(time_of_text(&object, &settings, ARRIVAL_MS), Ok(None), "{number}");
        }
        for timestamp in [json!(1), json!(-1.5), json!(-2), json!(946_684_800), json!("1970-01-01T00:00:12Z")] {
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
    fn fields_that_state_no_time_hide_none_behind_them() {
        let settings = Settings::default();
        let none = [
            "12345",
            "99999999",
            "-1796022000",
            "1e300",
            "true",
            "false",
            "{\"s\":1}",
            "[1796022000]",
            "null",
            "NaN",
            "0",
            "-1",
            "\"\"",
            "\"12345\"",
            "\"08:15:00\"",
            "\"now\"",
            "\"1970-01-01T00:00:00Z\"",
            "\"1970-01-01 00:00:12\"",
            "\"0000-00-00 00:00:00\"",
        ];
        let check = |object: String| {
            assert_eq!(time_of_text(&object, &settings, ARRIVAL_MS), Ok(Some(ARRIVAL_MS)), "{object}");
        };
        for none in none {
            check(format!(r#"{{"ts":{none},"time":{ARRIVAL_MS}}}"#));
            check(format!(r#"{{"time":{ARRIVAL_MS},"ts":{none}}}"#));
            check(format!(r#"{{"Timestamp":{none},"time":{ARRIVAL_MS}}}"#));
            check(format!(r#"{{"ts":{none},"Time":{ARRIVAL_MS},"time":{none}}}"#));
            check(format!(r#"{{"TIME":{none},"Time":{ARRIVAL_MS}}}"#));
        }
        // The last of equal fields that state a time.
        check(format!(r#"{{"Time":{},"time":{ARRIVAL_MS}}}"#, ARRIVAL_MS - 1));
        for none in ["0", "-1.0", "null", "\"\"", "\"1970-01-01T00:00:00Z\"", "\"1970-01-01T01:00:00+01:00\""] {
            check(format!(r#"{{"timestamp":{none},"ts":{ARRIVAL_MS}}}"#));
            check(format!(r#"{{"timestamp":{none},"ts":12345,"time":{ARRIVAL_MS}}}"#));
        }
        // The memory of a message is used again for the next one.
        let first = format!(r#"{{"timestamp":0,"ts":{ARRIVAL_MS}}}"#);
        let mut message = DecodedMessage::default();
        message.decode_text(&first, DecodeRules::of(&settings)).unwrap();
        message.decode_text(r#"{"metric":"t","time":1796022000123}"#, DecodeRules::of(&settings)).unwrap();
        let rules = ValidationRules::new(&settings);
        let time = event_time(message.single().unwrap(), &settings, &rules, ARRIVAL_MS, ARRIVAL_MS);
        assert_eq!(time, Ok(Some(1_796_022_000_123)));
    }

    #[test]
    fn a_clock_that_was_never_set_shows_local_time() {
        let berlin = Settings { timezone: "Europe/Berlin".into(), ..Settings::default() };
        for text in ["1970-01-01T01:00:00", "1970-01-01T00:00:00", "1970-01-01 01:00"] {
            assert_eq!(time_of(&json!({ "timestamp": text }), &berlin, ARRIVAL_MS), Ok(None), "{text}");
            let both = json!({ "timestamp": text, "ts": ARRIVAL_MS });
            assert_eq!(time_of(&both, &berlin, ARRIVAL_MS), Ok(Some(ARRIVAL_MS)), "{text}");
        }
        let new_york = Settings { timezone: "America/New_York".into(), ..Settings::default() };
        assert_eq!(time_of(&json!({ "timestamp": "1969-12-31T19:00:00" }), &new_york, ARRIVAL_MS), Ok(None));
        let later = time_of(&json!({ "timestamp": "1970-01-01T01:00:01" }), &berlin, ARRIVAL_MS);
        assert_eq!(later.unwrap_err().0, Reason::TimestampTooOld);
    }

    /// Numbers that are a time, but not in the unit that is configured.
    #[test]
    fn a_wrong_unit_is_told_in_every_field() {
        let in_s = ARRIVAL_MS / 1000;
        for (unit, number, reason) in [
            (TimestampUnit::S, ARRIVAL_MS, Reason::TimestampInvalid),
            (TimestampUnit::Ms, in_s, Reason::TimestampTooOld),
            (TimestampUnit::Us, ARRIVAL_MS, Reason::TimestampTooOld),
            (TimestampUnit::Ns, in_s * 1_000_000, Reason::TimestampTooOld),
            (TimestampUnit::Ms, in_s * 1_000_000, Reason::TimestampInvalid),
            (TimestampUnit::Us, in_s * 1_000_000_000, Reason::TimestampInvalid),
        ] {
            let settings = Settings { timestamp_unit: unit, ..Settings::default() };
            for field in ["timestamp", "ts", "time", "Time"] {
                for value in [json!(number), json!(number.to_string())] {
                    let object = json!({ field: value });
                    let (found, sentence) = time_of(&object, &settings, ARRIVAL_MS).unwrap_err();
                    assert_eq!(found, reason, "{unit:?} {object}: {sentence}");
                    assert!(sentence.contains("ingest.timestamp_unit"), "{sentence}");
                    assert_eq!(time_of(&object, &Settings::default(), ARRIVAL_MS), Ok(Some(ARRIVAL_MS)), "{object}");
                }
            }
        }
        // Durations and times that are as wrong in every unit.
        let ms = Settings { timestamp_unit: TimestampUnit::Ms, ..Settings::default() };
        assert_eq!(time_of(&json!({"ts": 12_345}), &ms, ARRIVAL_MS), Ok(None));
        let (reason, sentence) = time_of(&json!({"ts": ARRIVAL_MS - 9_000_000_000}), &ms, ARRIVAL_MS).unwrap_err();
        assert_eq!(reason, Reason::TimestampTooOld);
        assert!(sentence.contains("validate.max_age"), "{sentence}");
        assert_eq!(time_of(&json!({"ts": "2026-11-30T07:00:00Z"}), &ms, ARRIVAL_MS), Ok(Some(ARRIVAL_MS)));
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
