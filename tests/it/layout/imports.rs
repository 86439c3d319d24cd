//! Which file uses which: `use` declarations and paths in the code, followed through re-exports to the file that
//! declares the name.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{ModulePath, SourceFile};

/// One file uses another.
#[derive(Debug, Clone)]
pub struct Import {
    /// Indices into the list of files.
    pub from: usize,
    pub to: usize,
    pub line: usize,
    /// The path as it is written.
    pub path: String,
}

/// A name that a `use` declaration brings into a module.
struct Used {
    name: String,
    path: Vec<String>,
    line: usize,
    /// `pub use`: the module only passes the name on.
    is_passed_on: bool,
}

/// Imported names and paths of one file.
struct FileNames {
    used: Vec<Used>,
    /// Paths in the code with their lines.
    paths: Vec<(usize, Vec<String>)>,
}

/// Target of a path.
enum PathTarget {
    /// An item of this file.
    Item(usize),
    /// A module itself.
    Module(ModulePath),
}

/// The files' modules and names.
struct Modules<'a> {
    sources: &'a [SourceFile],
    files: BTreeMap<&'a [String], usize>,
    names: Vec<FileNames>,
}

/// All imports between different files of the product, each pair of files once.
pub fn imports(sources: &[SourceFile]) -> Vec<Import> {
    let files = sources.iter().enumerate().filter(|(_, source)| !source.module.is_empty());
    let files = files.map(|(index, source)| (&source.module[..], index)).collect();
    let modules = Modules { sources, files, names: sources.iter().map(|source| names(source.product())).collect() };
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (from, names) in modules.names.iter().enumerate() {
        let used = names.used.iter().filter(|used| !used.is_passed_on).map(|used| (used.line, &used.path));
        for (line, path) in used.chain(names.paths.iter().map(|(line, path)| (*line, path))) {
            let Some(PathTarget::Item(to)) = modules.target(from, path, 0) else { continue };
            if to != from && seen.insert((from, to)) {
                found.push(Import { from, to, line, path: path.join("::") });
            }
        }
    }
    found
}

/// Longest chain of re-exports that is followed.
const MAX_DEPTH: usize = 8;

impl Modules<'_> {
    /// Target of a path in a file; `None` for names of other crates and for local names.
    fn target(&self, file: usize, path: &[String], depth: usize) -> Option<PathTarget> {
        if depth > MAX_DEPTH {
            return None;
        }
        let own = &self.sources[file].module;
        let (mut module, rest): (ModulePath, &[String]) = match path[0].as_str() {
            "crate" | "weir" => (ModulePath::new(), &path[1..]),
            "self" => (own.clone(), &path[1..]),
            "super" => {
                let supers = path.iter().take_while(|segment| *segment == "super").count();
                (own[..own.len().checked_sub(supers)?].to_vec(), &path[supers..])
            }
            name => {
                let child = [own.clone(), vec![name.to_owned()]].concat();
                if self.files.contains_key(&child[..]) {
                    (child, &path[1..])
                } else {
                    let used = self.names[file].used.iter().find(|used| used.name == name && used.path[0] != name)?;
                    match self.target(file, &used.path, depth + 1)? {
                        PathTarget::Module(module) => (module, &path[1..]),
                        // The `use` declaration is the import.
                        PathTarget::Item(_) => return None,
                    }
                }
            }
        };
        let mut rest = rest;
        while let Some((name, behind)) = rest.split_first() {
            module.push(name.clone());
            if self.files.contains_key(&module[..]) {
                rest = behind;
                continue;
            }
            module.pop();
            let &file = self.files.get(&module[..])?;
            let used = self.names[file].used.iter().find(|used| used.name == *name);
            return match used.and_then(|used| self.target(file, &used.path, depth + 1)) {
                Some(PathTarget::Module(passed_on)) if behind.is_empty() => Some(PathTarget::Module(passed_on)),
                Some(place) => Some(place),
                None => Some(PathTarget::Item(file)),
            };
        }
        Some(PathTarget::Module(module))
    }
}

/// Words and signs of code with their lines; `::` is one sign.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let is_part = |next: char| next.is_alphanumeric() || next == '_';
            let length = match first {
                _ if is_part(first) => rest.find(|next| !is_part(next)).unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                _ => first.len_utf8(),
            };
            tokens.push((index + 1, &rest[..length]));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

fn names(code: &str) -> FileNames {
    let tokens = tokens(code);
    let mut names = FileNames { used: Vec::new(), paths: Vec::new() };
    let mut at = 0;
    while at < tokens.len() {
        let (line, token) = tokens[at];
        if token == "use" {
            let is_passed_on = at > 0 && ["pub", ")"].contains(&tokens[at - 1].1);
            let end = at + tokens[at..].iter().position(|(_, token)| *token == ";").unwrap_or(tokens.len() - at);
            use_tree(&tokens[at + 1..end], &[], &mut |name, path| {
                names.used.push(Used { name, path, line, is_passed_on });
            });
            at = end;
        } else if is_name(token) && tokens.get(at + 1).is_some_and(|(_, next)| *next == "::") {
            let mut path = vec![token.to_owned()];
            while tokens.get(at + 1).is_some_and(|(_, next)| *next == "::")
                && let Some((_, next)) = tokens.get(at + 2).filter(|(_, next)| is_name(next))
            {
                path.push((*next).to_owned());
                at += 2;
            }
            names.paths.push((line, path));
        }
        at += 1;
    }
    names
}

/// Takes a `use` tree apart: `a::{b, c as d}` gives `b` for a::b and `d` for a::c.
fn use_tree(tokens: &[(usize, &str)], prefix: &[String], found: &mut impl FnMut(String, Vec<String>)) {
    let mut path = prefix.to_vec();
    for (at, (_, token)) in tokens.iter().enumerate() {
        match *token {
            "::" => {}
            "{" => {
                for branch in branches(&tokens[at + 1..tokens.len() - 1]) {
                    use_tree(branch, &path, found);
                }
                return;
            }
            "as" => {
                let name = tokens.get(at + 1).map_or("_", |(_, name)| name);
                return found(name.to_owned(), path);
            }
            "self" if !prefix.is_empty() => {}
            segment => path.push(segment.to_owned()),
        }
    }
    if let Some(name) = path.last().cloned() {
        found(name, path);
    }
}

/// The branches of a `use` tree that commas separate at its own level.
fn branches<'a, 'b>(tokens: &'a [(usize, &'b str)]) -> Vec<&'a [(usize, &'b str)]> {
    let mut depth = 0;
    let ends = tokens.split(|(_, token)| {
        depth += i32::from(*token == "{") - i32::from(*token == "}");
        *token == "," && depth == 0
    });
    ends.filter(|branch| !branch.is_empty()).collect()
}
