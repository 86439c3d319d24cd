//! All patterns of all maps in one trie.

use std::collections::BTreeMap;

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
    literals: BTreeMap<Box<str>, u32>,
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
                PatternLevel::Literal(text) => self.child(at, |node| node.literals.entry(text.clone()).or_default()),
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
        let mut best: Option<Ending> = None;
        let mut take = |ending: Option<Ending>| {
            best = match (best, ending) {
                (Some(best), Some(ending)) => Some(best.min(ending)),
                (best, ending) => best.or(ending),
            };
        };
        // No node is there twice: a pattern has one part of open length at most.
        let (mut active, mut next) = (vec![0_u32], Vec::new());
        let mut rest = Some(topic);
        let mut is_first = true;
        while let Some(topic) = rest {
            let level;
            (level, rest) = split_level(topic);
            for node in active.iter().filter_map(|at| Some((*at, self.nodes.get(*at as usize)?))) {
                let (at, node) = node;
                if !(is_first && level.starts_with('$')) {
                    take(node.rest);
                }
                next.extend(node.literals.get(level));
                if is_nameable(level) {
                    next.extend([node.one, node.many, if node.is_many { at } else { 0 }].iter().filter(|at| **at != 0));
                }
            }
            is_first = false;
            std::mem::swap(&mut active, &mut next);
            next.clear();
        }
        for node in active.iter().filter_map(|at| self.nodes.get(*at as usize)) {
            take(node.end);
            take(node.rest);
        }
        best.map(|Ending { role, map, pattern, .. }| MapMatch { map, role, pattern })
    }
}
