//! One metric of a payload of Sparkplug B.

use crate::core::formats::SampleValue;
use crate::core::formats::edge_node::MetricForm;
use crate::core::formats::protobuf::{FieldsReader, WireValue};

/// Quality of a value that is good.
const GOOD: u64 = 192;
/// Properties that hold the unit, without regard to case.
const NAMES_OF_UNITS: [&str; 4] = ["engUnit", "engUnits", "unit", "units"];

/// Numbers of types.
mod datatype {
    pub const INT8: u32 = 1;
    pub const INT16: u32 = 2;
    pub const INT32: u32 = 3;
    pub const INT64: u32 = 4;
    pub const UINT8: u32 = 5;
    pub const UINT16: u32 = 6;
    pub const UINT32: u32 = 7;
    pub const BOOLEAN: u32 = 11;
    pub const DATE_TIME: u32 = 13;
    pub const DATA_SET: u32 = 16;
}

/// One metric, as it is written.
#[derive(Debug, Default)]
pub(super) struct SparkplugMetric<'a> {
    pub name: Option<&'a str>,
    pub alias: Option<u64>,
    /// Unix milliseconds.
    pub timestamp: Option<u64>,
    datatype: u32,
    pub is_historical: bool,
    is_null: bool,
    /// Whether the quality is good, or none is stated.
    pub is_good: bool,
    pub unit: Option<&'a str>,
    /// Number of the field with the value, and the value.
    value: Option<(u64, WireValue<'a>)>,
}

impl<'a> SparkplugMetric<'a> {
    /// Reads a metric.
    pub fn read(mut reader: FieldsReader<'a>) -> Result<Self, String> {
        let mut metric = Self { is_good: true, ..Self::default() };
        while let Some((number, value)) = reader.next_field()? {
            match (number, value) {
                (1, WireValue::Bytes(name)) => {
                    let name = std::str::from_utf8(name).map_err(|_| {
                        format!("the name of a metric is not UTF-8 (before byte {})", reader.position())
                    })?;
                    metric.name = Some(name).filter(|name| !name.is_empty());
                }
                (2, value) => metric.alias = Some(value.integer()),
                (3, value) => metric.timestamp = Some(value.integer()),
                (4, value) => metric.datatype = value.integer() as u32,
                (5, value) => metric.is_historical = value.integer() != 0,
                (7, value) => metric.is_null = value.integer() != 0,
                (9, WireValue::Bytes(properties)) => metric.properties(reader.of_message(properties))?,
                (10..=19, value) => metric.value = Some((number, value)),
                _ => {}
            }
        }
        Ok(metric)
    }

    /// Reads the properties: keys, and values in the same order.
    fn properties(&mut self, mut reader: FieldsReader<'a>) -> Result<(), String> {
        let (mut quality_at, mut unit_at) = (None, None);
        let (mut keys, mut values) = (0_usize, 0_usize);
        let mut pending = reader.clone();
        while let Some((number, value)) = pending.next_field()? {
            if let (1, WireValue::Bytes(key)) = (number, value) {
                if key.eq_ignore_ascii_case(b"quality") {
                    quality_at = Some(keys);
                }
                if NAMES_OF_UNITS.iter().any(|name| key.eq_ignore_ascii_case(name.as_bytes())) {
                    unit_at = unit_at.or(Some(keys));
                }
                keys += 1;
            }
        }
        while let Some((number, value)) = reader.next_field()? {
            if let (2, WireValue::Bytes(value)) = (number, value) {
                if quality_at == Some(values) {
                    self.is_good = property(reader.of_message(value))?.0.is_none_or(|quality| quality == GOOD);
                }
                if unit_at == Some(values) {
                    self.unit = property(reader.of_message(value))?.1;
                }
                values += 1;
            }
        }
        Ok(())
    }

    /// Type and unit, as a birth defines them.
    pub fn form(&self) -> MetricForm {
        MetricForm { datatype: self.datatype, unit: self.unit.map(Box::from) }
    }

    /// The value by its type. `defined` is the type that the birth defines, which counts where the metric has none.
    pub fn value(&self, defined: u32) -> SampleValue<'a> {
        let datatype = if self.datatype == 0 { defined } else { self.datatype };
        match self.value {
            _ if self.is_null => SampleValue::Absent,
            None => SampleValue::Absent,
            Some(_) if datatype == datatype::DATE_TIME || datatype >= datatype::DATA_SET => SampleValue::Other,
            Some((10 | 11, value)) => integer(value.integer(), datatype),
            Some((12, WireValue::Fixed32(bits))) => number(f32::from_bits(bits).into()),
            Some((13, WireValue::Fixed64(bits))) => number(f64::from_bits(bits)),
            Some((14, value)) => SampleValue::Bool(value.integer() != 0),
            Some((15, WireValue::Bytes(text))) => SampleValue::Text(String::from_utf8_lossy(text)),
            Some(_) => SampleValue::Other,
        }
    }
}

/// An integer, which comes unsigned whatever its type.
fn integer<'a>(value: u64, datatype: u32) -> SampleValue<'a> {
    SampleValue::Number(match datatype {
        datatype::INT8 => f64::from(value as i8),
        datatype::INT16 => f64::from(value as i16),
        datatype::INT32 => f64::from(value as i32),
        datatype::INT64 => value as i64 as f64,
        datatype::UINT8 => f64::from(value as u8),
        datatype::UINT16 => f64::from(value as u16),
        datatype::UINT32 => f64::from(value as u32),
        datatype::BOOLEAN => return SampleValue::Bool(value != 0),
        _ => value as f64,
    })
}

/// NaN and infinity say that there is no value.
fn number<'a>(value: f64) -> SampleValue<'a> {
    if value.is_finite() { SampleValue::Number(value) } else { SampleValue::Absent }
}

/// The integer and the text of a property, of which it has one.
fn property<'a>(mut reader: FieldsReader<'a>) -> Result<(Option<u64>, Option<&'a str>), String> {
    let (mut integer, mut text) = (None, None);
    while let Some((number, value)) = reader.next_field()? {
        match (number, value) {
            (3 | 4, value) => integer = Some(value.integer()),
            (8, WireValue::Bytes(bytes)) => text = std::str::from_utf8(bytes).ok(),
            _ => {}
        }
    }
    Ok((integer, text.filter(|text| !text.is_empty())))
}
