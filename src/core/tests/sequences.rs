//! Each different reading is counted once, or is an error that can be replayed, whatever becomes of its sequence number.

use proptest::prelude::*;

use super::{Input, OperatorHarness, T0};
use crate::core::operator::Operator;
use crate::core::reason::Reason;
use crate::core::recent_digests::REMEMBERED;
use crate::core::settings::{SequenceBits, Settings};

/// What a device, or its line, does next.
#[derive(Debug, Clone)]
enum SequenceStep {
    /// Measures and sends under the next number, after so many milliseconds; so many numbers before it are lost.
    Send { after_ms: i64, lost: u64 },
    /// Sends another reading under the number of the last one.
    Share,
    /// Sends again what it sent so many readings ago: with DUP or without, alone or in an array.
    Again { back: usize, dup: bool, in_array: bool },
    /// Restarts, and its clock goes back by so much.
    Restart { back_ms: i64 },
    /// weir is restored from a snapshot.
    Restore,
}

fn steps() -> impl Strategy<Value = Vec<SequenceStep>> {
    let step = prop_oneof![
        12 => (prop_oneof![0i64..50, 0i64..3_000], prop_oneof![9 => Just(0u64), 1 => 0u64..4])
            .prop_map(|(after_ms, lost)| SequenceStep::Send { after_ms, lost }),
        2 => Just(SequenceStep::Share),
        5 => (prop_oneof![0usize..3, 0usize..REMEMBERED, 0usize..80], any::<bool>(), any::<bool>())
            .prop_map(|(back, dup, in_array)| SequenceStep::Again { back, dup, in_array }),
        1 => (0i64..60_000).prop_map(|back_ms| SequenceStep::Restart { back_ms }),
        1 => Just(SequenceStep::Restore),
    ];
    prop::collection::vec(step, 1..300)
}

/// A device, and what it sent.
struct CountingDevice {
    bench: OperatorHarness,
    now_ms: i64,
    behind_ms: i64,
    next: u64,
    width: u64,
    /// Objects in the order in which they were sent first.
    sent: Vec<String>,
    restarts: usize,
}

impl CountingDevice {
    fn new(width: u64, bits: SequenceBits) -> Self {
        let settings = Settings {
            sequence_bits: bits,
            max_age_ms: None,
            max_future_ms: None,
            allowed_lateness_ms: 86_400_000,
            idle_timeout_ms: None,
            ..Settings::default()
        };
        let bench = OperatorHarness::new(settings);
        Self { bench, now_ms: T0, behind_ms: 0, next: 0, width, sent: Vec::new(), restarts: 0 }
    }

    /// Sends one object; returns how many readings of it were counted, were duplicates, and could not be decided.
    fn deliver(&mut self, object: &str, dup: bool, in_array: bool) -> (u64, u64, u64) {
        let totals = |bench: &OperatorHarness| {
            let totals = bench.operator.totals();
            let rejected = |reason| totals.rejected[reason as usize];
            (totals.in_windows, rejected(Reason::Duplicate), rejected(Reason::SeqRepeated))
        };
        let before = totals(&self.bench);
        let input = Input::telemetry("a", if in_array { format!("[{object}]") } else { object.to_owned() });
        self.bench.apply(self.now_ms, &[if dup { input.again() } else { input }]);
        let after = totals(&self.bench);
        (after.0 - before.0, after.1 - before.1, after.2 - before.2)
    }

    fn measure(&mut self, number: u64) -> (u64, u64, u64) {
        let (value, seq) = (self.sent.len(), number % self.width);
        let time_ms = self.now_ms - self.behind_ms;
        let object = format!(r#"{{"metric":"m","value":{value},"timestamp":{time_ms},"seq":{seq}}}"#);
        self.sent.push(object.clone());
        self.deliver(&object, false, false)
    }

    fn restore(&mut self) {
        let operator = &mut self.bench.operator;
        let header = operator.begin_snapshot();
        operator.snapshot_failed();
        let header_again = operator.begin_snapshot();
        assert_eq!(header, header_again);
        let mut blobs = Vec::new();
        while !operator.snapshot_step(1_024, &mut blobs) {}
        let groups = blobs.iter().map(|blob| (blob.group, blob.bytes.as_slice()));
        self.bench.operator = Operator::restore(&header, groups).unwrap();
    }
}

/// Lets a device live, and returns how many of its readings could not be decided.
fn live(steps: &[SequenceStep], width: u64, bits: SequenceBits) -> Result<u64, TestCaseError> {
    let mut device = CountingDevice::new(width, bits);
    let mut undecided = 0;
    for step in steps {
        match *step {
            SequenceStep::Send { after_ms, lost } => {
                device.now_ms += after_ms;
                let number = device.next + if device.sent.is_empty() { 0 } else { lost };
                device.next = number + 1;
                let (counted, duplicates, repeated) = device.measure(number);
                prop_assert_eq!((counted + repeated, duplicates), (1, 0), "a reading was lost");
                undecided += repeated;
            }
            SequenceStep::Share if device.next > 0 => {
                let (counted, duplicates, repeated) = device.measure(device.next - 1);
                prop_assert_eq!((counted + repeated, duplicates), (1, 0), "a reading was lost");
                undecided += repeated;
            }
            SequenceStep::Again { back, dup, in_array } if back < device.sent.len() => {
                let object = device.sent[device.sent.len() - 1 - back].clone();
                let (counted, duplicates, repeated) = device.deliver(&object, dup, in_array);
                prop_assert_eq!(counted + duplicates + repeated, 1);
                if back < REMEMBERED {
                    prop_assert_eq!(duplicates, 1, "a reading that is remembered, {} back", back);
                }
            }
            SequenceStep::Restart { back_ms } => {
                device.behind_ms += back_ms;
                device.next = 0;
                device.restarts += 1;
            }
            SequenceStep::Restore => device.restore(),
            SequenceStep::Share | SequenceStep::Again { .. } => {}
        }
    }
    let shown = device.bench.operator.device("a").map(|device| device.summary);
    if let Some(shown) = shown.filter(|_| device.restarts == 0) {
        prop_assert_eq!(undecided, 0, "without a restart everything can be decided");
        if bits != SequenceBits::Bits64 {
            prop_assert_eq!(shown.sequence_wraps, (device.next - 1) / width);
            prop_assert_eq!(shown.sequence_restarts, 0);
        }
    }
    Ok(undecided)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn each_different_reading_counts_once(steps in steps()) {
        live(&steps, u64::MAX, SequenceBits::Auto)?;
    }

    #[test]
    fn each_different_reading_counts_once_across_wraps(steps in steps()) {
        live(&steps, 256, SequenceBits::Bits8)?;
    }

    #[test]
    fn each_different_reading_counts_once_across_wraps_that_are_recognised(steps in steps()) {
        live(&steps, 256, SequenceBits::Auto)?;
    }
}

/// A number is used twice that is below the first one since a restart. What came under that first number is still known.
#[test]
fn the_first_number_is_known_where_numbers_begin_anew_below_it() {
    let mut device = CountingDevice::new(u64::MAX, SequenceBits::Auto);
    for number in [0, 1, 2, 3, 4] {
        assert_eq!(device.measure(number), (1, 0, 0), "{number}");
    }
    device.now_ms += 1;
    for number in [1, 2, 3, 0, 0] {
        assert_eq!(device.measure(number), (1, 0, 0), "{number}");
    }
    let first = device.sent[5].clone();
    assert_eq!(device.deliver(&first, false, false), (0, 1, 0));
}

/// A device without a clock that sleeps between its runs, and measures the same each time.
#[test]
fn a_device_without_a_clock_that_restarts_after_a_sleep_is_counted() {
    let mut bench = OperatorHarness::new(Settings::default());
    let sample = |seq: u64| Input::telemetry("a", format!(r#"{{"metric":"m","value":7,"seq":{seq}}}"#));
    for run in 0..5 {
        for seq in 1..=3 {
            bench.apply(T0 + run * 14_400_000 + seq as i64 * 1_000, &[sample(seq)]);
        }
        // What MQTT sends again says nothing of what was sent hours before.
        bench.apply(T0 + run * 14_400_000 + 3_500, &[sample(3).again()]);
        assert_eq!(bench.operator.totals().in_windows, 3 * (run as u64 + 1), "run {run}");
    }
}

#[test]
fn numbers_that_begin_anew_prove_nothing_of_the_ones_before() {
    let mut device = CountingDevice::new(u64::MAX, SequenceBits::Auto);
    for number in [5, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16] {
        device.now_ms += 15_000;
        assert_eq!(device.measure(number), (1, 0, 0), "{number}");
    }
    let first = device.sent[1].clone();
    device.behind_ms = 600_000;
    for number in 12..=14 {
        device.now_ms += 15_000;
        assert_eq!(device.measure(number), (1, 0, 0), "{number}");
    }
    assert_ne!(device.deliver(&first, false, false).0, 1);
}

/// Two readings came under each number, and weir has forgotten those of the first numbers. Whatever is sent again, nothing
/// counts twice.
fn check_shared(again: &[usize], expected: &[(u64, u64, u64)]) {
    let mut device = CountingDevice::new(u64::MAX, SequenceBits::Auto);
    for number in 0..20 {
        device.now_ms += 15_000;
        assert_eq!((device.measure(number), device.measure(number)), ((1, 0, 0), (1, 0, 0)), "{number}");
    }
    let given: Vec<_> = again.iter().map(|&index| device.deliver(&device.sent[index].clone(), false, false)).collect();
    assert_eq!(given, expected, "{again:?}");
}

#[test]
fn another_reading_under_a_number_proves_nothing_where_some_are_forgotten() {
    // Of numbers 14 to 19 both readings are remembered, and of number 0, since it is the first.
    check_shared(&[39, 28, 0, 1], &[(0, 1, 0); 4]);
    check_shared(&[20, 21, 21, 20], &[(0, 0, 1), (0, 0, 1), (0, 1, 0), (0, 1, 0)]);
    check_shared(&[27, 26], &[(0, 0, 1), (0, 0, 1)]);
}

#[test]
fn of_a_number_twelve_back_one_reading_may_be_forgotten() {
    let mut device = CountingDevice::new(u64::MAX, SequenceBits::Auto);
    for number in [0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] {
        device.now_ms += 15_000;
        assert_eq!(device.measure(number), (1, 0, 0), "{number}");
    }
    let given = [1, 2].map(|index| device.deliver(&device.sent[index].clone(), false, false));
    assert_eq!(given, [(0, 0, 1), (0, 1, 0)], "the first one is forgotten, the second one is not");
}

#[test]
fn a_device_that_shares_numbers_restarts() {
    let mut device = CountingDevice::new(u64::MAX, SequenceBits::Auto);
    for number in (1..=100).chain(1..=3) {
        device.now_ms += 15_000;
        device.behind_ms = if device.sent.len() >= 200 { 1_600_000 } else { 0 };
        assert_eq!((device.measure(number), device.measure(number)), ((1, 0, 0), (1, 0, 0)), "{number}");
    }
    assert_eq!(device.bench.operator.device("a").map(|device| device.summary.sequence_restarts), Some(1));
}

/// The number says nothing then. Only what is remembered is a duplicate.
#[test]
fn a_number_that_all_readings_have_tells_what_is_remembered() {
    let mut device = CountingDevice::new(u64::MAX, SequenceBits::Auto);
    for _ in 0..40 {
        device.now_ms += 15_000;
        assert_eq!(device.measure(0), (1, 0, 0));
    }
    device.restore();
    let given = [20, 20, 39, 3].map(|index| device.deliver(&device.sent[index].clone(), false, false));
    assert_eq!(given, [(1, 0, 0), (0, 1, 0), (0, 1, 0), (0, 1, 0)]);
}

/// A device counts to `last`, restarts with a clock that goes back, and counts to 5 again.
fn check_restart(last: u64, every_ms: i64) {
    let mut device = CountingDevice::new(u64::MAX, SequenceBits::Auto);
    for number in 1..=last {
        device.now_ms += every_ms;
        assert_eq!(device.measure(number), (1, 0, 0), "{number} of {last}");
    }
    device.behind_ms = 30_000;
    for number in 1..=5 {
        assert_eq!(device.measure(number), (1, 0, 0), "{number} after {last}");
    }
    let (first, third) = (device.sent[0].clone(), device.sent[device.sent.len() - 3].clone());
    assert_eq!(device.deliver(&third, false, true), (0, 1, 0));
    let of_first_run = device.deliver(&first, false, false);
    let is_remembered = last + 5 <= 12 || every_ms == 7 && last <= 100;
    assert!(!is_remembered || of_first_run == (0, 1, 0), "{of_first_run:?} of {last}");
}

#[test]
fn a_restart_is_recognised_by_the_first_number() {
    for last in [1, 2, 5, 12, 13, 100, 10_000] {
        check_restart(last, 7);
        check_restart(last, 1_500);
    }
}

#[test]
fn ranges_that_merged_lose_nothing() {
    let mut device = CountingDevice::new(u64::MAX, SequenceBits::Auto);
    for number in 0..400 {
        device.now_ms += 1_000;
        assert_eq!(device.measure(number * 2), (1, 0, 0));
    }
    device.behind_ms = 400_000;
    assert_eq!(device.measure(101), (0, 0, 1), "between ranges that merged");
    let again = device.sent.last().unwrap().clone();
    assert_eq!(device.deliver(&again, false, false), (0, 1, 0));
    assert_eq!(device.measure(701), (1, 0, 0), "between ranges that did not");
    assert_eq!(device.bench.operator.totals().sequence_ranges_merged, 144);
}

#[test]
fn the_digests_of_all_devices_are_bounded() {
    let mut bench = OperatorHarness::new(Settings { max_readings_per_message: 100_000, ..Settings::default() });
    let objects = |from: u64, to: u64| {
        let objects: Vec<String> = (from..to).map(|seq| super::numbered(seq, 0, seq as f64)).collect();
        format!("[{}]", objects.join(","))
    };
    let names: Vec<String> = (0..17).map(|number| format!("d{number}")).collect();
    for name in &names {
        bench.apply(T0, &[Input::telemetry(name, objects(0, 66_000))]);
    }
    let bound = crate::core::recent_digests::MAX_EXTRA;
    assert!((bound - 12..=bound).contains(&bench.operator.sizes().extra_digests));
    // The last one in flight is known of the first device, and of the last one what was left.
    bench.apply(T0, &[Input::telemetry("d0", objects(1_000, 2_000)), Input::telemetry("d16", objects(65_000, 66_000))]);
    let totals = bench.operator.totals();
    let rejected = [Reason::Duplicate, Reason::SeqRepeated].map(|reason| totals.rejected[reason as usize]);
    assert_eq!(rejected, [1_000 + 220, 780]);
    let mut record = Vec::new();
    crate::core::record::encode_forget(names.iter().map(String::as_str), &mut record);
    bench.apply(T0, &[Input::Encoded(record)]);
    assert_eq!(bench.operator.sizes().extra_digests, 0);
}
