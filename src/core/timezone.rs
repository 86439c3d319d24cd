//! Local times of time zones, for devices that send times without a zone.
//!
//! The zone data is in the program: results do not depend on the files of the machine.

use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};

/// Whether `name` is an IANA time zone.
pub fn is_known(name: &str) -> bool {
    find(name).is_some()
}

/// The IANA time zone `name`.
pub(super) fn find(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}

/// The instant at which the clocks of `zone` show `local_ms`, milliseconds since 1970-01-01T00:00 on these clocks. Where
/// they show it twice, because they were set back, it is the instant that is nearer to `arrival_ms`, and the first one if both
/// are equally near. Where they never show it, because they were set forward, it is counted as if they had not been.
/// `None`: it is outside the years -9999 to 9999.
pub(super) fn instant_ms(local_ms: i64, zone: &TimeZone, arrival_ms: i64) -> Option<i64> {
    let local = Timestamp::from_millisecond(local_ms).ok()?.to_zoned(TimeZone::UTC).datetime();
    let at = |offset: Offset| local_ms - i64::from(offset.seconds()) * 1000;
    Some(match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => at(offset),
        AmbiguousOffset::Gap { before, .. } => at(before),
        AmbiguousOffset::Fold { before, after } => {
            let (first, second) = (at(before), at(after));
            if second.abs_diff(arrival_ms) < first.abs_diff(arrival_ms) { second } else { first }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    /// `local` is written as if it were UTC.
    fn check(zone: &str, local: &str, arrival: &str, expected: &str) {
        let found = instant_ms(ms(local), &find(zone).unwrap(), ms(arrival));
        assert_eq!(found, Some(ms(expected)), "{local} in {zone}");
    }

    #[test]
    fn names() {
        for name in ["Europe/Berlin", "America/New_York", "UTC", "Etc/GMT-1", "Asia/Kolkata", "europe/berlin"] {
            assert!(is_known(name), "{name}");
        }
        for name in ["", "Berlin", "CEST", "+01:00", "Europe/../Berlin", "/etc/localtime"] {
            assert!(!is_known(name), "{name}");
        }
    }

    #[test]
    fn local_times() {
        let berlin = "Europe/Berlin";
        check(berlin, "2026-11-30T08:00:00Z", "2026-11-30T07:00:01Z", "2026-11-30T07:00:00Z");
        check(berlin, "2026-07-01T08:00:00Z", "2026-11-30T07:00:01Z", "2026-07-01T06:00:00Z");
        check("Asia/Kolkata", "2026-11-30T12:30:00Z", "2026-11-30T07:00:00Z", "2026-11-30T07:00:00Z");
    }

    #[test]
    fn a_time_that_is_shown_twice_is_the_one_nearer_to_the_arrival() {
        let berlin = "Europe/Berlin";
        check(berlin, "2026-10-25T02:30:00Z", "2026-10-25T00:30:01Z", "2026-10-25T00:30:00Z");
        check(berlin, "2026-10-25T02:30:00Z", "2026-10-25T01:30:01Z", "2026-10-25T01:30:00Z");
        check(berlin, "2026-10-25T02:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T00:30:00Z");
    }

    #[test]
    fn a_time_that_is_never_shown_goes_on_from_before() {
        check("Europe/Berlin", "2026-03-29T02:30:00Z", "2026-03-29T01:30:01Z", "2026-03-29T01:30:00Z");
    }

    #[test]
    fn the_ends_of_time_are_handled() {
        let zone = find("Europe/Berlin").unwrap();
        for local_ms in [i64::MIN, -377_705_116_800_000, 253_402_300_799_999, i64::MAX] {
            instant_ms(local_ms, &zone, 0);
        }
    }
}
