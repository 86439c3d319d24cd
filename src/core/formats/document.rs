//! A JSON document as a flat list of nodes that copies nothing.

use std::borrow::Cow;

use crate::core::json::{JsonScanner, JsonSyntaxError, JsonToken};

/// Deepest nesting of objects and arrays.
const MAX_DEPTH: u32 = 16;

/// A value of a document.
#[derive(Debug)]
pub(super) struct DocumentNode<'a> {
    /// Key within its object; empty elsewhere.
    pub key: Cow<'a, str>,
    /// The value, or the kind of container.
    pub token: JsonToken<'a>,
    /// Index behind the node and all that it holds.
    end: u32,
}

/// A JSON document. Its values are in the order of the text, a container before what it holds.
#[derive(Debug)]
pub(super) struct MapDocument<'a> {
    nodes: Vec<DocumentNode<'a>>,
}

/// The value of a whole document.
pub(super) const ROOT: u32 = 0;

impl<'a> MapDocument<'a> {
    /// Reads a document leniently.
    pub fn parse(text: &'a str) -> Result<Self, JsonSyntaxError> {
        let mut document = Self { nodes: Vec::with_capacity(text.len() / 12 + 1) };
        let mut scanner = JsonScanner::with_leniency(text, true);
        document.read(&mut scanner, Cow::Borrowed(""), 0)?;
        scanner.end()?;
        Ok(document)
    }

    fn read(&mut self, scanner: &mut JsonScanner<'a>, key: Cow<'a, str>, depth: u32) -> Result<(), JsonSyntaxError> {
        let at = self.nodes.len();
        let first = scanner.peek();
        if depth >= MAX_DEPTH && matches!(first, Some(b'{' | b'[')) {
            return Err(scanner.error("nested deeper than 16 levels"));
        }
        let token = match first {
            Some(b'{') => JsonToken::Object,
            Some(b'[') => JsonToken::Array,
            _ => scanner.value(MAX_DEPTH)?,
        };
        let (is_object, is_array) = (token == JsonToken::Object, token == JsonToken::Array);
        self.nodes.push(DocumentNode { key, token, end: 0 });
        if is_object {
            scanner.object(|scanner| {
                let key = scanner.key()?;
                self.read(scanner, key, depth + 1)
            })?;
        } else if is_array {
            scanner.array(|scanner| self.read(scanner, Cow::Borrowed(""), depth + 1))?;
        }
        let end = self.nodes.len() as u32;
        if let Some(node) = self.nodes.get_mut(at) {
            node.end = end;
        }
        Ok(())
    }

    /// The node with this index.
    pub fn node(&self, at: u32) -> Option<&DocumentNode<'a>> {
        self.nodes.get(at as usize)
    }

    /// The value with this index.
    pub fn token(&self, at: u32) -> &JsonToken<'a> {
        self.node(at).map_or(&JsonToken::Absent, |node| &node.token)
    }

    /// Indexes of what a container holds, in order.
    pub fn children(&self, at: u32) -> impl Iterator<Item = u32> {
        let end = self.node(at).map_or(0, |node| node.end);
        let mut next = at + 1;
        std::iter::from_fn(move || {
            let child = next;
            if child >= end {
                return None;
            }
            next = self.node(child)?.end;
            Some(child)
        })
    }

    /// The member `key` of an object, the last of several.
    pub fn member(&self, at: u32, key: &str) -> Option<u32> {
        self.children(at).filter(|child| self.node(*child).is_some_and(|node| node.key == key)).last()
    }
}

/// The text as a copy that lives as long as what it borrows from, if it borrows.
pub(super) fn shared<'a>(text: &Cow<'a, str>) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text),
        Cow::Owned(text) => Cow::Owned(text.clone()),
    }
}
