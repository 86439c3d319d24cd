//! Paths in documents: JSON pointers (RFC 6901) from the document, as in `/a/b`, or from the element, as in `./a/b`.

use super::document::{MapDocument, ROOT, shared};
use super::pattern::{Captures, LevelNames};
use crate::core::json::JsonToken;

/// Longest path in bytes.
const MAX_BYTES: usize = 256;

/// A step of a path: the key of a member, or the index of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PathKey {
    key: Box<str>,
    index: Option<usize>,
}

impl PathKey {
    fn of(step: &str) -> Self {
        let key = step.replace("~1", "/").replace("~0", "~");
        let is_index = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit());
        let index = key.parse().ok().filter(|_| is_index && (key == "0" || !key.starts_with('0')));
        Self { key: key.into(), index }
    }

    fn find(&self, document: &MapDocument<'_>, at: u32) -> Option<u32> {
        match document.token(at) {
            JsonToken::Object => document.member(at, &self.key),
            JsonToken::Array => document.children(at).nth(self.index?),
            _ => None,
        }
    }
}

/// A path of one value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Path {
    /// Whether it begins at the element.
    is_relative: bool,
    steps: Box<[PathKey]>,
}

impl Path {
    /// Reads a path. The empty text and `.` are the element.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (is_relative, pointer) = relative(text)?;
        let steps = steps(pointer).map(PathKey::of).collect();
        Ok(Self { is_relative, steps })
    }

    /// Index of the value at the path.
    pub fn find(&self, document: &MapDocument<'_>, element: u32) -> Option<u32> {
        let start = if self.is_relative { element } else { ROOT };
        self.steps.iter().try_fold(start, |at, step| step.find(document, at))
    }

    /// The value at the path.
    pub fn token<'d, 'a>(&self, document: &'d MapDocument<'a>, element: u32) -> &'d JsonToken<'a> {
        self.find(document, element).map_or(&JsonToken::Absent, |at| document.token(at))
    }
}

/// Splits the sign of a relative path off.
fn relative(text: &str) -> Result<(bool, &str), String> {
    if text.len() > MAX_BYTES {
        return Err(format!("the path has more than {MAX_BYTES} bytes"));
    }
    match text.strip_prefix('.') {
        _ if text.is_empty() => Ok((true, "")),
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Ok((true, rest)),
        None if text.starts_with('/') => Ok((false, text)),
        _ => Err(format!("{text:?} is no path; a path begins with `/` (the document) or `./` (the element)")),
    }
}

fn steps(pointer: &str) -> impl Iterator<Item = &str> {
    pointer.split('/').skip(1)
}

/// A step of a path at which elements repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
enum EachStep {
    Key(PathKey),
    /// Any key or index.
    Any,
    /// Any key or index, which sets the name with this index.
    Named(u8),
}

/// A path at which elements repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EachPath {
    steps: Box<[EachStep]>,
}

impl EachPath {
    /// Reads a path from the document. Its names are added to `names`.
    pub fn parse(text: &str, names: &mut LevelNames) -> Result<Self, String> {
        let (is_relative, pointer) = relative(text)?;
        if is_relative && !text.is_empty() {
            return Err(format!("{text:?} begins at an element; `each` finds elements, and its paths begin with `/`"));
        }
        let step = |step: &str| match step.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            _ if step == "*" => Ok(EachStep::Any),
            Some(name) => names.add(name).map(EachStep::Named),
            None => Ok(EachStep::Key(PathKey::of(step))),
        };
        Ok(Self { steps: steps(pointer).map(step).collect::<Result<_, _>>()? })
    }

    /// The names that the path sets, a bit each.
    pub fn names(&self) -> u16 {
        let bit = |step: &EachStep| if let EachStep::Named(name) = step { 1 << name } else { 0 };
        self.steps.iter().map(bit).fold(0, |all, one| all | one)
    }

    /// Calls `element` with each element and its names; whether there is any.
    pub fn visit<'a>(
        &self,
        document: &MapDocument<'a>,
        captures: &mut Captures<'a>,
        element: &mut dyn FnMut(u32, &Captures<'a>),
    ) -> bool {
        visit(&self.steps, document, ROOT, captures, element)
    }
}

fn visit<'a>(
    steps: &[EachStep],
    document: &MapDocument<'a>,
    at: u32,
    captures: &mut Captures<'a>,
    element: &mut dyn FnMut(u32, &Captures<'a>),
) -> bool {
    let Some((step, steps)) = steps.split_first() else {
        element(at, captures);
        return true;
    };
    let name = match step {
        EachStep::Key(key) => {
            return key.find(document, at).is_some_and(|at| visit(steps, document, at, captures, element));
        }
        EachStep::Any => None,
        EachStep::Named(name) => Some(usize::from(*name)),
    };
    let is_array = *document.token(at) == JsonToken::Array;
    let mut any = false;
    for (index, child) in document.children(at).enumerate() {
        if let Some(place) = name.and_then(|name| captures.get_mut(name)) {
            let key = document.node(child).map(|node| shared(&node.key));
            *place = if is_array { Some(index.to_string().into()) } else { key };
        }
        any |= visit(steps, document, child, captures, element);
    }
    any
}
