//! Globs of keys: `*` stands for any text.

/// A glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob {
    /// The texts between the stars, of which there is one fewer.
    parts: Box<[Box<str>]>,
    /// First and last byte of every text that matches, where the glob says them: most keys differ there.
    ends: (Option<u8>, Option<u8>),
}

impl Glob {
    /// The glob with this text.
    pub fn new(text: &str) -> Self {
        let parts: Box<[Box<str>]> = text.split('*').map(Box::from).collect();
        let first = parts.first().and_then(|part| part.bytes().next());
        let last = parts.last().and_then(|part| part.bytes().next_back());
        Self { parts, ends: (first, last) }
    }

    /// Whether `key` matches.
    #[inline]
    pub fn matches(&self, key: &str) -> bool {
        let is_end = |end: Option<u8>, byte: Option<&u8>| end.is_none() || end == byte.copied();
        let bytes = key.as_bytes();
        is_end(self.ends.0, bytes.first()) && is_end(self.ends.1, bytes.last()) && self.matches_whole(key)
    }

    fn matches_whole(&self, key: &str) -> bool {
        let Some((first, others)) = self.parts.split_first() else { return false };
        let Some((last, middle)) = others.split_last() else { return **first == *key };
        let Some(rest) = key.strip_prefix(&**first) else { return false };
        let Some(mut rest) = rest.strip_suffix(&**last) else { return false };
        for part in middle {
            let Some(at) = rest.find(&**part) else { return false };
            rest = rest.get(at + part.len()..).unwrap_or_default();
        }
        true
    }

    /// Bytes that are no stars: how much the glob says.
    fn literal_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }
}

/// Whether any of several globs matches.
pub(super) fn any_matches(globs: &[Glob], key: &str) -> bool {
    globs.iter().any(|glob| glob.matches(key))
}

/// Values by glob. Where several globs match a key, the longest counts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ByGlob<T>(Vec<(Glob, T)>);

impl<T> ByGlob<T> {
    /// The values of `entries`.
    pub fn new<'k>(entries: impl Iterator<Item = (&'k String, T)>) -> Self {
        let mut entries: Vec<_> = entries.map(|(glob, value)| (Glob::new(glob), value)).collect();
        entries.sort_by_key(|(glob, _)| std::cmp::Reverse(glob.literal_bytes()));
        Self(entries)
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&T> {
        self.0.iter().find(|(glob, _)| glob.matches(key)).map(|(_, value)| value)
    }
}
