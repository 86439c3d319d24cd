//! Templates of device ids and metric names: text with `{name}`, `{/path}`, `{./path}`, `{key}`, and what samples name.

use std::borrow::Cow;

use super::document::{MapDocument, shared};
use super::path::Path;
use super::pattern::{Captures, LevelNames};
use super::sample::Sample;
use crate::core::json::JsonToken;

/// Longest template in bytes.
const MAX_BYTES: usize = 256;
/// Characters that separate parts of a name.
const SEPARATORS: [char; 6] = ['.', '/', ':', '-', '_', ' '];

/// Tag of a line of Influx that names the machine on which the line was made.
const HOST_TAG: &str = "host";

/// A template.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Template {
    parts: Box<[TemplatePart]>,
    /// Names of patterns and paths that it uses, a bit each.
    names: u16,
}

#[derive(Debug, Clone, PartialEq)]
enum TemplatePart {
    Text(Box<str>),
    /// The first that is there.
    FirstOf(Box<[TemplateSource]>),
}

/// Where a part of a template comes from.
#[derive(Debug, Clone, PartialEq)]
enum TemplateSource {
    Text(Box<str>),
    Name(u8),
    Path(Path),
    Key,
    Measurement,
    BaseName,
    Tag(Box<str>),
    /// Values of all tags but [`HOST_TAG`], with points between them.
    Tags,
}

/// What a template is filled from.
#[derive(Debug, Clone, Copy)]
pub(super) struct TemplateInput<'d, 'a> {
    /// Texts of the names.
    pub captures: &'d Captures<'a>,
    /// The document, and the index of the element.
    pub document: Option<(&'d MapDocument<'a>, u32)>,
    /// The sample.
    pub sample: Option<&'d Sample<'a>>,
    /// The key.
    pub key: &'d Cow<'a, str>,
}

impl Template {
    /// Reads a template. `names` are those that patterns and paths of the map set, `known` which of them count here, a bit each;
    /// `has_paths` says whether the payload is a document.
    pub fn parse(text: &str, names: &LevelNames, known: u16, has_paths: bool) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("the template has more than {MAX_BYTES} bytes"));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let Some((inner, behind)) = behind.split_once('}') else {
                return Err(format!("`{{` has no `}}` in {text:?}"));
            };
            push_text(&mut parts, before, text)?;
            let source = |source: &str| TemplateSource::parse(source, names, known, has_paths);
            parts.push(TemplatePart::FirstOf(inner.split('|').map(source).collect::<Result<_, _>>()?));
            rest = behind;
        }
        push_text(&mut parts, rest, text)?;
        let sources = parts.iter().filter_map(|part| match part {
            TemplatePart::Text(_) => None,
            TemplatePart::FirstOf(sources) => Some(sources.iter()),
        });
        let name = |source: &TemplateSource| if let TemplateSource::Name(name) = source { 1 << name } else { 0 };
        let names = sources.flatten().map(name).fold(0, |all, one| all | one);
        Ok(Self { parts: parts.into(), names })
    }

    /// Whether the template tells the keys of one element apart.
    pub fn has_key(&self) -> bool {
        self.parts.iter().any(|part| match part {
            TemplatePart::Text(_) => false,
            TemplatePart::FirstOf(sources) => sources.contains(&TemplateSource::Key),
        })
    }

    /// Whether the template is only the key.
    pub fn is_key(&self) -> bool {
        matches!(&*self.parts, [TemplatePart::FirstOf(sources)] if matches!(**sources, [TemplateSource::Key]))
    }

    /// The text of the template. Separators that have nothing before or behind them are left out, and one of two that have nothing
    /// between them.
    pub fn fill<'a>(&'a self, input: TemplateInput<'_, 'a>) -> Cow<'a, str> {
        match &*self.parts {
            [TemplatePart::Text(text)] => return Cow::Borrowed(text),
            [TemplatePart::FirstOf(sources)] => return first_of(sources, input),
            _ => {}
        }
        let mut filled = String::with_capacity(48);
        // Whether a part before found nothing; where the text ends that may be cut off again.
        let mut is_missing = false;
        let mut kept = 0;
        for part in &self.parts {
            match part {
                TemplatePart::Text(text) if filled.is_empty() && is_missing => {
                    filled.push_str(text.trim_start_matches(SEPARATORS));
                }
                TemplatePart::Text(text) if is_missing && filled.ends_with(SEPARATORS) => {
                    filled.push_str(text.trim_start_matches(SEPARATORS));
                }
                TemplatePart::Text(text) => filled.push_str(text),
                TemplatePart::FirstOf(sources) => {
                    let text = first_of(sources, input);
                    is_missing = text.is_empty();
                    if !is_missing {
                        filled.push_str(&text);
                        kept = filled.len();
                    }
                }
            }
        }
        if is_missing {
            let tail = filled.get(kept..).unwrap_or_default();
            filled.truncate(kept + tail.trim_end_matches(SEPARATORS).len());
        }
        Cow::Owned(filled)
    }
}

fn push_text(parts: &mut Vec<TemplatePart>, part: &str, template: &str) -> Result<(), String> {
    if part.contains('}') {
        return Err(format!("`}}` has no `{{` in {template:?}"));
    }
    if !part.is_empty() {
        parts.push(TemplatePart::Text(part.into()));
    }
    Ok(())
}

fn first_of<'a>(sources: &'a [TemplateSource], input: TemplateInput<'_, 'a>) -> Cow<'a, str> {
    sources.iter().filter_map(|source| source.text(input)).find(|text| !text.is_empty()).unwrap_or_default()
}

impl TemplateSource {
    fn parse(text: &str, names: &LevelNames, known: u16, has_paths: bool) -> Result<Self, String> {
        if let Some(text) = text.strip_prefix('=') {
            return Ok(Self::Text(text.into()));
        }
        if text.starts_with(['/', '.']) {
            if !has_paths {
                return Err(format!("{text:?} is a path, and payloads of this form have none"));
            }
            return Path::parse(text).map(Self::Path);
        }
        if let Some(tag) = text.strip_prefix("tag:") {
            return Ok(Self::Tag(tag.into()));
        }
        // A name of a pattern wins: `{measurement}` is a level where a pattern has it.
        match names.index(text).filter(|name| known & (1 << name) != 0) {
            Some(name) => Ok(Self::Name(name)),
            None => match text {
                "" => Ok(Self::Text("".into())),
                "key" | "field" => Ok(Self::Key),
                "measurement" => Ok(Self::Measurement),
                "bn" => Ok(Self::BaseName),
                "tags" => Ok(Self::Tags),
                _ => Err(format!("no pattern of the map sets {{{text}}}")),
            },
        }
    }

    fn text<'a>(&'a self, input: TemplateInput<'_, 'a>) -> Option<Cow<'a, str>> {
        let names = || input.sample.map(|sample| &*sample.names);
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Name(name) => input.captures.get(usize::from(*name))?.as_ref().map(shared),
            Self::Path(path) => {
                let (document, element) = input.document?;
                text_of(path.token(document, element))
            }
            Self::Key => Some(shared(input.key)),
            Self::Measurement => names()?.measurement.as_ref().map(shared),
            Self::BaseName => names()?.base_name.as_ref().map(shared),
            Self::Tags => {
                let values = names()?.tags.iter().filter(|(key, _)| **key != *HOST_TAG).map(|(_, value)| &**value);
                Some(Cow::Owned(values.collect::<Vec<_>>().join(".")))
            }
            Self::Tag(tag) => names()?.tags.iter().find(|(key, _)| **key == **tag).map(|(_, value)| shared(value)),
        }
    }
}

/// The text of a value; `None` for containers and where there is no value.
pub(super) fn text_of<'a>(token: &JsonToken<'a>) -> Option<Cow<'a, str>> {
    match token {
        JsonToken::Text(text) => Some(shared(text)),
        JsonToken::Number(number) => Some(Cow::Borrowed(number.text())),
        JsonToken::Bool(true) => Some(Cow::Borrowed("true")),
        JsonToken::Bool(false) => Some(Cow::Borrowed("false")),
        _ => None,
    }
}
