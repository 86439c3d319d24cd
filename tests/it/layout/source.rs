//! The files below `src/`: which module each is, and its code without comments, literals and tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Path of a module from the crate's root: `["mqtt", "wire", "frame"]`.
pub type ModulePath = Vec<String>;

/// A file below `src/`.
pub struct SourceFile {
    /// Path below `src/`.
    pub path: String,
    pub module: ModulePath,
    /// The file with spaces in the place of comments, literals and tests; lines keep their numbers.
    code: String,
    pub lines: usize,
    /// Whether the whole file is compiled for tests only.
    is_test: bool,
}

/// All files below `src/`, in the order of their paths.
pub fn sources() -> Vec<SourceFile> {
    let root = repository_path("src");
    let mut found = Vec::new();
    collect(&root, &mut found);
    found.sort();
    let texts = found.iter().map(|path| {
        let relative = path.strip_prefix(&root).expect("it is below src").to_string_lossy().into_owned();
        (relative, fs::read_to_string(path).expect("a readable file"))
    });
    let sources = from_texts(texts);
    assert!(sources.len() > 20, "the tree was not found");
    sources
}

/// Files from their paths below `src/` and their texts.
pub fn from_texts(texts: impl Iterator<Item = (String, String)>) -> Vec<SourceFile> {
    let mut sources: Vec<SourceFile> = texts.map(|(path, text)| from_text(path, &text)).collect();
    let tests: BTreeSet<ModulePath> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        source.is_test = (1..=source.module.len()).any(|length| tests.contains(&source.module[..length]));
        source.code = without_tests(&source.code);
    }
    sources
}

/// A path from the root of the repository.
pub fn repository_path(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Adds all Rust files below a directory.
pub fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a readable tree") {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn from_text(path: String, text: &str) -> SourceFile {
    let stem = path.trim_end_matches(".rs").trim_end_matches("/mod");
    let is_root = ["lib", "main"].contains(&stem);
    let module = if is_root { ModulePath::new() } else { stem.split('/').map(str::to_owned).collect() };
    SourceFile { path, module, code: without_comments_and_literals(text), lines: text.lines().count(), is_test: false }
}

impl SourceFile {
    /// The part that the file belongs to; "main" for main.rs and "lib" for lib.rs.
    pub fn part(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// The code that is compiled into weir; empty for a file of tests.
    pub fn product(&self) -> &str {
        if self.is_test { "" } else { &self.code }
    }

    /// Numbers and texts of the lines of [`Self::product`].
    pub fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.product().lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// The modules that a file declares for tests only: `#[cfg(test)] mod tests;`.
fn test_modules(source: &SourceFile) -> Vec<ModulePath> {
    let lines: Vec<&str> = source.code.lines().map(str::trim).collect();
    let declared = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]");
    let name = |line: &str| line.rsplit_once("mod ").and_then(|(_, name)| name.strip_suffix(';').map(str::to_owned));
    declared.filter_map(|pair| name(pair[1])).map(|name| [source.module.clone(), vec![name]].concat()).collect()
}

/// Blanks what `#[cfg(test)]` keeps out of the product: one item each, up to its semicolon or closing brace.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            let indent = &line[..line.len() - line.trim_start().len()];
            let closing = format!("{indent}}}");
            kept.push('\n');
            for (index, skipped) in lines.by_ref().enumerate() {
                kept.push('\n');
                if skipped == closing || index == 0 && skipped.ends_with([';', '}']) {
                    break;
                }
            }
            continue;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

/// Blanks comments and the contents of string and character literals.
fn without_comments_and_literals(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = skipped_length(rest, kept.chars().next_back());
        if length == 0 {
            kept.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            let (skipped, behind) = rest.split_at(length);
            kept.push(' ');
            kept.extend(skipped.matches('\n').map(|_| '\n'));
            rest = behind;
        }
    }
    kept
}

/// Length of the comment or literal that `text` begins with; 0 where it begins with neither.
fn skipped_length(text: &str, before: Option<char>) -> usize {
    let inside_name = before.is_some_and(|last| last.is_alphanumeric() || last == '_');
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if let Some(body) = text.strip_prefix("/*") {
        return body.find("*/").map_or(text.len(), |end| end + 4);
    }
    let hashes = text.strip_prefix('r').map_or(0, |raw| raw.len() - raw.trim_start_matches('#').len());
    if !inside_name && text.starts_with('r') && text[1 + hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        return text[2 + hashes..].find(&end).map_or(text.len(), |at| 2 + hashes + at + end.len());
    }
    match text.as_bytes()[0] {
        b'"' => quoted_length(text),
        b'\'' => character_length(text),
        _ => 0,
    }
}

/// Length of a string literal with its quotes.
fn quoted_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of a character literal with its quotes; 0 for a lifetime.
fn character_length(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |at| at + 4),
        Some(_) => characters.next().filter(|(_, quote)| *quote == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}
