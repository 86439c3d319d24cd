//! Reads the values of the keys of a map.

use std::collections::BTreeMap;

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use crate::config::fault::ConfigProblem;
use crate::config::nearest::nearest;
use crate::config::value::RawValue;
use crate::core::formats::{Conversion, StatusSettings};

/// What is wrong with the value of one key. The value may be a table in which several values are wrong.
#[derive(Debug)]
pub(super) struct MapValueFaults(pub Vec<MapValueFault>);

/// What is wrong with one value.
#[derive(Debug)]
pub(super) struct MapValueFault {
    /// Keys below that of the map, joined with dots; empty: the whole value.
    pub key: String,
    /// Offset of the innermost key in the file; `None`: that of the whole value.
    pub offset: Option<usize>,
    /// What is wrong.
    pub problem: ConfigProblem,
}

impl From<ConfigProblem> for MapValueFaults {
    fn from(problem: ConfigProblem) -> Self {
        Self(vec![MapValueFault { key: String::new(), offset: None, problem }])
    }
}

pub(super) type ReadValue<T> = Result<T, MapValueFaults>;

const STATUS_KEYS: &[&str] = &["topics", "online", "offline", "pointer", "device"];
const STATUS_FORM: &str =
    "a table such as { topics = [\"tele/{device}/LWT\"], online = [\"Online\"], offline = [\"Offline\"] }";
const CONVERSION_KEYS: &[&str] = &["keys", "from", "unit_from", "to"];
const CONVERT_FORM: &str = "a list of tables such as [{ keys = [\"*temp\"], from = \"fahrenheit\", to = \"celsius\" }]";
const WHEN_FORM: &str = "a table of paths with the values that count, such as { \"/method\" = [\"NotifyStatus\"] }";
const NUMBERS_FORM: &str = "a table of numbers such as { \"voltage_*\" = 0.1 }";
const NUMBER_LISTS_FORM: &str = "a table of lists of numbers such as { \"*Temperature\" = [-127] }";
const TEXTS_FORM: &str = "a table of texts such as { \"tempc\" = \"temperature\" }";

/// The problem of a key that a table does not have.
pub(super) fn no_such_key(name: &str, keys: impl Iterator<Item = &'static str> + Clone) -> ConfigProblem {
    let near = nearest(name, keys.clone()).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    let all: Vec<&str> = keys.collect();
    ConfigProblem::new("there is no such key", format!("{}{near}", all.join(", ")))
}

fn table<'t>(value: &'t DeValue<'t>, expected: &str) -> ReadValue<&'t DeTable<'t>> {
    let table = value.as_table();
    table.ok_or_else(|| ConfigProblem::new("this is not a table", expected).into())
}

/// Reads each entry of a table, and collects what is wrong.
fn entries(table: &DeTable<'_>, mut read: impl FnMut(&str, &DeValue<'_>) -> ReadValue<()>) -> ReadValue<()> {
    let mut all = Vec::new();
    for (name, value) in table {
        if let Err(MapValueFaults(problems)) = read(name.get_ref(), value.get_ref()) {
            all.extend(problems.into_iter().map(|inner| MapValueFault {
                key: if inner.key.is_empty() {
                    name.get_ref().to_string()
                } else {
                    format!("{}.{}", name.get_ref(), inner.key)
                },
                offset: inner.offset.or(Some(name.span().start)),
                problem: inner.problem,
            }));
        }
    }
    if all.is_empty() { Ok(()) } else { Err(MapValueFaults(all)) }
}

fn entries_of<T>(
    value: &DeValue<'_>,
    expected: &str,
    read: impl Fn(&DeValue<'_>) -> ReadValue<T>,
) -> ReadValue<BTreeMap<String, T>> {
    let mut found = BTreeMap::new();
    entries(table(value, expected)?, |name, value| {
        found.insert(name.to_owned(), read(value)?);
        Ok(())
    })?;
    Ok(found)
}

pub(super) fn text(value: &DeValue<'_>) -> ReadValue<String> {
    Ok(RawValue::Toml(value).text()?)
}

pub(super) fn texts(value: &DeValue<'_>) -> ReadValue<Vec<String>> {
    Ok(RawValue::Toml(value).texts()?)
}

/// One text, or a list of texts.
pub(super) fn paths(value: &DeValue<'_>) -> ReadValue<Vec<String>> {
    match value.as_str() {
        Some(one) => Ok(vec![one.to_owned()]),
        None => texts(value),
    }
}

pub(super) fn switch(value: &DeValue<'_>) -> ReadValue<bool> {
    Ok(RawValue::Toml(value).switch()?)
}

pub(super) fn zone(value: &DeValue<'_>) -> ReadValue<String> {
    Ok(RawValue::Toml(value).time_zone_or_none()?)
}

/// A date, with or without quotes.
pub(super) fn date(value: &DeValue<'_>) -> ReadValue<String> {
    let text = match value {
        DeValue::Datetime(date) => date.to_string(),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    if text.parse::<jiff::civil::Date>().is_ok() {
        return Ok(text);
    }
    Err(ConfigProblem::new("this is not a date", "a date such as \"2015-01-01\"").into())
}

pub(super) fn choice<T: Copy>(value: &DeValue<'_>, choices: &[(&str, T)]) -> ReadValue<T> {
    Ok(RawValue::Toml(value).choice(choices)?)
}

/// The width of a counter; 64 bits are `None`.
pub(super) fn seq_bits(value: &DeValue<'_>) -> ReadValue<Option<u8>> {
    match RawValue::Toml(value).whole::<u8>(0..=255) {
        Ok(64) => Ok(None),
        Ok(bits @ (8 | 16 | 32)) => Ok(Some(bits)),
        _ => Err(ConfigProblem::new("this is not the width of a counter", "8, 16, 32 or 64").into()),
    }
}

pub(super) fn seq_default(value: &DeValue<'_>) -> ReadValue<Option<u64>> {
    Ok(Some(RawValue::Toml(value).whole(0..=i64::MAX as u64)?))
}

pub(super) fn numbers(value: &DeValue<'_>) -> ReadValue<BTreeMap<String, f64>> {
    entries_of(value, NUMBERS_FORM, |value| Ok(RawValue::Toml(value).number()?))
}

pub(super) fn text_entries(value: &DeValue<'_>) -> ReadValue<BTreeMap<String, String>> {
    entries_of(value, TEXTS_FORM, text)
}

pub(super) fn number_lists(value: &DeValue<'_>) -> ReadValue<BTreeMap<String, Vec<f64>>> {
    entries_of(value, NUMBER_LISTS_FORM, |value| {
        let Some(items) = value.as_array() else {
            return Err(ConfigProblem::new("this is not a list of numbers", NUMBER_LISTS_FORM).into());
        };
        let numbers: Result<Vec<f64>, ConfigProblem> =
            items.iter().map(|item| RawValue::Toml(item.get_ref()).number()).collect();
        Ok(numbers?)
    })
}

pub(super) fn when(value: &DeValue<'_>) -> ReadValue<BTreeMap<String, Vec<Value>>> {
    entries_of(value, WHEN_FORM, |value| {
        let values = value.as_array().map(|items| items.iter().map(|item| scalar(item.get_ref())).collect());
        values
            .flatten()
            .ok_or_else(|| ConfigProblem::new("this is not a list of texts, numbers, true and false", WHEN_FORM).into())
    })
}

fn scalar(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(Value::from(text.as_ref())),
        DeValue::Boolean(truth) => Some(Value::from(*truth)),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::from),
        DeValue::Float(_) => RawValue::Toml(value).number().ok().map(Value::from),
        _ => None,
    }
}

pub(super) fn status(value: &DeValue<'_>) -> ReadValue<Option<StatusSettings>> {
    let mut status = StatusSettings::default();
    entries(table(value, STATUS_FORM)?, |name, value| {
        match name {
            "topics" => status.topics = texts(value)?,
            "online" => status.online = texts(value)?,
            "offline" => status.offline = texts(value)?,
            "pointer" => status.pointer = text(value)?,
            "device" => status.device = text(value)?,
            _ => return Err(no_such_key(name, STATUS_KEYS.iter().copied()).into()),
        }
        Ok(())
    })?;
    Ok(Some(status))
}

pub(super) fn conversions(value: &DeValue<'_>) -> ReadValue<Vec<Conversion>> {
    let Some(items) = value.as_array() else {
        return Err(ConfigProblem::new("this is not a list of tables", CONVERT_FORM).into());
    };
    items.iter().map(|item| conversion(item.get_ref())).collect()
}

fn conversion(value: &DeValue<'_>) -> ReadValue<Conversion> {
    let mut conversion = Conversion::default();
    entries(table(value, CONVERT_FORM)?, |name, value| {
        match name {
            "keys" => conversion.keys = texts(value)?,
            "from" => conversion.from = text(value)?,
            "unit_from" => conversion.unit_from = text(value)?,
            "to" => conversion.to = text(value)?,
            _ => return Err(no_such_key(name, CONVERSION_KEYS.iter().copied()).into()),
        }
        Ok(())
    })?;
    Ok(conversion)
}
