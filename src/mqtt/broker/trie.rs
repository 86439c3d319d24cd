//! The subscription trie: topic filters by level.

use std::collections::{BTreeMap, HashMap};
use std::str::Split;

/// Subscriptions by filter and key. Depth is bounded by [`crate::mqtt::wire::topic::MAX_LEVELS`], size by the broker.
#[derive(Debug)]
pub(crate) struct SubscriptionTrie<V> {
    root: TrieNode<V>,
    len: usize,
}

#[derive(Debug)]
struct TrieNode<V> {
    /// Next levels by name. The names come from the network: std's keyed hash.
    children: HashMap<Box<str>, TrieNode<V>>,
    /// Node of the wildcard `+`.
    any: Option<Box<TrieNode<V>>>,
    /// Subscriptions whose filter ends at this node.
    exact: BTreeMap<u64, V>,
    /// Subscriptions whose filter ends after this node with `#`.
    rest: BTreeMap<u64, V>,
}

impl<V> Default for TrieNode<V> {
    fn default() -> Self {
        Self { children: HashMap::new(), any: None, exact: BTreeMap::new(), rest: BTreeMap::new() }
    }
}

impl<V> Default for SubscriptionTrie<V> {
    fn default() -> Self {
        Self { root: TrieNode::default(), len: 0 }
    }
}

impl<V> SubscriptionTrie<V> {
    /// Number of subscriptions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds or replaces the subscription of `key` to a valid filter; returns the one it replaces.
    pub fn insert(&mut self, filter: &str, key: u64, value: V) -> Option<V> {
        let mut node = &mut self.root;
        let mut levels = filter.split('/');
        let replaced = loop {
            match levels.next() {
                None => break node.exact.insert(key, value),
                Some("#") => break node.rest.insert(key, value),
                Some("+") => node = node.any.get_or_insert_default(),
                Some(level) => node = node.children.entry(level.into()).or_default(),
            }
        };
        self.len += usize::from(replaced.is_none());
        replaced
    }

    /// The subscription of `key` to exactly this filter.
    pub fn get(&self, filter: &str, key: u64) -> Option<&V> {
        let mut node = &self.root;
        let mut levels = filter.split('/');
        loop {
            match levels.next() {
                None => return node.exact.get(&key),
                Some("#") => return node.rest.get(&key),
                Some("+") => node = node.any.as_ref()?,
                Some(level) => node = node.children.get(level)?,
            }
        }
    }

    /// Removes the subscription of `key` to exactly this filter, and the nodes that no other filter needs.
    pub fn remove(&mut self, filter: &str, key: u64) -> Option<V> {
        let removed = self.root.remove(&mut filter.split('/'), key);
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// Calls `each` for every subscription that matches `topic`; one key may come several times. Returns the number of examined
    /// nodes: with many wildcards it is much larger than the number of matches.
    pub fn for_each_match<'a>(&'a self, topic: &str, each: &mut impl FnMut(u64, &'a V)) -> usize {
        // Wildcards in the first level do not match topics that begin with `$` [MQTT-4.7.2-1].
        if topic.starts_with('$') {
            let (first, rest) = topic.split_once('/').map_or((topic, None), |(first, rest)| (first, Some(rest)));
            self.root.children.get(first).map_or(0, |child| child.matching(rest, each))
        } else {
            self.root.matching(Some(topic), each)
        }
    }

    /// Whether some subscription could match a topic that begins with `prefix` (which ends in `/`).
    pub fn may_match_below(&self, prefix: &str) -> bool {
        let levels: Vec<&str> = prefix.trim_end_matches('/').split('/').collect();
        self.root.may_match_below(&levels)
    }
}

impl<V> TrieNode<V> {
    fn remove(&mut self, levels: &mut Split<'_, char>, key: u64) -> Option<V> {
        match levels.next() {
            None => self.exact.remove(&key),
            Some("#") => self.rest.remove(&key),
            Some("+") => {
                let any = self.any.as_mut()?;
                let removed = any.remove(levels, key);
                if any.is_empty() {
                    self.any = None;
                }
                removed
            }
            Some(level) => {
                let child = self.children.get_mut(level)?;
                let removed = child.remove(levels, key);
                if child.is_empty() {
                    self.children.remove(level);
                }
                removed
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.exact.is_empty() && self.rest.is_empty()
    }

    /// `topic` is the rest of the topic, `None` after its last level. The recursion is as deep as the longest filter.
    fn matching<'a>(&'a self, topic: Option<&str>, each: &mut impl FnMut(u64, &'a V)) -> usize {
        for (key, value) in &self.rest {
            each(*key, value);
        }
        let Some(topic) = topic else {
            for (key, value) in &self.exact {
                each(*key, value);
            }
            return 1;
        };
        let (level, rest) = topic.split_once('/').map_or((topic, None), |(level, rest)| (level, Some(rest)));
        let mut nodes = 1;
        if let Some(child) = self.children.get(level) {
            nodes += child.matching(rest, each);
        }
        if let Some(any) = &self.any {
            nodes += any.matching(rest, each);
        }
        nodes
    }

    fn may_match_below(&self, levels: &[&str]) -> bool {
        if !self.rest.is_empty() {
            return true;
        }
        match levels {
            [] => self.any.is_some() || !self.children.is_empty(),
            [level, rest @ ..] => {
                self.children.get(*level).is_some_and(|child| child.may_match_below(rest))
                    || self.any.as_ref().is_some_and(|any| any.may_match_below(rest))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::wire::topic;
    use proptest::prelude::*;

    fn level() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(vec!["a", "b", "", "$x", "weir", "windows"])
    }

    fn filter() -> impl Strategy<Value = String> {
        let levels = proptest::collection::vec(prop_oneof![3 => level(), 1 => Just("+")], 1..4);
        (levels, any::<bool>()).prop_map(|(mut levels, rest)| {
            if rest {
                levels.push("#");
            }
            levels.join("/")
        })
    }

    fn name() -> impl Strategy<Value = String> {
        proptest::collection::vec(level(), 1..5).prop_map(|levels| levels.join("/"))
    }

    fn matching(trie: &SubscriptionTrie<()>, topic: &str) -> Vec<u64> {
        let mut keys = Vec::new();
        trie.for_each_match(topic, &mut |key, ()| keys.push(key));
        keys.sort_unstable();
        keys
    }

    proptest! {
        #[test]
        fn it_matches_what_a_list_of_filters_matches(
            steps in proptest::collection::vec((any::<bool>(), filter(), 0_u64..4), 0..30),
            topics in proptest::collection::vec(name(), 1..8),
        ) {
            let mut trie = SubscriptionTrie::default();
            let mut model: Vec<(String, u64)> = Vec::new();
            for (insert, filter, key) in steps {
                let known = model.contains(&(filter.clone(), key));
                if insert {
                    prop_assert_eq!(trie.insert(&filter, key, ()).is_some(), known);
                    if !known {
                        model.push((filter, key));
                    }
                } else {
                    prop_assert_eq!(trie.remove(&filter, key).is_some(), known);
                    model.retain(|entry| *entry != (filter.clone(), key));
                }
                prop_assert_eq!(trie.len(), model.len());
            }
            for topic in topics {
                let mut expected: Vec<u64> = model
                    .iter()
                    .filter(|(filter, _)| topic::matches(filter, &topic))
                    .map(|(_, key)| *key)
                    .collect();
                expected.sort_unstable();
                prop_assert_eq!(matching(&trie, &topic), expected, "{}", topic);
                if topic.starts_with("weir/windows/") && !matching(&trie, &topic).is_empty() {
                    prop_assert!(trie.may_match_below("weir/windows/"));
                }
            }
            for (filter, key) in model {
                trie.remove(&filter, key);
            }
            prop_assert!(trie.root.is_empty(), "nodes are left behind");
        }
    }

    #[test]
    fn a_prefix_without_possible_subscribers_is_told() {
        let check = |filter: &str, expected| {
            let mut trie = SubscriptionTrie::default();
            trie.insert(filter, 1, ());
            assert_eq!(trie.may_match_below("weir/windows/"), expected, "{filter}");
        };
        for filter in ["#", "weir/#", "weir/windows/#", "weir/windows/pump/+", "+/windows/a/b", "+/+/+/+"] {
            check(filter, true);
        }
        for filter in ["weir/windows", "weir/errors/#", "devices/#", "+", "weir/+"] {
            check(filter, false);
        }
    }
}
