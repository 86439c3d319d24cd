//! Dates with a time of day as devices print them: ISO 8601 and its relatives, dates of mail and HTTP, and `ctime`.
//!
//! ```text
//! 2026-11-30T08:00:00.123+01:00   2026-11-30 08:00:00,5 +0100   2026/11/30 07:00Z   20261130T070000Z
//! 2026-11-30T08:00:00+01:00[Europe/Berlin]                        2026-11-30 08:00:00 +0100 CET
//! Mon, 30 Nov 2026 07:00:00 GMT   30 Nov 2026 08:00 +0100 (CET)  Mon Nov 30 07:00:00 2026
//! ```

use super::calendar::{days_from_civil, days_in_month};
use super::{DAY_MS, StatedTime};

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Reads a date with a time of day.
pub(super) fn read(text: &str) -> StatedTime {
    let read = iso(text).or_else(|| words(text));
    read.map_or(StatedTime::Unreadable, |date_time| date_time.stated())
}

/// A date with a time of day, not checked.
#[derive(Debug, Default)]
struct DateTime {
    year: i64,
    month: i64,
    day: i64,
    time: TimeOfDay,
    /// Minutes ahead of UTC; `None`: the text names no zone.
    zone: Option<i64>,
}

#[derive(Debug, Default)]
struct TimeOfDay {
    hour: i64,
    minute: i64,
    second: i64,
    ms: i64,
}

impl DateTime {
    fn stated(&self) -> StatedTime {
        let Self { year, month, day, time: TimeOfDay { hour, minute, second, ms }, zone } = *self;
        let is_date = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
        // A leap second counts as the second after it, as in Unix time.
        if !is_date || hour > 23 || minute > 59 || second > 60 || zone.is_some_and(|zone| zone.abs() >= 24 * 60) {
            return StatedTime::NoSuchTime;
        }
        let local_ms = days_from_civil(year, month, day) * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1000 + ms;
        zone.map_or(StatedTime::Local(local_ms), |zone| StatedTime::At(local_ms - zone * 60_000))
    }
}

/// Reads text from front to back.
struct TextReader<'a>(&'a [u8]);

impl TextReader<'_> {
    fn eat(&mut self, any_of: &[u8]) -> bool {
        let found = self.0.first().is_some_and(|byte| any_of.contains(byte));
        self.0 = self.0.get(usize::from(found)..).unwrap_or_default();
        found
    }

    fn blanks(&mut self) -> bool {
        let any = self.eat(b" ");
        while self.eat(b" ") {}
        any
    }

    fn next_is_digit(&self) -> bool {
        self.0.first().is_some_and(u8::is_ascii_digit)
    }

    /// A number of exactly `count` digits.
    fn digits(&mut self, count: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        let number =
            digits.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')));
        self.0 = rest;
        number
    }

    /// `HH:MM[:SS[.fraction]]` or `HHMM[SS[.fraction]]`.
    fn time_of_day(&mut self) -> Option<TimeOfDay> {
        let mut time = TimeOfDay { hour: self.digits(2)?, ..TimeOfDay::default() };
        let colons = self.eat(b":");
        time.minute = self.digits(2)?;
        let has_seconds = if colons { self.eat(b":") } else { self.next_is_digit() };
        if has_seconds {
            time.second = self.digits(2)?;
            if self.eat(b".,") {
                time.ms = self.fraction_ms()?;
            }
        }
        Some(time)
    }

    /// Milliseconds of the digits of a fraction, rounded down.
    fn fraction_ms(&mut self) -> Option<i64> {
        let mut ms = self.digits(1)? * 100;
        for place in [10, 1] {
            if self.next_is_digit() {
                ms += self.digits(1)? * place;
            }
        }
        while self.next_is_digit() {
            self.digits(1)?;
        }
        Some(ms)
    }

    /// The rest of the text as a zone: nothing, `Z`, `UTC`, `GMT`, `+01`, `+0100` or `+01:00`, then perhaps `[Name/Of_Zone]`, or
    /// behind an offset the name of the zone.
    fn zone(mut self) -> Option<Option<i64>> {
        self.blanks();
        if self.0.is_empty() {
            return Some(None);
        }
        let text = std::str::from_utf8(self.0).ok()?;
        let (zone, name) = text.split_once('[').map_or((text, None), |(zone, name)| (zone, Some(name)));
        if name.is_some_and(|name| !name.ends_with(']')) {
            return None;
        }
        let unnamed = zone.split_once(' ').filter(|(offset, name)| is_name_behind(offset, name));
        offset_minutes(unnamed.map_or(zone, |(offset, _)| offset)).map(Some)
    }
}

/// Whether `name` is the name of a zone behind its offset, which says all: `+0100 CET`, `+0100 (CET)`.
fn is_name_behind(offset: &str, name: &str) -> bool {
    let bare = name.strip_prefix('(').and_then(|name| name.strip_suffix(')')).unwrap_or(name);
    offset.starts_with(['+', '-']) && !bare.is_empty() && bare.chars().all(|c| c.is_ascii_alphabetic())
}

fn offset_minutes(zone: &str) -> Option<i64> {
    if ["z", "utc", "gmt", "ut"].iter().any(|utc| utc.eq_ignore_ascii_case(zone)) {
        return Some(0);
    }
    let mut reader = TextReader(zone.as_bytes());
    let negative = zone.starts_with('-');
    if !reader.eat(b"+-") {
        return None;
    }
    let hours = reader.digits(2)?;
    reader.eat(b":");
    let minutes = if reader.0.is_empty() { 0 } else { reader.digits(2)? };
    if !reader.0.is_empty() || zone.ends_with(':') || minutes > 59 {
        return None;
    }
    let offset = hours * 60 + minutes;
    Some(if negative { -offset } else { offset })
}

/// Reads a date that begins with its year.
fn iso(text: &str) -> Option<DateTime> {
    let mut reader = TextReader(text.as_bytes());
    let year = reader.digits(4)?;
    let separator = reader.0.first().copied().filter(|byte| matches!(byte, b'-' | b'/'));
    let separated = |reader: &mut TextReader<'_>| separator.is_none_or(|byte| reader.eat(&[byte]));
    if !separated(&mut reader) {
        return None;
    }
    let month = reader.digits(2)?;
    if !separated(&mut reader) {
        return None;
    }
    let day = reader.digits(2)?;
    if !reader.eat(b"Tt") && !reader.blanks() {
        return None;
    }
    let time = reader.time_of_day()?;
    Some(DateTime { year, month, day, time, zone: reader.zone()? })
}

/// Reads a date with the English name of its month: `[Mon,] 30 Nov 2026 07:00:00 [GMT]` or
/// `[Mon] Nov 30 07:00:00 [UTC] 2026`.
fn words(text: &str) -> Option<DateTime> {
    let mut words = text.split([' ', ',']).filter(|word| !word.is_empty()).peekable();
    words.next_if(|word| word.chars().all(|c| c.is_ascii_alphabetic()) && month(word).is_none());
    let first = words.next()?;
    let mut date_time = DateTime::default();
    let time = |word: &str| {
        let mut reader = TextReader(word.as_bytes());
        reader.time_of_day().filter(|_| reader.0.is_empty())
    };
    if let Some(month) = month(first) {
        date_time.month = month;
        date_time.day = day(words.next()?)?;
        date_time.time = time(words.next()?)?;
        date_time.zone = words.next_if(|word| offset_minutes(word).is_some()).and_then(offset_minutes);
        date_time.year = year(words.next()?)?;
    } else {
        date_time.day = day(first)?;
        date_time.month = month(words.next()?)?;
        date_time.year = year(words.next()?)?;
        date_time.time = time(words.next()?)?;
        if let Some(zone) = words.next_if(|word| offset_minutes(word).is_some()) {
            date_time.zone = offset_minutes(zone);
            words.next_if(|name| is_name_behind(zone, name));
        }
    }
    words.next().is_none().then_some(date_time)
}

fn month(word: &str) -> Option<i64> {
    let index = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(word))?;
    Some(index as i64 + 1)
}

fn day(word: &str) -> Option<i64> {
    TextReader(word.as_bytes()).digits(word.len()).filter(|_| matches!(word.len(), 1 | 2))
}

fn year(word: &str) -> Option<i64> {
    TextReader(word.as_bytes()).digits(4).filter(|_| word.len() == 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-30T07:00:00Z.
    const SEVEN_MS: i64 = 1_796_022_000_000;

    fn check(text: &str, expected: StatedTime) {
        assert_eq!(read(text), expected, "{text:?}");
    }

    #[test]
    fn texts_with_a_zone() {
        for text in [
            "2026-11-30T08:00:00+0100",
            "2026-11-30T08:00:00+01",
            "2026-11-30T08:00:00+01:00",
            "2026-11-30 07:00:00+00:00",
            "2026-11-30  07:00:00 UTC",
            "2026-11-30 07:00:00 GMT",
            "2026-11-30T07:00Z",
            "2026-11-30t07:00:00z",
            "2026-11-30T02:30-04:30",
            "20261130T070000Z",
            "20261130T0700Z",
            "20261130 080000+0100",
            "2026/11/30 07:00:00Z",
            "2026-11-30T08:00:00+01:00[Europe/Berlin]",
            "Mon, 30 Nov 2026 07:00:00 GMT",
            "Mon, 30 Nov 2026 08:00:00 +0100",
            "30 Nov 2026 07:00 UT",
            "30 nov 2026 07:00:00 Z",
            "Mon Nov 30 07:00:00 UTC 2026",
            "Monday, 30 Nov 2026 07:00:00 GMT",
            "Mon, 30 Nov 2026 08:00:00 +0100 (CET)",
            "30 Nov 2026 08:00:00 +0100 CET",
            "2026-11-30 07:00:00.000001 +0000 UTC",
            "2026-11-30T02:00:00-0500 EST",
            "2026-11-30 08:00:00 +0100 (CET)",
        ] {
            check(text, StatedTime::At(SEVEN_MS));
        }
        check("2026-11-30T07:00:00,123456Z", StatedTime::At(SEVEN_MS + 123));
        check("2026-11-30T07:00:00.5Z", StatedTime::At(SEVEN_MS + 500));
        check("1969-12-31T23:59:59.9999Z", StatedTime::At(-1));
    }

    #[test]
    fn texts_without_a_zone() {
        for text in [
            "2026-11-30T07:00:00",
            "2026-11-30 07:00:00",
            "2026-11-30 07:00",
            "20261130T070000",
            "2026/11/30 07:00:00",
            "Mon Nov 30 07:00:00 2026",
            "30 Nov 2026 07:00:00",
        ] {
            check(text, StatedTime::Local(SEVEN_MS));
        }
        check("Wed Jan  7 07:00:00 2026", StatedTime::Local(1_767_769_200_000));
    }

    #[test]
    fn dates_and_times_that_do_not_exist() {
        for text in [
            "2026-02-29T07:00:00Z",
            "2026-13-01T07:00:00Z",
            "2026-11-30T24:00:00Z",
            "2026-11-30 07:60",
            "2026-11-30T07:00:00+24:00",
            "31 Nov 2026 07:00:00 GMT",
        ] {
            check(text, StatedTime::NoSuchTime);
        }
    }

    #[test]
    fn other_texts() {
        for text in [
            "",
            "now",
            "2026-11-30",
            "2026-11-30T",
            "2026-11-30T07",
            "2026-11-30T07:00:00.Z",
            "2026-11-30T07:00:00+1",
            "2026-11-30T07:00:00+01:",
            "2026-11-30T07:00:00+01:0",
            "2026-11-30T07:00:00 CET",
            "2026-11-30T07:00:00 Z CET",
            "2026-11-30T07:00:00 +0100 ",
            "2026-11-30T07:00:00 +0100 +0100",
            "2026-11-30T07:00:00 +0100 ()",
            "30 Nov 2026 08:00:00 GMT CET",
            "30 Nov 2026 08:00:00 +0100 (CET",
            "2026-11-30T07:00:00Z[Europe",
            "2026-11/30T07:00:00Z",
            "30.11.2026 07:00:00",
            "11/30/2026 07:00:00",
            "30 Nov 26 07:00:00 GMT",
            "30 Nov 2026",
            "Nov 30 2026 07:00",
            "08:15:00",
            "20é6-11-30T07:00:00Z",
        ] {
            check(text, StatedTime::Unreadable);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_jiff(seconds in -62_000_000_000i64..253_000_000_000) {
            let zoned = jiff::Timestamp::from_second(seconds).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
            for form in ["%Y-%m-%dT%H:%M:%S%z", "%a, %d %b %Y %H:%M:%S GMT", "%Y%m%dT%H%M%SZ", "%a %b %e %H:%M:%S UTC %Y"] {
                prop_assert_eq!(read(&zoned.strftime(form).to_string()), StatedTime::At(seconds * 1000), "{}", form);
            }
        }

        #[test]
        fn any_text_is_handled(text in "\\PC{0,40}") {
            read(&text);
        }
    }
}
