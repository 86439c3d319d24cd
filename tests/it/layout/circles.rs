//! Circles of imports between files of different folders.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::imports::Import;
use super::source::SourceFile;

/// The folder of a file below `src/`. A file `a.rs` beside a folder `a/` belongs to that folder.
pub fn folder(sources: &[SourceFile], file: usize) -> String {
    let module = &sources[file].module;
    let has_children =
        sources.iter().any(|other| other.module.len() > module.len() && other.module.starts_with(module));
    let length = if has_children { module.len() } else { module.len().saturating_sub(1) };
    module[..length].join("/")
}

/// The shortest circle through each import from one folder into another, each circle once: its imports in order.
pub fn circles<'a>(sources: &[SourceFile], imports: &'a [Import]) -> Vec<Vec<&'a Import>> {
    let folders: Vec<String> = (0..sources.len()).map(|file| folder(sources, file)).collect();
    let mut leaving: BTreeMap<usize, Vec<&Import>> = BTreeMap::new();
    for import in imports {
        leaving.entry(import.from).or_default().push(import);
    }
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    for import in imports.iter().filter(|import| folders[import.from] != folders[import.to]) {
        let Some(back) = way(&leaving, import.to, import.from) else { continue };
        let circle = [vec![import], back].concat();
        let files: BTreeSet<usize> = circle.iter().map(|import| import.from).collect();
        if seen.insert(files) {
            found.push(circle);
        }
    }
    found.sort_by_key(Vec::len);
    found
}

/// The shortest way from one file to another.
fn way<'a>(leaving: &BTreeMap<usize, Vec<&'a Import>>, from: usize, to: usize) -> Option<Vec<&'a Import>> {
    let mut reached: BTreeMap<usize, &Import> = BTreeMap::new();
    let mut next = VecDeque::from([from]);
    while let Some(file) = next.pop_front() {
        if file == to {
            let mut way = Vec::new();
            let mut at = to;
            while at != from {
                way.push(reached[&at]);
                at = reached[&at].from;
            }
            way.reverse();
            return Some(way);
        }
        for import in leaving.get(&file).into_iter().flatten() {
            if import.to != from && !reached.contains_key(&import.to) {
                reached.insert(import.to, import);
                next.push_back(import.to);
            }
        }
    }
    None
}
