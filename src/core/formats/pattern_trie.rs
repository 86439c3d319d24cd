//! All patterns of all maps in one trie.

use std::cmp::Ordering;

use super::pattern::{Pattern, PatternLevel, is_nameable, split_level};
use super::{MapMatch, MapRole};

/// A pattern of a map. The order is that of precedence: the first takes the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ending {
    /// Levels that are not literal, as far as precedence goes.
    not_literal: u16,
    is_open: bool,
    role: MapRole,
    map: u16,
    pattern: u16,
}

/// What patterns have in common up to some level. An index of 0 means that there is none: nothing leads to the root.
#[derive(Debug, Default)]
struct PatternNode {
    /// Literal levels and their nodes, in the order of [`order`].
    literals: Vec<(Box<str>, u32)>,
    one: u32,
    many: u32,
    /// Whether the node takes further levels.
    is_many: bool,
    /// The pattern that ends here.
    end: Option<Ending>,
    /// The pattern that goes on with `#`.
    rest: Option<Ending>,
}

/// All patterns of all maps.
#[derive(Debug)]
pub(super) struct PatternTrie {
    nodes: Vec<PatternNode>,
}

impl Default for PatternTrie {
    fn default() -> Self {
        Self { nodes: vec![PatternNode::default()] }
    }
}

impl PatternTrie {
    /// Adds a pattern. Fails with a map that has a pattern of the same role that matches the same topics equally well.
    pub fn add(&mut self, pattern: &Pattern, found: MapMatch) -> Result<(), u16> {
        let mut at = 0;
        let mut is_rest = false;
        for level in &pattern.levels {
            at = match level {
                PatternLevel::Literal(text) => self.literal(at, text),
                PatternLevel::One(_) => self.child(at, |node| &mut node.one),
                PatternLevel::Many(_) => {
                    let many = self.child(at, |node| &mut node.many);
                    if let Some(node) = self.nodes.get_mut(many as usize) {
                        node.is_many = true;
                    }
                    many
                }
                PatternLevel::Rest => {
                    is_rest = true;
                    at
                }
            };
        }
        let ending = Ending {
            not_literal: u16::MAX.saturating_sub(pattern.literals() as u16),
            is_open: pattern.is_open(),
            role: found.role,
            map: found.map,
            pattern: found.pattern,
        };
        let Some(node) = self.nodes.get_mut(at as usize) else { return Ok(()) };
        let place = if is_rest { &mut node.rest } else { &mut node.end };
        match place {
            Some(other) if other.role == ending.role && other.map != ending.map && ending.role != MapRole::Ignore => {
                return Err(other.map);
            }
            Some(other) => *other = ending.min(*other),
            None => *place = Some(ending),
        }
        Ok(())
    }

    /// The node behind the literal level `text` of the node `at`, which is new or not.
    fn literal(&mut self, at: u32, text: &str) -> u32 {
        let next = self.nodes.len() as u32;
        let Some(node) = self.nodes.get_mut(at as usize) else { return 0 };
        match node.literals.binary_search_by(|(known, _)| order(known, text)) {
            Ok(index) => node.literals.get(index).map_or(0, |(_, child)| *child),
            Err(index) => {
                node.literals.insert(index, (text.into(), next));
                self.nodes.push(PatternNode::default());
                next
            }
        }
    }

    /// The node that `place` of the node `at` names, which is new or not.
    fn child(&mut self, at: u32, place: impl FnOnce(&mut PatternNode) -> &mut u32) -> u32 {
        let next = self.nodes.len() as u32;
        let Some(node) = self.nodes.get_mut(at as usize) else { return 0 };
        let place = place(node);
        if *place == 0 {
            *place = next;
            self.nodes.push(PatternNode::default());
            return next;
        }
        *place
    }

    /// The pattern that takes the messages of `topic`.
    pub fn find(&self, topic: &str) -> Option<MapMatch> {
        let mut best = None;
        self.walk(0, Some(topic), !topic.starts_with('$'), &mut best);
        best.map(|Ending { role, map, pattern, .. }| MapMatch { map, role, pattern })
    }

    /// Keeps the best pattern that goes on from the node `at` with `rest`, what of the topic is not matched. Only one way leads to
    /// a node at a level, since a pattern has one part of open length at most: the walk is as long as nodes times levels at most.
    fn walk(&self, at: u32, rest: Option<&str>, may_be_rest: bool, best: &mut Option<Ending>) {
        let Some(node) = self.nodes.get(at as usize) else { return };
        if may_be_rest {
            keep_best(best, node.rest);
        }
        let Some(topic) = rest else { return keep_best(best, node.end) };
        let (level, rest) = split_level(topic);
        if let Ok(index) = node.literals.binary_search_by(|(text, _)| order(text, level)) {
            let child = node.literals.get(index).map_or(0, |(_, child)| *child);
            self.walk(child, rest, true, best);
        }
        if is_nameable(level) {
            for child in [node.one, node.many, if node.is_many { at } else { 0 }] {
                if child != 0 {
                    self.walk(child, rest, true, best);
                }
            }
        }
    }
}

fn keep_best(best: &mut Option<Ending>, ending: Option<Ending>) {
    *best = match (*best, ending) {
        (Some(best), Some(ending)) => Some(best.min(ending)),
        (best, ending) => best.or(ending),
    };
}

/// Order of literal levels: most differ in their length already.
fn order(text: &str, level: &str) -> Ordering {
    text.len().cmp(&level.len()).then_with(|| text.cmp(level))
}
