//! SenML (RFC 8428) in JSON and in CBOR: records whose base values carry over to those after them.

use std::borrow::Cow;
use std::rc::Rc;

use crate::core::formats::cbor::{CborItem, CborReader};
use crate::core::formats::{MAX_SAMPLES, Sample, SampleNames, SampleTime, SampleValue};
use crate::core::json::{JsonScanner, JsonSyntaxError, JsonToken};

/// Seconds below which a time is relative to the arrival.
const RELATIVE_BELOW_S: f64 = 268_435_456.0;
/// The version of RFC 8428, and with secondary units (RFC 9100) besides.
const VERSIONS: [f64; 2] = [10.0, 26.0];
/// What stands between a base name and the name of a value.
const SEPARATORS: [char; 6] = [':', '/', '.', '_', '-', ';'];
/// The labels that CBOR writes as integers, from -6 on.
const LABELS: [&str; 15] = ["bs", "bv", "bu", "bt", "bn", "bver", "n", "u", "v", "vs", "vb", "s", "t", "ut", "vd"];

/// The samples of SenML in JSON: an array of records, or one record.
///
/// # Errors
/// Text that is no JSON of this form, a base value of a wrong type, a label that must be understood and is not, and a later
/// version. A record that has a wrong value of its own is [`SampleValue::Malformed`].
pub(in crate::core) fn decode(text: &str) -> Result<Vec<Sample<'_>>, String> {
    let mut scanner = JsonScanner::with_leniency(text, true);
    let mut pack = Pack::default();
    let mut fault = None;
    let read = match scanner.peek() {
        Some(b'{') => pack.json_record(&mut scanner, 0, &mut fault),
        Some(b'[') => scanner.array(|scanner| pack.json_record(scanner, 1, &mut fault)),
        _ => return Err("expected an array of SenML records".into()),
    };
    let read = read.and_then(|()| scanner.end());
    match (fault, read) {
        (Some(fault), _) => Err(fault),
        (None, Err(error)) => Err(format!("{} (at byte {})", error.what, error.at)),
        (None, Ok(())) => Ok(pack.samples),
    }
}

/// The samples of SenML in CBOR.
///
/// # Errors
/// As for [`decode`].
pub(in crate::core) fn decode_cbor(payload: &[u8]) -> Result<Vec<Sample<'_>>, String> {
    let mut reader = CborReader::new(payload);
    let mut pack = Pack::default();
    match reader.item()? {
        CborItem::Array(mut left) => {
            while !reader.ends(&mut left) {
                let at = reader.position();
                let CborItem::Map(pairs) = reader.item()? else {
                    return Err(format!("expected a SenML record, which is a map (at byte {at})"));
                };
                pack.cbor_record(&mut reader, pairs)?;
            }
        }
        CborItem::Map(pairs) => pack.cbor_record(&mut reader, pairs)?,
        _ => return Err("expected an array of SenML records".into()),
    }
    if reader.is_at_end() {
        Ok(pack.samples)
    } else {
        Err(format!("something follows the array of SenML records (at byte {})", reader.position()))
    }
}

/// A value of a record in either form.
#[derive(Debug, Clone, PartialEq)]
enum Field<'a> {
    Null,
    Number(f64),
    Bool(bool),
    Text(Cow<'a, str>),
    Other,
}

impl Field<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Number(_) => "a number",
            Self::Bool(_) => "a boolean",
            Self::Text(_) => "text",
            Self::Other => "an array, an object or bytes",
        }
    }
}

impl<'a> From<JsonToken<'a>> for Field<'a> {
    fn from(token: JsonToken<'a>) -> Self {
        match token {
            JsonToken::Null => Self::Null,
            none if none.is_none() => Self::Null,
            JsonToken::Bool(value) => Self::Bool(value),
            JsonToken::Number(number) => Self::Number(number.to_f64()),
            JsonToken::Text(text) => Self::Text(text),
            _ => Self::Other,
        }
    }
}

/// What carries over from record to record.
#[derive(Debug, Default)]
struct Base<'a> {
    name: Cow<'a, str>,
    time: Option<f64>,
    unit: Option<Cow<'a, str>>,
    value: f64,
    sum: f64,
}

/// One record without its base values.
#[derive(Debug, Default)]
struct SenmlRecord<'a> {
    name: Cow<'a, str>,
    unit: Option<Cow<'a, str>>,
    time: Option<f64>,
    value: Option<SampleValue<'a>>,
    sum: Option<f64>,
}

/// Makes samples of records.
#[derive(Debug, Default)]
struct Pack<'a> {
    base: Base<'a>,
    samples: Vec<Sample<'a>>,
    records: usize,
    /// Labels and values of the record that is read.
    fields: Vec<(Cow<'a, str>, Field<'a>)>,
}

impl<'a> Pack<'a> {
    /// Reads one record. What is wrong with its content goes to `fault`, and ends the reading.
    fn json_record(
        &mut self,
        scanner: &mut JsonScanner<'a>,
        depth: u32,
        fault: &mut Option<String>,
    ) -> Result<(), JsonSyntaxError> {
        if scanner.peek() != Some(b'{') {
            return Err(scanner.error("expected a SenML record, which is an object"));
        }
        self.fields.clear();
        scanner.object(|scanner| {
            let label = scanner.key()?;
            let value = scanner.value(depth + 1)?;
            self.fields.push((label, value.into()));
            Ok(())
        })?;
        self.finish().map_err(|what| {
            *fault = Some(what);
            scanner.error("a wrong record")
        })
    }

    fn cbor_record(&mut self, reader: &mut CborReader<'a>, mut pairs: Option<u64>) -> Result<(), String> {
        self.fields.clear();
        while !reader.ends(&mut pairs) {
            let at = reader.position();
            let label = match reader.item()? {
                CborItem::Text(label) => label,
                CborItem::Integer(number) => {
                    let index = usize::try_from(number + 6).ok();
                    index.and_then(|index| LABELS.get(index)).copied().unwrap_or_default().into()
                }
                _ => return Err(format!("expected a label, which is an integer or text (at byte {at})")),
            };
            let value = cbor_field(reader)?;
            self.fields.push((label, value));
        }
        self.finish()
    }

    /// Makes samples of the record whose fields were read.
    fn finish(&mut self) -> Result<(), String> {
        self.records += 1;
        let number = self.records;
        let mut record = SenmlRecord::default();
        let mut wrong = None;
        for (label, value) in std::mem::take(&mut self.fields) {
            if label.starts_with('b')
                && self.base.take(&label, &value).map_err(|what| format!("record {number}: {what}"))?
            {
                continue;
            }
            if let Err(what) = record.take(&label, value) {
                wrong = Some(what);
            } else if label.ends_with('_') {
                let label: String = label.chars().take(40).collect();
                return Err(format!("record {number}: the label `{label}` must be understood, and is not known"));
            }
        }
        match wrong {
            Some(what) => self.malformed(what),
            None => self.resolve(record),
        }
        if self.samples.len() > MAX_SAMPLES {
            return Err(format!("record {number}: the message has more than {MAX_SAMPLES} values"));
        }
        Ok(())
    }

    fn malformed(&mut self, what: String) {
        let fault = SampleValue::Malformed(format!("record {}: {what}", self.records));
        self.samples.push(Sample::new(Rc::default(), "".into(), fault));
    }

    /// Applies the base values to a record. One that has base values only gives no sample.
    fn resolve(&mut self, record: SenmlRecord<'a>) {
        let SenmlRecord { name, unit, time, value, sum } = record;
        if value.is_none() && sum.is_none() && name.is_empty() {
            return;
        }
        let Some((base_name, key)) = names(&self.base.name, name) else {
            return self.malformed("it has neither a name nor a base name".into());
        };
        let time = event_time(self.base.time, time);
        let unit = unit.or_else(|| self.base.unit.clone());
        let names = Rc::new(SampleNames { base_name, ..SampleNames::default() });
        let mut push = |key: Cow<'a, str>, value: SampleValue<'a>| {
            let sample = Sample::new(Rc::clone(&names), key, value);
            self.samples.push(Sample { time, unit: unit.clone(), ..sample });
        };
        match (value, sum) {
            (Some(SampleValue::Number(number)), _) => push(key.clone(), SampleValue::Number(number + self.base.value)),
            (Some(value), _) => push(key.clone(), value),
            (None, None) => push(key.clone(), SampleValue::Absent),
            (None, Some(_)) => {}
        }
        if let Some(sum) = sum {
            push(format!("{key}.sum").into(), SampleValue::Number(sum + self.base.sum));
        }
    }
}

impl<'a> Base<'a> {
    /// Takes a base value. Returns whether `label` is one.
    fn take(&mut self, label: &str, value: &Field<'a>) -> Result<bool, String> {
        match (label, value) {
            ("bn", Field::Text(name)) => self.name = name.clone(),
            ("bu", Field::Text(unit)) => self.unit = Some(unit.clone()),
            ("bt", Field::Number(seconds)) => self.time = Some(*seconds),
            ("bv", Field::Number(number)) => self.value = *number,
            ("bs", Field::Number(number)) => self.sum = *number,
            ("bver", Field::Number(version)) if *version <= VERSIONS[0] || *version == VERSIONS[1] => {}
            ("bver", Field::Number(version)) => return Err(format!("version {version} (`bver`) is not known; 10 is")),
            ("bn" | "bu", other) => return Err(format!("`{label}` is {}, and should be text", other.kind())),
            ("bt" | "bv" | "bs" | "bver", other) => {
                return Err(format!("`{label}` is {}, and should be a number", other.kind()));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl<'a> SenmlRecord<'a> {
    fn take(&mut self, label: &str, value: Field<'a>) -> Result<(), String> {
        let wrong =
            |value: &Field<'a>, expected| Err(format!("`{label}` is {}, and should be {expected}", value.kind()));
        match (label, value) {
            ("n", Field::Text(name)) => self.name = name,
            ("u", Field::Text(unit)) => self.unit = Some(unit),
            ("t", Field::Number(seconds)) => self.time = Some(seconds),
            ("s", Field::Number(sum)) => self.sum = Some(sum),
            ("v", Field::Number(number)) => self.value = Some(SampleValue::Number(number)),
            ("v" | "vs", Field::Text(text)) => self.value = Some(SampleValue::Text(text)),
            ("v" | "vb", Field::Bool(value)) => self.value = Some(SampleValue::Bool(value)),
            ("v" | "vs" | "vb", Field::Null) => self.value = Some(SampleValue::Absent),
            ("vd", _) => self.value = Some(SampleValue::Other),
            ("n" | "u" | "t" | "s", Field::Null) => {}
            ("n" | "u" | "vs", other) => return wrong(&other, "text"),
            ("t" | "v" | "s", other) => return wrong(&other, "a number"),
            ("vb", other) => return wrong(&other, "a boolean"),
            _ => {}
        }
        Ok(())
    }
}

/// The value of a label in CBOR.
fn cbor_field<'a>(reader: &mut CborReader<'a>) -> Result<Field<'a>, String> {
    Ok(match reader.item()? {
        CborItem::Integer(number) => Field::Number(number as f64),
        CborItem::Float(number) => Field::Number(number),
        CborItem::Bool(value) => Field::Bool(value),
        CborItem::Text(text) => Field::Text(text),
        CborItem::Null => Field::Null,
        CborItem::Bytes => Field::Other,
        CborItem::Tag(4) => decimal_fraction(reader)?,
        head @ (CborItem::Array(_) | CborItem::Map(_) | CborItem::Tag(_)) => {
            reader.skip_rest(&head, 1)?;
            Field::Other
        }
    })
}

/// The number that tag 4 stands before: an array of an exponent of ten and a mantissa.
fn decimal_fraction<'a>(reader: &mut CborReader<'a>) -> Result<Field<'a>, String> {
    let at = reader.position();
    if reader.item()? == CborItem::Array(Some(2))
        && let CborItem::Integer(exponent) = reader.item()?
        && let CborItem::Integer(mantissa) = reader.item()?
    {
        return Ok(Field::Number(format!("{mantissa}e{exponent}").parse().unwrap_or(f64::NAN)));
    }
    Err(format!("a decimal fraction is an array of two integers (at byte {at})"))
}

/// Base name without the separator at its end, and the key of a record. Where only one of base name and name is there, a URN is
/// cut at its last separator: `urn:dev:ow:10e2073a01080063:level`.
fn names<'a>(base: &Cow<'a, str>, name: Cow<'a, str>) -> Option<(Option<Cow<'a, str>>, Cow<'a, str>)> {
    let whole = match (base.is_empty(), name.is_empty()) {
        (true, true) => return None,
        (false, false) => {
            let key = if base.ends_with(SEPARATORS) { name } else { without_first_separator(name) };
            return Some((Some(without_last_separator(base)), key));
        }
        (false, true) => without_last_separator(base),
        (true, false) => name,
    };
    if !whole.starts_with("urn:") {
        return Some((if base.is_empty() { None } else { Some(whole.clone()) }, whole));
    }
    // A device is three parts after `urn`, as in urn:dev:mac:0024befffe804ff1; the rest is the name of a value.
    let cut = match whole.rfind(['/', ':']) {
        Some(at) if whole.get(..at).is_some_and(|device| device.matches([':', '/']).count() >= 3) => at,
        _ => return Some((Some(whole.clone()), whole)),
    };
    let (device, key) = (cow_slice(&whole, 0, cut), cow_slice(&whole, cut + 1, whole.len()));
    if key.is_empty() { Some((Some(device), whole)) } else { Some((Some(device), key)) }
}

fn without_last_separator<'a>(text: &Cow<'a, str>) -> Cow<'a, str> {
    match text.strip_suffix(SEPARATORS) {
        Some("") | None => text.clone(),
        Some(rest) => cow_slice(text, 0, rest.len()),
    }
}

fn without_first_separator(text: Cow<'_, str>) -> Cow<'_, str> {
    match text.strip_prefix(SEPARATORS) {
        Some("") | None => text,
        Some(rest) => cow_slice(&text, text.len() - rest.len(), text.len()),
    }
}

/// Part of a text, borrowed where the text is.
fn cow_slice<'a>(text: &Cow<'a, str>, from: usize, to: usize) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(text) => text.get(from..to).unwrap_or_default().into(),
        Cow::Owned(text) => text.get(from..to).unwrap_or_default().to_owned().into(),
    }
}

/// The time of a record: the sum of base time and time. Neither, or 0, is the arrival.
fn event_time(base: Option<f64>, time: Option<f64>) -> SampleTime {
    let seconds = base.unwrap_or(0.0) + time.unwrap_or(0.0);
    let milliseconds = (seconds * 1_000.0).round() as i64;
    match seconds {
        0.0 => SampleTime::None,
        _ if seconds < RELATIVE_BELOW_S => SampleTime::FromArrival(milliseconds),
        _ => SampleTime::At(milliseconds),
    }
}

#[cfg(test)]
mod tests;
