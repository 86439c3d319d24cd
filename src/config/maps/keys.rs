//! The keys of a map: for each its name, how its value is read, and its place in [`MapSettings`].

use toml::de::DeValue;

use super::values::{self, ReadValue};
use crate::core::formats::{EmptyPayload, MapSettings, OtherText, PayloadFormat, RetainedRepeats, TimeUnit};

/// One key of a map.
#[derive(Debug, Clone, Copy)]
pub(super) struct MapKey {
    /// Name of the key.
    pub name: &'static str,
    /// Reads a value into a map.
    pub read: fn(&mut MapSettings, &DeValue<'_>) -> ReadValue<()>,
    /// Copies the value from the second map to the first.
    pub copy: fn(&mut MapSettings, &MapSettings),
}

/// Makes a [`MapKey`] of a field of [`MapSettings`] with the same name, and a function that reads the value.
macro_rules! key {
    ($field:ident, $read:expr) => {
        MapKey {
            name: stringify!($field),
            read: |map, value| {
                map.$field = $read(value)?;
                Ok(())
            },
            copy: |to, from| to.$field.clone_from(&from.$field),
        }
    };
}

const PAYLOADS: &[(&str, PayloadFormat)] = &[
    ("json", PayloadFormat::Json),
    ("scalar", PayloadFormat::Scalar),
    ("line", PayloadFormat::Line),
    ("senml", PayloadFormat::Senml),
    ("senml_cbor", PayloadFormat::SenmlCbor),
    ("sparkplug_b", PayloadFormat::SparkplugB),
    ("ruuvi", PayloadFormat::Ruuvi),
    ("homeassistant_discovery", PayloadFormat::HomeassistantDiscovery),
];
const TIME_UNITS: &[(&str, TimeUnit)] =
    &[("auto", TimeUnit::Auto), ("s", TimeUnit::S), ("ms", TimeUnit::Ms), ("us", TimeUnit::Us), ("ns", TimeUnit::Ns)];
const TEXTS: &[(&str, OtherText)] = &[("ignore", OtherText::Ignore), ("error", OtherText::Error)];
const EMPTY: &[(&str, EmptyPayload)] =
    &[("ignore", EmptyPayload::Ignore), ("status_offline", EmptyPayload::StatusOffline)];
const RETAINED: &[(&str, RetainedRepeats)] = &[("once", RetainedRepeats::Once), ("count", RetainedRepeats::Count)];

/// Every key of [`MapSettings`], in the order of docs/devices.md.
pub(super) const MAP_KEYS: &[MapKey] = &[
    key!(name, values::text),
    key!(topics, values::texts),
    key!(ignore, values::texts),
    key!(status, values::status),
    key!(payload, |value| values::choice(value, PAYLOADS)),
    key!(each, values::paths),
    key!(when, values::when),
    key!(device, values::text),
    key!(device_name, values::text),
    key!(device_model, values::text),
    key!(metric, values::text),
    key!(value, values::text),
    key!(separator, values::text),
    key!(names, values::texts),
    key!(include, values::texts),
    key!(exclude, values::texts),
    key!(rename, values::text_entries),
    key!(time, values::paths),
    key!(time_unit, |value| values::choice(value, TIME_UNITS)),
    key!(timezone, values::zone),
    key!(no_clock_before, values::date),
    key!(seq, values::text),
    key!(seq_bits, values::seq_bits),
    key!(seq_default, values::seq_default),
    key!(boot, values::text),
    key!(scale, values::numbers),
    key!(convert, values::conversions),
    key!(units, values::text_entries),
    key!(words, values::numbers),
    key!(no_value, values::number_lists),
    key!(text, |value| values::choice(value, TEXTS)),
    key!(empty, |value| values::choice(value, EMPTY)),
    key!(retained, |value| values::choice(value, RETAINED)),
    key!(rebirth, values::switch),
];

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static MapKey> {
    MAP_KEYS.iter().find(|key| key.name == name)
}
