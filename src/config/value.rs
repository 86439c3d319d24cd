//! Converts one value, from TOML or from the environment, to the type of its key.
//!
//! Each method of [`RawValue`] reads one type. A problem quotes the value and says what is expected.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use toml::de::DeValue;

use crate::config::duration::{DurationError, duration_text, parse_duration};
use crate::config::fault::ConfigProblem;
use crate::config::host_pattern::HostPattern;
use crate::config::maps::PresetChoice;
use crate::config::size::{SizeError, parse_size, size_text};
use crate::core::timezone;

/// A value before it is converted to the type of its key.
#[derive(Debug, Clone, Copy)]
pub(super) enum RawValue<'a> {
    /// From a TOML document.
    Toml(&'a DeValue<'a>),
    /// From an environment variable: text without quotes.
    Text(&'a str),
}

/// Largest duration: a century. Sums of a few such durations stay far from overflow.
const LONGEST_MS: i64 = 36_500 * 86_400_000;

/// Longest level of a topic that is configured.
const MAX_LEVEL_BYTES: usize = 256;

const DURATION_FORM: &str = "a duration such as \"250ms\", \"5s\", \"1m\", \"24h\" or \"7d\"";
const SIZE_FORM: &str = "a size such as \"512B\", \"64KiB\", \"16MiB\" or \"1GiB\"";
const HOST_FORM: &str = "host names such as \"box.local\", \"*.example.org\" for all names below example.org, IP addresses, \
                         or \"*\" for any; without scheme and port";
const PRESETS_FORM: &str = "\"auto\", \"off\", or a list of names such as [\"auto\", \"esphome\"]";
const LIST_FORM: &str = "a list of strings such as [\"a\", \"b\"]";

impl<'a> RawValue<'a> {
    /// The value as a problem quotes it.
    fn shown(self) -> String {
        match self {
            RawValue::Text(text) => format!("{text:?}"),
            RawValue::Toml(value) => match value {
                DeValue::String(text) => format!("{text:?}"),
                DeValue::Integer(number) => number.to_string(),
                DeValue::Float(number) => number.to_string(),
                DeValue::Boolean(truth) => truth.to_string(),
                DeValue::Datetime(time) => time.to_string(),
                DeValue::Array(_) => "a list".into(),
                DeValue::Table(_) => "a table".into(),
            },
        }
    }

    /// The problem that this value is not `what`.
    fn not(self, what: &str, expected: impl Into<String>) -> ConfigProblem {
        ConfigProblem::new(format!("{} is not {what}", self.shown()), expected)
    }

    fn as_text(self) -> Option<&'a str> {
        match self {
            RawValue::Text(text) => Some(text),
            RawValue::Toml(value) => value.as_str(),
        }
    }

    /// A string.
    pub fn text(self) -> Result<String, ConfigProblem> {
        self.as_text().map(str::to_owned).ok_or_else(|| self.not("a string", "text in quotes"))
    }

    /// `true` or `false`.
    pub fn switch(self) -> Result<bool, ConfigProblem> {
        let found = match self {
            RawValue::Text(text) => text.parse().ok(),
            RawValue::Toml(value) => value.as_bool(),
        };
        found.ok_or_else(|| self.not("a boolean", "true or false"))
    }

    /// `true` or `false`, or `None` for "auto".
    pub fn switch_or_auto(self) -> Result<Option<bool>, ConfigProblem> {
        if self.as_text() == Some("auto") {
            return Ok(None);
        }
        self.switch()
            .map(Some)
            .map_err(|problem| ConfigProblem { expected: "true, false or \"auto\"".into(), ..problem })
    }

    /// The path of a file, or `None` where it is empty.
    pub fn path_or_none(self) -> Result<Option<PathBuf>, ConfigProblem> {
        let text = self.text()?;
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    /// The name of a time zone, or an empty string.
    pub fn time_zone_or_none(self) -> Result<String, ConfigProblem> {
        let expected = "a name of the IANA database such as \"Europe/Berlin\", \"UTC\" or \"Etc/GMT-1\", or \"\"";
        let name = self.text()?;
        if name.is_empty() || timezone::is_known(&name) { Ok(name) } else { Err(self.not("a time zone", expected)) }
    }

    /// One level of a topic, or an empty string.
    pub fn topic_level_or_none(self) -> Result<String, ConfigProblem> {
        let level = self.text()?;
        let is_level =
            level.len() <= MAX_LEVEL_BYTES && !level.contains(['/', '+', '#']) && !level.contains(char::is_control);
        let expected = || format!("at most {MAX_LEVEL_BYTES} bytes without /, + and #, or \"\"");
        if is_level { Ok(level) } else { Err(self.not("a level of a topic", expected())) }
    }

    /// A whole number within `range`.
    pub fn whole<T: TryFrom<u64>>(self, range: RangeInclusive<u64>) -> Result<T, ConfigProblem> {
        let number = match self {
            RawValue::Text(text) => text.parse::<u64>().ok(),
            RawValue::Toml(DeValue::Integer(number)) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            RawValue::Toml(_) => None,
        };
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        let number = number.ok_or_else(|| self.not("such a number", expected()))?;
        let inside = range.contains(&number).then(|| T::try_from(number).ok()).flatten();
        inside.ok_or_else(|| ConfigProblem::new(format!("{number} is out of range"), expected()))
    }

    /// A whole number within `range`, or `None` for "off".
    pub fn whole_or_off<T: TryFrom<u64>>(self, range: RangeInclusive<u64>) -> Result<Option<T>, ConfigProblem> {
        if self.as_text() == Some("off") {
            return Ok(None);
        }
        self.whole(range).map(Some).map_err(or_off)
    }

    /// One of these numbers of bits, or "auto".
    pub fn width_or_auto<T: Copy>(self, widths: &[(u64, T)], auto: T) -> Result<T, ConfigProblem> {
        if self.as_text() == Some("auto") {
            return Ok(auto);
        }
        let number = self.whole::<u64>(0..=u64::from(u8::MAX)).ok();
        let found = widths.iter().find(|(bits, _)| Some(*bits) == number);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<_> = widths.iter().map(|(bits, _)| bits.to_string()).collect();
            self.not("one of the choices", format!("{} or \"auto\"", words.join(", ")))
        })
    }

    /// A finite number.
    pub fn number(self) -> Result<f64, ConfigProblem> {
        let number = match self {
            RawValue::Text(text) => text.parse::<f64>().ok(),
            RawValue::Toml(DeValue::Integer(number)) if number.radix() == 10 => number.as_str().parse().ok(),
            RawValue::Toml(DeValue::Float(number)) => number.as_str().parse().ok(),
            RawValue::Toml(_) => None,
        };
        number
            .filter(|number| number.is_finite())
            .ok_or_else(|| self.not("a number", "a finite number such as -40 or 12.5"))
    }

    /// A share, from 0 (none) to 1 (all).
    pub fn share(self) -> Result<f64, ConfigProblem> {
        let share = self.number()?;
        if (0.0..=1.0).contains(&share) {
            return Ok(share);
        }
        Err(ConfigProblem::new(
            format!("{share} is not a share"),
            "a number from 0 (none) to 1 (all), such as 0.01 for one in a hundred",
        ))
    }

    /// A duration within `range`, in milliseconds.
    pub fn duration_ms<T: TryFrom<i64>>(self, range: RangeInclusive<i64>) -> Result<T, ConfigProblem> {
        let ms = self.any_duration_ms(DURATION_FORM)?;
        self.within(ms, &range)
    }

    /// A duration within `range` in milliseconds, or `None` for "off".
    pub fn duration_or_off_ms<T: TryFrom<i64>>(self, range: RangeInclusive<i64>) -> Result<Option<T>, ConfigProblem> {
        if self.as_text() == Some("off") {
            return Ok(None);
        }
        let ms = self.any_duration_ms(&format!("{DURATION_FORM}, or \"off\""))?;
        self.within(ms, &range).map(Some)
    }

    fn any_duration_ms(self, expected: &str) -> Result<i64, ConfigProblem> {
        let Some(text) = self.as_text() else {
            return Err(self.unitless("a duration", expected));
        };
        let duration = parse_duration(text).map_err(|error| match error {
            DurationError::NoUnit => ConfigProblem::new(format!("{text:?} has no unit"), expected),
            DurationError::Form | DurationError::TooLong => self.not("a duration", expected),
        })?;
        i64::try_from(duration.as_millis()).map_err(|_| self.not("a duration", expected))
    }

    fn within<T: TryFrom<i64>>(self, ms: i64, range: &RangeInclusive<i64>) -> Result<T, ConfigProblem> {
        let inside = range.contains(&ms).then(|| T::try_from(ms).ok()).flatten();
        inside.ok_or_else(|| {
            let (least, most) = (duration_text(*range.start()), duration_text(*range.end()));
            ConfigProblem::new(
                format!("{} is out of range", self.shown()),
                format!("a duration from \"{least}\" to \"{most}\""),
            )
        })
    }

    /// A size within `range`, in bytes.
    pub fn size_bytes<T: TryFrom<u64>>(self, range: RangeInclusive<u64>) -> Result<T, ConfigProblem> {
        let Some(text) = self.as_text() else {
            return Err(self.unitless("a size", SIZE_FORM));
        };
        let bytes = parse_size(text).map_err(|error| match error {
            SizeError::NoUnit => ConfigProblem::new(format!("{text:?} has no unit"), SIZE_FORM),
            SizeError::Form | SizeError::TooLarge => self.not("a size", SIZE_FORM),
        })?;
        let inside = range.contains(&bytes).then(|| T::try_from(bytes).ok()).flatten();
        inside.ok_or_else(|| {
            let (least, most) = (size_text(*range.start()), size_text(*range.end()));
            ConfigProblem::new(
                format!("{} is out of range", self.shown()),
                format!("a size from \"{least}\" to \"{most}\""),
            )
        })
    }

    /// A size within `range` in bytes, or `None` for "off".
    pub fn size_or_off_bytes<T: TryFrom<u64>>(self, range: RangeInclusive<u64>) -> Result<Option<T>, ConfigProblem> {
        if self.as_text() == Some("off") {
            return Ok(None);
        }
        self.size_bytes(range).map(Some).map_err(or_off)
    }

    /// The problem of a value that is not text: a number without a unit, or another type.
    fn unitless(self, what: &str, expected: &str) -> ConfigProblem {
        match self {
            RawValue::Toml(DeValue::Integer(number)) => ConfigProblem::new(format!("{number} has no unit"), expected),
            _ => self.not(what, expected),
        }
    }

    /// An IP address and a port.
    pub fn address(self) -> Result<SocketAddr, ConfigProblem> {
        let expected = "an IP address and a port such as \"127.0.0.1:1883\", \"0.0.0.0:1883\" or \"[::1]:1883\"";
        self.as_text().and_then(|text| text.parse().ok()).ok_or_else(|| self.not("an address", expected))
    }

    /// An IP address and a port, or `None` for "off".
    pub fn address_or_off(self) -> Result<Option<SocketAddr>, ConfigProblem> {
        if self.as_text() == Some("off") {
            return Ok(None);
        }
        self.address().map(Some).map_err(or_off)
    }

    /// A list of strings. An environment variable holds a TOML list, or texts separated by commas.
    pub fn texts(self) -> Result<Vec<String>, ConfigProblem> {
        match self {
            RawValue::Text(text) if text.trim_start().starts_with('[') => match DeValue::parse(text.trim()) {
                Ok(value) => strings(value.get_ref()).ok_or_else(|| self.not("such a list", LIST_FORM)),
                Err(_) => Err(self.not("a list", LIST_FORM)),
            },
            RawValue::Text(text) => {
                Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
            }
            RawValue::Toml(value) => strings(value).ok_or_else(|| self.not("a list of strings", LIST_FORM)),
        }
    }

    /// Which presets are on.
    pub fn presets(self) -> Result<PresetChoice, ConfigProblem> {
        match (self, self.as_text()) {
            (_, Some("auto")) => Ok(PresetChoice::Auto),
            (_, Some("off")) => Ok(PresetChoice::Off),
            (RawValue::Toml(_), Some(_)) => Err(self.not("one of the choices", PRESETS_FORM)),
            _ => {
                let names = self.texts();
                names
                    .map(PresetChoice::Named)
                    .map_err(|problem| ConfigProblem { expected: PRESETS_FORM.into(), ..problem })
            }
        }
    }

    /// A list of patterns of hosts.
    pub fn hosts(self) -> Result<Vec<HostPattern>, ConfigProblem> {
        let texts = self.texts()?;
        let wrong: Vec<String> =
            texts.iter().filter(|text| HostPattern::parse(text).is_none()).map(|text| format!("{text:?}")).collect();
        match wrong[..] {
            [] => Ok(texts.iter().filter_map(|text| HostPattern::parse(text)).collect()),
            [ref one] => Err(ConfigProblem::new(format!("{one} is not a host"), HOST_FORM)),
            _ => Err(ConfigProblem::new(format!("{} are not hosts", wrong.join(", ")), HOST_FORM)),
        }
    }

    /// The meaning of one of these words.
    pub fn choice<T: Copy>(self, choices: &[(&str, T)]) -> Result<T, ConfigProblem> {
        let found = self.as_text().and_then(|text| choices.iter().find(|(word, _)| *word == text));
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<_> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            self.not("one of the choices", words.join(", "))
        })
    }
}

/// Adds "off" to what a problem expects.
fn or_off(problem: ConfigProblem) -> ConfigProblem {
    ConfigProblem { expected: format!("{}, or \"off\"", problem.expected), ..problem }
}

/// The range of durations from `least_ms` up.
pub(super) fn at_least_ms(least_ms: i64) -> RangeInclusive<i64> {
    least_ms..=LONGEST_MS
}

/// The strings of a TOML list; `None`: the value is not a list of strings.
fn strings(value: &DeValue<'_>) -> Option<Vec<String>> {
    let items = value.as_array()?;
    items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn duration(text: &str) -> Result<i64, String> {
        RawValue::Text(text).duration_ms(0..=LONGEST_MS).map_err(|problem| problem.wrong)
    }

    #[test]
    fn durations() {
        for (text, ms) in
            [("250ms", 250), ("5s", 5_000), ("1m", 60_000), ("24h", 86_400_000), ("7d", 604_800_000), ("0s", 0)]
        {
            assert_eq!(duration(text), Ok(ms), "{text}");
        }
        for text in
            ["", "s", "5", "5 s", "-5s", "1.5s", "5S", "5sec", "99999999999999999999s", "9223372036854775807d", "٣s"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("5"), Err("\"5\" has no unit".into()));
        assert_eq!(duration("36501d"), Err("\"36501d\" is out of range".into()));
    }

    #[test]
    fn off_is_a_duration_only_where_it_is_allowed() {
        assert_eq!(RawValue::Text("off").duration_or_off_ms::<i64>(at_least_ms(1)), Ok(None));
        assert_eq!(RawValue::Text("2s").duration_or_off_ms::<u64>(at_least_ms(1)), Ok(Some(2_000)));
        assert!(duration("off").is_err());
    }

    #[test]
    fn lists_in_the_environment() {
        let list = |text| RawValue::Text(text).texts().ok();
        let items = |items: &[&str]| Some(items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>());
        assert_eq!(list("a, b"), items(&["a", "b"]));
        assert_eq!(list(""), items(&[]));
        assert_eq!(list("[\"a,b\", 'c']"), items(&["a,b", "c"]));
        assert_eq!(list("[1]"), None);
        assert_eq!(list("[\"a\""), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,24}") {
            let raw = RawValue::Text(&text);
            let _ = (raw.duration_ms::<u64>(at_least_ms(0)), raw.size_bytes::<usize>(0..=u64::MAX), raw.texts());
            let _ = (raw.whole::<u16>(0..=9), raw.number(), raw.address(), raw.switch());
        }

        #[test]
        fn durations_read_back(ms in 0..=LONGEST_MS) {
            prop_assert_eq!(duration(&duration_text(ms)), Ok(ms));
        }
    }
}
