//! Values: numbers, words, what says that there is no value, scales and units.

use std::borrow::Cow;

use super::document::MapDocument;
use super::glob::{ByGlob, Glob, any_matches};
use super::mapped::{Ignored, MappedValue};
use super::path::Path;
use super::settings::{MapSettings, OtherText};
use super::template::text_of;
use super::units::MeasureUnit;
use crate::core::absent::is_absent_text;
use crate::core::json::JsonToken;

/// Words that mean a number in every map.
const WORDS: [(&str, f64); 4] = [("on", 1.0), ("off", 0.0), ("true", 1.0), ("false", 0.0)];

/// A value as the payload has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FoundValue<'a> {
    /// A number.
    Number(f64),
    /// `true` or `false`.
    Bool(bool),
    /// Text.
    Text(Cow<'a, str>),
    /// There is no value.
    Absent,
    /// Something that is no reading.
    Other,
}

impl<'a> FoundValue<'a> {
    /// The value of a scalar of a document.
    pub fn of(token: &JsonToken<'a>) -> Self {
        match token {
            JsonToken::Number(number) => Self::Number(number.to_f64()),
            JsonToken::Bool(value) => Self::Bool(*value),
            JsonToken::Text(text) => Self::Text(super::document::shared(text)),
            none if none.is_none() => Self::Absent,
            _ => Self::Other,
        }
    }
}

/// How values become numbers.
#[derive(Debug)]
pub(super) struct ValueRules {
    scale: ByGlob<Scale>,
    conversions: Vec<CompiledConversion>,
    words: Vec<(Box<str>, f64)>,
    no_value: ByGlob<Vec<f64>>,
    text: OtherText,
    units: ByGlob<Box<str>>,
}

/// A factor. One below 1 divides, so that 2301 times 0.1 is 230.1.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scale {
    Multiply(f64),
    Divide(f64),
}

impl Scale {
    fn new(factor: f64) -> Self {
        let inverse = (1.0 / factor).round();
        let is_fraction =
            factor.abs() < 1.0 && inverse.is_finite() && (1.0 / inverse - factor).abs() < 1e-9 * factor.abs();
        if is_fraction { Self::Divide(inverse) } else { Self::Multiply(factor) }
    }

    fn apply(self, value: f64) -> f64 {
        match self {
            Self::Multiply(factor) => value * factor,
            Self::Divide(divisor) => value / divisor,
        }
    }
}

#[derive(Debug)]
struct CompiledConversion {
    keys: Vec<Glob>,
    from: ConversionSource,
    to: MeasureUnit,
}

#[derive(Debug)]
enum ConversionSource {
    Unit(MeasureUnit),
    Path(Path),
}

impl ValueRules {
    /// The rules of a map. `fault` is told what is wrong: the key and a sentence.
    pub fn new(settings: &MapSettings, fault: &mut dyn FnMut(&str, String)) -> Self {
        for (glob, factor) in &settings.scale {
            if !factor.is_finite() || *factor == 0.0 {
                fault("scale", format!("the factor of {glob:?} is {factor}; expected a number other than 0"));
            }
        }
        let mut conversions = Vec::new();
        for conversion in &settings.convert {
            match CompiledConversion::new(conversion) {
                Ok(conversion) => conversions.push(conversion),
                Err(sentence) => fault("convert", sentence),
            }
        }
        Self {
            scale: ByGlob::new(settings.scale.iter().map(|(glob, factor)| (glob, Scale::new(*factor)))),
            conversions,
            words: settings.words.iter().map(|(word, value)| (word.as_str().into(), *value)).collect(),
            no_value: ByGlob::new(settings.no_value.iter().map(|(glob, numbers)| (glob, numbers.clone()))),
            text: settings.text,
            units: ByGlob::new(settings.units.iter().map(|(glob, unit)| (glob, unit.as_str().into()))),
        }
    }

    /// The value and unit under `key`, or why it is no reading. `unit` is the one that the payload says.
    pub fn read<'a>(
        &'a self,
        key: &str,
        found: FoundValue<'a>,
        document: Option<(&MapDocument<'a>, u32)>,
        unit: Option<Cow<'a, str>>,
    ) -> Result<(MappedValue<'a>, Option<Cow<'a, str>>), Ignored> {
        let known_unit = |unit: Option<Cow<'a, str>>| match self.units.get(key) {
            Some(unit) => Some(Cow::Borrowed(&**unit)),
            None => unit,
        };
        let number = match found {
            FoundValue::Number(number) => number,
            FoundValue::Bool(value) => return Ok((MappedValue::Number(f64::from(u8::from(value))), known_unit(unit))),
            FoundValue::Absent => return Err(Ignored::Absent),
            FoundValue::Other => return Err(Ignored::Text),
            FoundValue::Text(text) => match self.text(&text) {
                TextValue::Number(number) => number,
                TextValue::Word(value) => return Ok((MappedValue::Number(value), known_unit(unit))),
                TextValue::Absent => return Err(Ignored::Absent),
                TextValue::Other if self.text == OtherText::Error => {
                    return Ok((MappedValue::Text(text), known_unit(unit)));
                }
                TextValue::Other => return Err(Ignored::Text),
            },
        };
        if self.no_value.get(key).is_some_and(|numbers| numbers.contains(&number)) {
            return Err(Ignored::Absent);
        }
        let number = self.scale.get(key).map_or(number, |scale| scale.apply(number));
        let (number, unit) = match self.converted(key, number, document) {
            Some((number, to)) => (number, Some(Cow::Borrowed(to.symbol()))),
            None => (number, unit),
        };
        Ok((MappedValue::Number(number), known_unit(unit)))
    }

    fn converted(
        &self,
        key: &str,
        number: f64,
        document: Option<(&MapDocument<'_>, u32)>,
    ) -> Option<(f64, MeasureUnit)> {
        let conversion = self.conversions.iter().find(|conversion| any_matches(&conversion.keys, key))?;
        let from = match (&conversion.from, document) {
            (ConversionSource::Unit(unit), _) => *unit,
            (ConversionSource::Path(path), Some((document, element))) => {
                MeasureUnit::of(&text_of(path.token(document, element))?)?
            }
            (ConversionSource::Path(_), None) => return None,
        };
        Some((from.convert(number, conversion.to)?, conversion.to))
    }

    fn text(&self, text: &str) -> TextValue {
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        let user = self.words.iter().find(|(word, _)| is_same_word(word, text));
        if let Some((_, value)) = user {
            return TextValue::Word(*value);
        }
        if let Some(number) = decimal(text) {
            return TextValue::Number(number);
        }
        match WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
            Some((_, value)) => TextValue::Word(*value),
            None if is_absent_text(text) => TextValue::Absent,
            None => TextValue::Other,
        }
    }
}

/// What a text means.
enum TextValue {
    Number(f64),
    Word(f64),
    Absent,
    Other,
}

/// Whether two words are the same without regard to case.
pub(super) fn is_same_word(word: &str, text: &str) -> bool {
    word.eq_ignore_ascii_case(text)
        || (!word.is_ascii() && word.chars().flat_map(char::to_lowercase).eq(text.chars().flat_map(char::to_lowercase)))
}

/// The decimal number that a text is: no hex, no comma, no unit. A text such as `04E12345`, which is no finite number, is an identifier.
fn decimal(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let starts = unsigned.strip_prefix('.').unwrap_or(unsigned).starts_with(|c: char| c.is_ascii_digit());
    let is_decimal = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    let number: Option<f64> = if starts && text.bytes().all(is_decimal) { text.parse().ok() } else { None };
    number.filter(|number| number.is_finite())
}

impl CompiledConversion {
    fn new(conversion: &super::settings::Conversion) -> Result<Self, String> {
        const KNOWN: &str = "celsius, fahrenheit, kelvin, wh, kwh, mwh, pa, hpa, kpa, mbar, bar, mmhg, inhg, psi";
        let unit = |key: &str, name: &str| {
            MeasureUnit::of(name).ok_or_else(|| format!("`{key}` is {name:?}, and the units are {KNOWN}"))
        };
        let to = unit("to", &conversion.to)?;
        let from = match (conversion.from.as_str(), conversion.unit_from.as_str()) {
            ("", "") => return Err("a conversion has `from` or `unit_from`".into()),
            (name, "") => ConversionSource::Unit(unit("from", name)?),
            ("", path) => ConversionSource::Path(Path::parse(path)?),
            _ => return Err("a conversion has `from` or `unit_from`, not both".into()),
        };
        if let ConversionSource::Unit(from) = from
            && from.convert(0.0, to).is_none()
        {
            return Err(format!("{} does not become {}", conversion.from, conversion.to));
        }
        if conversion.keys.is_empty() {
            return Err("a conversion has `keys`".into());
        }
        Ok(Self { keys: conversion.keys.iter().map(|glob| Glob::new(glob)).collect(), from, to })
    }
}
