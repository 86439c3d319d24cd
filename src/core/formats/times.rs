//! Event times of elements.

use jiff::tz::TimeZone;

use super::document::MapDocument;
use super::mapped::MappedTime;
use super::path::Path;
use super::settings::{MapSettings, TimeUnit};
use super::template::text_of;
use crate::core::json::JsonToken;
use crate::core::settings::TimestampUnit;
use crate::core::timestamp::{self, StatedTime};
use crate::core::timezone;

/// How a map reads event times.
#[derive(Debug)]
pub(super) struct TimeRules {
    paths: Vec<Path>,
    unit: TimestampUnit,
    /// Zone of times that name none; `None`: UTC.
    zone: Option<TimeZone>,
    /// An earlier time is that of a device without a clock.
    first_ms: i64,
}

impl TimeRules {
    /// The rules of a map. `fault` is told what is wrong: the key and a sentence.
    pub fn new(settings: &MapSettings, fault: &mut dyn FnMut(&str, String)) -> Self {
        let mut paths = Vec::new();
        for path in &settings.time {
            match Path::parse(path) {
                Ok(path) => paths.push(path),
                Err(sentence) => fault("time", sentence),
            }
        }
        let zone = timezone::find(&settings.timezone);
        if zone.is_none() && !settings.timezone.is_empty() {
            fault(
                "timezone",
                format!("{:?} is no time zone; expected a name such as Europe/Berlin", settings.timezone),
            );
        }
        let first = &settings.no_clock_before;
        let date = |text: &str| timestamp::from_text(text, TimestampUnit::S);
        let first_ms = date(&format!("{first}T00:00:00Z")).or_else(|| date(first));
        if first_ms.is_none() && !first.is_empty() {
            fault("no_clock_before", format!("{first:?} is no date; expected one such as 2015-01-01"));
        }
        Self { paths, unit: unit_of(settings.time_unit), zone, first_ms: first_ms.unwrap_or(i64::MIN) }
    }

    /// The time of an element: at the first path where there is something.
    pub fn read<'a>(&self, document: &MapDocument<'a>, element: u32) -> MappedTime<'a> {
        let tokens = self.paths.iter().map(|path| path.token(document, element));
        match tokens.into_iter().find(|token| !token.is_none()) {
            Some(token) => self.of_token(token),
            None => MappedTime::Arrival,
        }
    }

    fn of_token<'a>(&self, token: &JsonToken<'a>) -> MappedTime<'a> {
        let time_ms = match timestamp::stated(token, self.unit) {
            StatedTime::Unknown => return MappedTime::NoClock,
            StatedTime::At(time_ms) => Some(time_ms),
            StatedTime::Local(local_ms) => match &self.zone {
                // Of an hour that a clock shows twice it is the first: no arrival is nearer to the second.
                Some(zone) => timezone::instant_ms(local_ms, zone, i64::MIN),
                None => Some(local_ms),
            },
            StatedTime::OutOfRange | StatedTime::NoSuchTime | StatedTime::Unreadable => None,
        };
        match time_ms {
            Some(time_ms) => self.of_ms(time_ms),
            None => MappedTime::Invalid(text_of(token).unwrap_or_else(|| token.kind().into())),
        }
    }

    /// The time of an element that states it in Unix milliseconds.
    pub fn of_ms<'a>(&self, time_ms: i64) -> MappedTime<'a> {
        if time_ms < self.first_ms { MappedTime::NoClock } else { MappedTime::At(time_ms) }
    }
}

fn unit_of(unit: TimeUnit) -> TimestampUnit {
    match unit {
        TimeUnit::Auto => TimestampUnit::Auto,
        TimeUnit::S => TimestampUnit::S,
        TimeUnit::Ms => TimestampUnit::Ms,
        TimeUnit::Us => TimestampUnit::Us,
        TimeUnit::Ns => TimestampUnit::Ns,
    }
}
