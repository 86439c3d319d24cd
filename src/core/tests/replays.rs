//! Replays of stored errors.

use super::{Effect, Effects, Input, OperatorHarness, T0, flink, numbered, reading};
use crate::core::operator::Operator;
use crate::core::record::{self, Record, RecordDecoder, ReplayItem, ReplayItems, ReplayRecord};
use crate::core::replay_effects::{MAX_REPLAY_EFFECTS, ReplayEffect};
use crate::core::replayed::ReplayOrigins;
use crate::core::settings::{MetricRange, Settings};

fn allow(devices: &[&str]) -> Settings {
    Settings { allowed_devices: devices.iter().map(|&id| id.to_owned()).collect(), ..flink() }
}

impl OperatorHarness {
    fn reconfigure(&mut self, settings: Settings) {
        self.operator.reconfigure(settings, &mut self.effects);
        assert_eq!(self.effects.0, []);
    }

    /// Windows in short, after all are closed.
    pub(super) fn closed(mut self) -> Vec<String> {
        self.operator.close_all(&mut self.effects);
        self.effects.0.iter().map(super::brief).collect()
    }

    /// Counts: replays, ignored replays, readings received, readings in windows.
    fn counts(&self) -> [u64; 4] {
        let totals = self.operator.totals();
        [totals.replays, totals.replays_ignored, totals.received, totals.in_windows]
    }
}

#[test]
fn a_rejected_reading_counts_once_the_reason_is_gone() {
    let mut bench = OperatorHarness::new(allow(&["a"]));
    bench.check(T0, &[Input::telemetry("b", numbered(1, 0, 7.0))], &["unknown_device b/m 0"]);
    bench.reconfigure(allow(&["a", "b"]));
    let replay = bench.replay(0);
    bench.check(T0 + 1000, &[replay.clone(), replay.clone()], &[]);
    assert_eq!(bench.counts(), [1, 1, 2, 1], "the second time it is passed over");
    bench.check(T0 + 2000, &[replay], &[]);
    assert_eq!(bench.operator.are_replayed(&[0, 1]), [true, false]);
    // The sequence number is remembered now.
    bench.check(T0 + 3000, &[Input::telemetry("b", numbered(1, 0, 7.0)).again()], &[]);
    assert_eq!(bench.counts(), [1, 2, 3, 1]);
    assert_eq!(bench.closed(), ["b/m@0#0=7.0"]);
}

/// Readings in windows, readings rejected by reason, and the new error.
type ShortEffect = (u64, Vec<(&'static str, u64)>, Option<u64>);

/// What became of the replays of these errors.
fn effects(bench: &OperatorHarness, error_seqs: &[u64]) -> Vec<Option<ShortEffect>> {
    let short = |effect: ReplayEffect| {
        let rejected = effect.rejected.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
        assert_eq!(effect.sentence.is_some(), !effect.rejected.is_empty());
        (effect.counted, rejected, effect.error_seq)
    };
    bench.operator.replay_effects(error_seqs).into_iter().map(|effect| effect.map(short)).collect()
}

#[test]
fn an_operator_tells_what_became_of_each_replay() {
    let mut bench = OperatorHarness::new(Settings { allowed_devices: vec!["a".into()], ..limited(5.0) });
    let array = format!("[{},{}]", reading(0, 1.0), reading(1, 9.0));
    bench.apply(T0, &[Input::telemetry("b", array), Input::telemetry("b", numbered(1, 0, 1.0))]);
    bench.reconfigure(limited(5.0));
    assert_eq!(effects(&bench, &[0, 1]), [None, None]);
    // The readings of one message together, and a redelivery that is counted before the replay of the first delivery.
    bench.apply(T0, &[Input::telemetry("b", numbered(1, 0, 1.0)).again()]);
    let replays = [bench.replay_together(&[0, 1]), bench.replay(2)];
    bench.apply(T0, &replays);
    let expected = [
        Some((1, vec![], None)),
        Some((0, vec![("value_out_of_range", 1)], Some(3))),
        Some((0, vec![("duplicate", 1)], None)),
    ];
    assert_eq!(effects(&bench, &[0, 1, 2]), expected, "duplicates are not stored");
    // A replay that is passed over changes nothing, and a new error has an effect of its own.
    bench.apply(T0, &[replays[0].clone()]);
    bench.reconfigure(limited(10.0));
    let again = bench.replay(3);
    bench.apply(T0, &[again]);
    assert_eq!(effects(&bench, &[0, 1, 2]), expected);
    assert_eq!(effects(&bench, &[3, 4]), [Some((1, vec![], None)), None]);
}

#[test]
fn of_a_message_as_a_whole_each_reading_is_told() {
    let mut bench = OperatorHarness::new(Settings { max_readings_per_message: 1, ..limited(5.0) });
    let array = format!("[{},{},{},{}]", reading(0, 1.0), reading(1, 9.0), reading(2, 2.0), reading(3, 8.0));
    bench.check(T0, &[Input::telemetry("a", array)], &["malformed a/- 0"]);
    bench.reconfigure(limited(5.0));
    let replay = bench.replay(0);
    bench.apply(T0, &[replay]);
    assert_eq!(effects(&bench, &[0]), [Some((2, vec![("value_out_of_range", 2)], Some(1)))]);
}

#[test]
fn a_value_that_later_rules_call_absent_is_neither_counted_nor_rejected() {
    let mut bench = OperatorHarness::new(Settings { rules: 0, ..Settings::default() });
    bench.check(T0, &[Input::telemetry("a", r#"{"metric":"m","value":null}"#)], &["wrong_type a/m 0"]);
    bench.reconfigure(Settings::default());
    let replay = bench.replay(0);
    bench.check(T0, &[replay], &[]);
    assert_eq!(bench.counts(), [1, 0, 1, 0]);
    assert_eq!(bench.operator.totals().values_absent, 1);
    let effect = bench.operator.replay_effects(&[0]).remove(0).unwrap();
    assert_eq!((effect.counted, effect.rejected.len()), (0, 0));
    assert_eq!(effect.sentence.as_deref(), Some("the device says that there is no value"));
}

#[test]
fn a_message_that_was_read_in_an_unusual_way_is_replayed_in_the_same_way() {
    let mut bench = OperatorHarness::new(limited(5.0));
    let lines = format!("\u{feff}{}\n{}\n", reading(0, 9.0), reading(1, 2.0));
    bench.check(T0, &[Input::telemetry("a", lines)], &["value_out_of_range a/m 0"]);
    bench.reconfigure(limited(10.0));
    let replay = bench.replay(0);
    bench.check(T0, &[replay], &[]);
    assert_eq!(bench.counts(), [1, 0, 3, 2]);
    bench.check(T0, &[Input::telemetry("a", "\u{feff}{'a':1}")], &["malformed a/- 0"]);
    let replay = bench.replay(1);
    bench.check(T0, &[replay], &["malformed a/- 0"]);
}

#[test]
fn the_oldest_effects_are_forgotten() {
    let mut bench = OperatorHarness::new(Settings::default());
    let count = MAX_REPLAY_EFFECTS as u64 + 2;
    for part in (0..count).collect::<Vec<_>>().chunks(5_000) {
        let replays: Vec<_> = part.iter().map(|number| made_up(*number, None, b"x")).collect();
        bench.apply(T0, &replays);
    }
    let known: Vec<bool> = effects(&bench, &[0, 1, 2, count - 1]).iter().map(Option::is_some).collect();
    assert_eq!(known, [false, false, true, true]);
}

#[test]
fn a_redelivery_that_was_counted_meanwhile_is_a_duplicate() {
    let settings = || Settings { store_duplicates: true, ..allow(&["b"]) };
    let mut bench = OperatorHarness::new(allow(&["a"]));
    let several = format!(r#"{{"timestamp":{T0},"seq":2,"metrics":{{"x":1,"y":2}}}}"#);
    let messages = [Input::telemetry("b", numbered(1, 0, 7.0)), Input::telemetry("b", several.clone())];
    let rejected = ["unknown_device b/m 0", "unknown_device b/x 0", "unknown_device b/y 1"];
    bench.check(T0, &messages, &rejected);
    bench.reconfigure(settings());
    bench.check(T0, &[messages[0].clone().again()], &[]);
    let replays = [0, 1, 2].map(|seq| bench.replay(seq));
    // Of the first message one reading was counted from the redelivery. The other message was not redelivered, and both
    // its readings count.
    bench.check(T0, &replays, &["duplicate b/m 0"]);
    assert_eq!(bench.closed(), ["b/m@0#0=7.0", "b/x@0#0=1.0", "b/y@0#0=2.0"]);

    let mut bench = OperatorHarness::new(allow(&["a"]));
    bench.check(T0, &[Input::telemetry("b", several.clone())], &["unknown_device b/x 0", "unknown_device b/y 1"]);
    bench.reconfigure(settings());
    bench.check(T0, &[Input::telemetry("b", several).again()], &[]);
    let replays = [1, 0].map(|seq| bench.replay(seq));
    bench.check(T0, &replays, &["duplicate b/y 1", "duplicate b/x 0"]);
    assert_eq!(bench.closed(), ["b/x@0#0=1.0", "b/y@0#0=2.0"]);
}

/// The error of another device or another element stands where that of an absent value would stand.
#[test]
fn errors_of_others_are_no_siblings() {
    let absent = r#"{"device_id":"x","seq":2,"metrics":{"a":null,"b":1}}"#;
    let other = r#"{"device_id":"y","metric":"t","value":1,"seq":1}"#;
    let check = |messages: &[Input], again: &Input| {
        let mut bench = OperatorHarness::new(allow(&["z"]));
        bench.check(T0, messages, &["unknown_device y/t 0", &format!("unknown_device x/b {}", 3 - messages.len())]);
        bench.reconfigure(Settings { store_duplicates: true, ..allow(&["x", "y"]) });
        bench.apply(T0, &[again.clone().again()]);
        let counted = bench.operator.totals().in_windows;
        let replays = [0, 1].map(|seq| bench.replay(seq));
        let rejected = bench.apply(T0, &replays);
        let duplicates = rejected.iter().filter(|effect| super::brief(effect).starts_with("duplicate x/b")).count();
        assert_eq!((duplicates, bench.operator.totals().in_windows), (1, 2), "{counted} before, {rejected:?}");
    };
    let message = Input::on("any", absent);
    check(&[Input::on("any", other), message.clone()], &message);
    check(&[Input::on("any", format!("[{other},{absent}]"))], &message);
}

/// A device is replayed before it may send: that replay is rejected, and remembers no number either.
#[test]
fn an_error_of_a_replay_counts_nothing_twice() {
    let several = Input::telemetry("b", format!(r#"{{"timestamp":{T0},"seq":2,"metrics":{{"x":1,"y":2}}}}"#));
    let check = |again: bool, expected: &[&str]| {
        let mut bench = OperatorHarness::new(allow(&["a"]));
        bench.apply(T0, std::slice::from_ref(&several));
        let replay = bench.replay(0);
        bench.check(T0, &[replay], &["unknown_device b/x 0"]);
        let replay = bench.replay(2);
        bench.check(T0, &[replay], &["unknown_device b/x 0"]);
        bench.reconfigure(Settings { store_duplicates: true, ..allow(&["b"]) });
        if again {
            bench.check(T0, &[several.clone().again()], &[]);
        }
        let replays = [1, 3].map(|seq| bench.replay(seq));
        bench.check(T0, &replays, expected);
        assert_eq!(bench.closed(), ["b/x@0#0=1.0", "b/y@0#0=2.0"]);
    };
    check(true, &["duplicate b/y 1", "duplicate b/x 0"]);
    check(false, &[]);
}

/// The first check that failed is not the one for which there was no state.
#[test]
fn whatever_the_reason_a_number_that_was_not_remembered_is_none_of_the_replay() {
    let mut bench = OperatorHarness::new(Settings { max_age_ms: Some(1_000), ..allow(&["a"]) });
    let message = Input::telemetry("b", numbered(1, -5_000, 7.0));
    bench.check(T0, std::slice::from_ref(&message), &["timestamp_too_old b/m 0"]);
    bench.reconfigure(Settings { store_duplicates: true, ..allow(&["b"]) });
    bench.check(T0, &[message.again()], &[]);
    let replay = bench.replay(0);
    bench.check(T0, &[replay], &["duplicate b/m 0"]);
    assert_eq!(bench.closed(), ["b/m@-5000#0=7.0"]);
}

#[test]
fn a_part_of_an_element_is_known_after_a_restart() {
    let several = format!(r#"{{"timestamp":{T0},"seq":2,"metrics":{{"x":1,"n":null,"y":2}}}}"#);
    let mut bench = OperatorHarness::new(allow(&["a"]));
    bench.apply(T0, &[Input::telemetry("b", several)]);
    bench.reconfigure(allow(&["b"]));
    let replays = [0, 1].map(|seq| bench.replay(seq));
    bench.check(T0, &replays[..1], &[]);
    let header = bench.operator.begin_snapshot();
    let mut groups = Vec::new();
    while !bench.operator.snapshot_step(64, &mut groups) {}
    let groups = groups.iter().map(|blob| (blob.group, blob.bytes.as_slice()));
    bench.operator = Operator::restore(&header, groups).unwrap();
    assert_eq!(bench.operator.begin_snapshot(), header);
    bench.check(T0, &replays, &[]);
    assert_eq!(bench.closed(), ["b/x@0#0=1.0", "b/y@0#0=2.0"]);
}

#[test]
fn where_the_number_does_not_tell_no_part_of_an_element_is_dropped() {
    let mut bench = OperatorHarness::new(allow(&["a"]));
    let several = format!(r#"{{"timestamp":{T0},"seq":2,"metrics":{{"x":1,"y":2}}}}"#);
    bench.apply(T0, &[Input::telemetry("b", several)]);
    bench.reconfigure(Settings { store_duplicates: true, ..allow(&["b"]) });
    // So many others came under these numbers that what came under 2 is forgotten.
    let others: Vec<_> = (1..40).map(|seq| Input::telemetry("b", numbered(seq, seq as i64, 1.0))).collect();
    for (at, other) in others.into_iter().enumerate() {
        bench.apply(T0 + 30_000 * at as i64, &[other]);
    }
    let replays = [0, 1].map(|seq| bench.replay(seq));
    bench.check(T0 + 1_200_000, &replays, &["seq_repeated b/x 0", "seq_repeated b/y 1"]);
    let replays = [2, 3].map(|seq| bench.replay(seq));
    let counted = bench.operator.totals().in_windows;
    let rejected = bench.apply(T0 + 1_200_000, &replays);
    assert!(rejected.iter().all(|effect| !super::brief(effect).starts_with("duplicate")), "{rejected:?}");
    assert!(
        rejected.iter().all(|effect| super::brief(effect).starts_with("late"))
            || bench.operator.totals().in_windows == counted + 2
    );
}

#[test]
fn without_a_sequence_number_the_mqtt_identity_tells() {
    let mut bench = OperatorHarness::new(allow(&["a"]));
    let message = Input::telemetry("b", reading(0, 7.0));
    bench.check(T0, std::slice::from_ref(&message), &["unknown_device b/m 0"]);
    bench.reconfigure(allow(&["b"]));
    let replay = bench.replay(0);
    bench.check(T0, &[message.clone().again(), replay, message.again()], &[]);
    assert_eq!(bench.closed(), ["b/m@0#0=7.0"]);
}

fn limited(max: f64) -> Settings {
    let range = MetricRange { max: Some(max), ..MetricRange::default() };
    Settings { metrics: [("m".to_owned(), range)].into(), ..Settings::default() }
}

#[test]
fn of_an_array_only_the_rejected_reading_is_processed() {
    let mut bench = OperatorHarness::new(limited(10.0));
    let array = format!(
        "[{},7,{},{{\"seq\":3,\"timestamp\":{T0},\"metrics\":{{\"m\":20,\"n\":1}}}}]",
        numbered(1, 0, 1.0),
        numbered(2, 1, 11.0)
    );
    let rejected = ["malformed -/- 1", "value_out_of_range a/m 2", "value_out_of_range a/m 3"];
    bench.check(T0, &[Input::telemetry("a", array)], &rejected);
    bench.reconfigure(limited(15.0));
    let replays = [0, 1, 2].map(|seq| bench.replay(seq));
    bench.check(T0, &replays, &["malformed -/- 1", "value_out_of_range a/m 3"]);
    assert_eq!(bench.counts(), [3, 0, 5 + 3, 3]);
    // Errors of replays can be replayed like others.
    bench.reconfigure(limited(25.0));
    let replays = [3, 4].map(|seq| bench.replay(seq));
    bench.check(T0, &replays, &["malformed -/- 1"]);
    assert_eq!(bench.closed(), ["a/m@0#0=32.0", "a/n@0#0=1.0"]);
}

#[test]
fn a_whole_message_is_processed_whole() {
    let settings = |max| Settings { max_readings_per_message: max, ..Settings::default() };
    let mut bench = OperatorHarness::new(settings(1));
    let array = format!("[7,{},{}]", numbered(1, 0, 1.0), numbered(2, 1, 2.0));
    bench.check(T0, &[Input::telemetry("a", array)], &["malformed a/- 0"]);
    let replay = bench.replay(0);
    bench.check(T0, &[replay], &["malformed a/- 0"]);
    bench.reconfigure(settings(3));
    let replay = bench.replay(1);
    bench.check(T0, &[replay], &["malformed -/- 0"]);
    // One reading remains, whatever the limit: the others were counted.
    bench.reconfigure(settings(1));
    let replay = bench.replay(2);
    bench.check(T0, &[replay], &["malformed -/- 0"]);
    assert_eq!(bench.closed(), ["a/m@0#0=3.0"]);
}

#[test]
fn an_error_says_what_it_is_a_replay_of() {
    let mut bench = OperatorHarness::new(allow(&["a"]));
    bench.apply(T0, &[Input::telemetry("b", "{\"metric\":\"m\",\"value\":1}")]);
    for (seq, later) in [(0, 5_000), (1, 9_000)] {
        let replay = bench.replay(seq);
        let [Effect::Error { json, .. }] = &bench.apply(T0 + later, &[replay])[..] else { panic!() };
        let shown = ["replay_of", "first_arrival_time", "arrival_time", "journal_position"].map(|key| &json[key]);
        assert_eq!(shown, [seq as i64, T0, T0 + later, seq as i64 + 1].map(serde_json::Value::from).each_ref());
    }
    // Without a time of its own the reading has the time of its first arrival.
    bench.reconfigure(allow(&["b"]));
    let replay = bench.replay(2);
    bench.check(T0 + 20_000, &[replay], &[]);
    assert_eq!(bench.closed(), ["b/m@0#0=1.0"]);
}

#[test]
fn time_is_judged_by_both_arrivals() {
    let mut bench =
        OperatorHarness::new(Settings { max_future_ms: Some(1_000), max_age_ms: Some(1_000), ..Settings::default() });
    let future = Input::telemetry("a", reading(5_000, 1.0));
    let old = Input::telemetry("a", reading(-1_001, 1.0));
    bench.check(T0, &[future, old], &["timestamp_in_future a/m 0", "timestamp_too_old a/m 0"]);
    let replays = [0, 1].map(|seq| bench.replay(seq));
    bench.check(T0 + 3_999, &replays, &["timestamp_in_future a/m 0", "timestamp_too_old a/m 0"]);
    bench.reconfigure(Settings { max_future_ms: Some(1_000), max_age_ms: Some(1_001), ..Settings::default() });
    let replays = [2, 3].map(|seq| bench.replay(seq));
    bench.check(T0 + 4_000, &replays, &["a/m@-5000#0=1.0"]);
    assert_eq!(bench.closed(), ["a/m@5000#0=1.0"]);
}

#[test]
fn late_readings_stay_late() {
    let mut bench = OperatorHarness::new(Settings { allowed_lateness_ms: 0, ..flink() });
    let messages = [reading(0, 1.0), reading(20_000, 1.0), reading(1, 1.0)].map(|text| Input::telemetry("a", text));
    bench.check(T0 + 20_000, &messages, &["a/m@0#0=1.0", "late a/m 0"]);
    let replay = bench.replay(0);
    bench.check(T0 + 20_000, &[replay], &["late a/m 0"]);
}

#[test]
fn a_replay_tells_nothing_of_restarts() {
    let with_boot = |seq: u64, boot: &str, offset: i64, value: f64| {
        let timestamp = T0 + offset;
        format!(r#"{{"metric":"m","value":{value},"timestamp":{timestamp},"seq":{seq},"boot":"{boot}"}}"#)
    };
    let mut bench = OperatorHarness::new(limited(10.0));
    let old = Input::telemetry("a", with_boot(5, "old", 0, 20.0));
    let new = Input::telemetry("a", with_boot(5, "new", 10, 1.0));
    bench.check(T0, &[old, new.clone()], &["value_out_of_range a/m 0"]);
    bench.reconfigure(limited(30.0));
    let replay = bench.replay(0);
    bench.check(T0, &[replay, new.again()], &[]);
    assert_eq!(bench.closed(), ["a/m@0#0=21.0"]);
}

#[test]
fn what_follows_in_a_batch_is_not_touched() {
    let mut bench = OperatorHarness::new(allow(&["a"]));
    bench.check(T0, &[Input::telemetry("b", reading(0, 1.0))], &["unknown_device b/m 0"]);
    let mut records = Vec::new();
    let inputs = [Input::telemetry("a", reading(0, 1.0)), Input::telemetry("a", reading(1, 2.0))];
    records.push(inputs[0].encode(None));
    records.push(bench.replay(0).encode(None));
    // The publish shares client and topic with the publish before the replay.
    records.push(inputs[1].encode(Some(&inputs[0])));
    let records = records.iter().map(Vec::as_slice);
    bench.operator.apply(1, T0, records, &mut bench.effects).unwrap();
    assert_eq!(
        bench.effects.0.drain(..).map(|effect| super::brief(&effect)).collect::<Vec<_>>(),
        ["unknown_device b/m 0"]
    );
    assert_eq!(bench.closed(), ["a/m@0#0=3.0"]);
}

/// A replay of an error that need not exist.
fn made_up(error_seq: u64, index: Option<u32>, payload: &[u8]) -> Input {
    let (mut item, mut bytes) = (Vec::new(), Vec::new());
    ReplayItem { error_seq, index: index.unwrap_or(0), readings: 1, unseen: false }.encode(&mut item);
    let (items, whole, client_id, topic) = (ReplayItems(&item), index.is_none(), "c", "devices/a/telemetry");
    let (position, own_device, user) = (u64::MAX, None, None);
    let replay = ReplayRecord { position, whole, arrival_ms: T0, client_id, topic, own_device, user, items, payload };
    record::encode_replay(&replay, &mut bytes);
    Input::Encoded(bytes)
}

#[test]
fn a_replay_of_nothing_is_accounted_for() {
    let mut bench = OperatorHarness::new(Settings::default());
    let inputs = [made_up(7, Some(3), b"{\"metric\":\"m\",\"value\":1}"), made_up(8, Some(3), b"[")];
    bench.check(T0, &inputs, &["malformed -/- 3", "malformed a/- 3"]);
    assert_eq!(bench.counts(), [2, 0, 2, 0]);
}

#[test]
fn the_replayed_errors_are_part_of_the_state() {
    let mut bench = OperatorHarness::new(allow(&["a"]));
    bench.apply(T0, &[Input::telemetry("b", reading(0, 1.0)), Input::telemetry("b", reading(1, 1.0))]);
    let replay = bench.replay(1);
    bench.apply(T0, std::slice::from_ref(&replay));
    let header = bench.operator.begin_snapshot();
    let mut restored = Operator::restore(&header, [].into_iter()).unwrap();
    assert_eq!(restored.are_replayed(&[0, 1]), [false, true]);
    assert_eq!(restored.totals(), bench.operator.totals());
    assert_eq!(restored.begin_snapshot(), header);
}

/// Length of the list of added fields at the end of a header.
fn fields_bytes(header: &[u8]) -> usize {
    let mut empty = header.to_vec();
    // A header of format 3 ends before them: the restored operator writes the list of a state without a history of clocks.
    (1..header.len())
        .find(|bytes| {
            empty.truncate(header.len() - bytes);
            empty[0] = 3;
            Operator::restore(&empty, [].into_iter()).is_ok()
        })
        .expect("a header of format 3")
}

#[test]
fn a_header_from_before_replays_is_restored() {
    let mut bench = OperatorHarness::new(Settings::default());
    bench.apply(T0, &[Input::telemetry("b", "x")]);
    let header = bench.operator.begin_snapshot();
    // Format 4 has a list of fields at the end.
    let with_limits = header.split_at(header.len() - fields_bytes(&header)).0;
    let (rest, forgotten) = (&with_limits[..with_limits.len() - 6], &with_limits[with_limits.len() - 6..]);
    assert_eq!(forgotten, [0, 4, 0, 0, 0, 0], "a count, and counts of four limits");
    let (before, replays) = (&rest[..rest.len() - 5], &rest[rest.len() - 5..]);
    assert_eq!(replays, [0; 5], "three counts and two sets of ranges");
    for (format, header_of_before) in [(1, before), (2, rest), (3, with_limits)] {
        let mut old = header_of_before.to_vec();
        old[0] = format;
        let mut restored = Operator::restore(&old, [].into_iter()).unwrap();
        let again = restored.begin_snapshot();
        assert_eq!(again[..with_limits.len()], *with_limits, "format {format}");
        assert!(Operator::restore(&again, [].into_iter()).is_ok(), "format {format}");
    }
}

#[test]
fn beyond_the_bound_of_ranges_the_lowest_merge() {
    let mut bench = OperatorHarness::new(Settings::default());
    let ranges = super::super::replayed::MAX_REPLAYED_RANGES as u64;
    for part in (0..=ranges).collect::<Vec<_>>().chunks(5_000) {
        let replays: Vec<_> = part.iter().map(|number| made_up(number * 2, None, b"x")).collect();
        bench.apply(T0, &replays);
    }
    assert_eq!(bench.operator.are_replayed(&[0, 1, 2, 3]), [true, true, true, false]);
    assert_eq!((bench.operator.totals().replays, bench.operator.totals().replay_ranges_merged), (ranges + 1, 1));
    assert!(bench.operator.begin_snapshot().len() < 40_000);
}

/// Processes a journal anew under other settings.
fn recompute(settings: Settings, batches: &[(i64, Vec<Vec<u8>>)], first: usize) -> (Vec<String>, [u64; 4]) {
    let mut origins = ReplayOrigins::default();
    for (_, records) in batches {
        let mut decoder = RecordDecoder::default();
        records.iter().for_each(|record| origins.note(&decoder.decode(record).unwrap()));
    }
    let mut bench = OperatorHarness { operator: Operator::new(settings), lsn: 0, effects: Effects::default() };
    bench.operator.expect_replays(origins);
    for (index, (arrival_ms, records)) in batches.iter().enumerate() {
        if index >= first {
            let records = records.iter().map(Vec::as_slice);
            bench.operator.apply(bench.lsn, *arrival_ms, records, &mut bench.effects).unwrap();
            assert_eq!(bench.operator.totals().unaccounted(), 0);
        }
        bench.lsn += records.len() as u64;
    }
    let counts = bench.counts();
    (bench.closed(), counts)
}

#[test]
fn under_other_settings_a_reading_is_not_counted_twice() {
    let mut bench = OperatorHarness::new(allow(&["a"]));
    let mut batches = Vec::new();
    let mut apply = |bench: &mut OperatorHarness, inputs: &[Input]| {
        batches.push((T0, inputs.iter().map(|input| input.encode(None)).collect::<Vec<_>>()));
        bench.apply(T0, inputs)
    };
    apply(&mut bench, &[Input::telemetry("a", "x"), Input::telemetry("b", numbered(1, 0, 7.0))]);
    let replay = bench.replay(1);
    apply(&mut bench, &[replay]);
    bench.reconfigure(allow(&["a", "b"]));
    let replay = bench.replay(2);
    apply(&mut bench, &[replay.clone(), replay]);
    assert_eq!(bench.counts(), [2, 1, 4, 1]);
    assert_eq!(bench.closed(), ["b/m@0#0=7.0"]);

    // Allowed from the start: no reading was rejected, and none is replayed.
    let (windows, counts) = recompute(allow(&["a", "b"]), &batches, 0);
    assert_eq!((windows, counts), (vec!["malformed a/- 0".into(), "b/m@0#0=7.0".into()], [0, 3, 2, 1]));
    // Never allowed: rejected as often as it was replayed, under new numbers.
    let (errors, counts) = recompute(allow(&["c"]), &batches, 0);
    assert_eq!((errors.len(), counts), (4, [2, 1, 4, 0]));
    // The journal no longer has the message: only the replay has it.
    let (windows, counts) = recompute(allow(&["a", "b"]), &batches, 1);
    assert_eq!((windows, counts), (vec!["b/m@0#0=7.0".into()], [1, 2, 1, 1]));
}

#[test]
fn readings_of_one_message_are_replayed_as_one() {
    let bench = || {
        let mut bench = OperatorHarness::new(Settings { allowed_lateness_ms: 0, ..allow(&["a"]) });
        // A backlog, newest reading first. Replayed one by one, the first would close the windows of the others.
        let several = format!(r#"{{"timestamp":{},"seq":3,"metrics":{{"m":4,"n":5}}}}"#, T0 - 40_000);
        let array = format!("[{},{},{several}]", numbered(1, 0, 1.0), numbered(2, -20_000, 2.0));
        assert_eq!(bench.apply(T0, &[Input::telemetry("b", array)]).len(), 4);
        bench.reconfigure(Settings { allowed_lateness_ms: 0, ..allow(&["b"]) });
        bench
    };
    let mut together = bench();
    let replay = together.replay_together(&[0, 1, 2, 3]);
    let windows = ["b/m@-40000#0=4.0", "b/n@-40000#0=5.0", "b/m@-20000#0=2.0"];
    together.check(T0, std::slice::from_ref(&replay), &windows);
    together.check(T0, &[replay], &[]);
    assert_eq!(together.counts(), [4, 4, 8, 4]);
    assert_eq!(together.closed(), ["b/m@0#0=1.0"]);
    let mut one_by_one = bench();
    let replays = [0, 1, 2, 3].map(|seq| one_by_one.replay(seq));
    one_by_one.check(T0, &replays, &["late b/m 1", "late b/m 2", "late b/n 3"]);
    // Errors that were replayed before are left out.
    let mut rest = bench();
    let replays = [rest.replay(2), rest.replay_together(&[3, 2, 2])];
    rest.check(T0, &replays, &[]);
    assert_eq!(rest.counts(), [2, 2, 4 + 2, 2]);
    assert_eq!(rest.closed(), ["b/m@-40000#0=4.0", "b/n@-40000#0=5.0"]);
}

#[test]
fn a_redelivered_message_is_a_duplicate_as_a_whole() {
    let mut bench = OperatorHarness::new(allow(&["a"]));
    let several = format!(r#"{{"timestamp":{T0},"seq":2,"metrics":{{"x":1,"y":2}}}}"#);
    let message = Input::telemetry("b", several);
    bench.apply(T0, std::slice::from_ref(&message));
    bench.reconfigure(Settings { store_duplicates: true, ..allow(&["b"]) });
    bench.check(T0, &[message.again()], &[]);
    let replay = bench.replay_together(&[0, 1]);
    bench.check(T0, &[replay], &["duplicate b/x 0", "duplicate b/y 1"]);
    assert_eq!(bench.closed(), ["b/x@0#0=1.0", "b/y@0#0=2.0"]);
}

#[test]
fn payloads_are_replayed_as_they_were() {
    let mut bench = OperatorHarness::new(Settings::default());
    bench.lsn = 3;
    bench.apply(T0, &[Input::telemetry("a", vec![0xff, 0])]);
    let Input::Encoded(bytes) = bench.replay(0) else { panic!() };
    let Ok(Record::Replay(replay)) = RecordDecoder::default().decode(&bytes) else { panic!() };
    let expected = ("client", "devices/a/telemetry", &[0xff, 0][..], true, 3);
    assert_eq!((replay.client_id, replay.topic, replay.payload, replay.whole, replay.position), expected);
}
