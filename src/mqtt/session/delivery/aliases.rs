//! Topic aliases that weir sets for one client [section 3.3.2.3.4].

/// Largest number of topic aliases that weir sets, even if the client allows more.
pub(super) const MAX_ALIASES: u16 = 16;
/// Longest topic that gets an alias, in bytes: it bounds the memory of a connection.
const MAX_ALIAS_TOPIC_BYTES: usize = 1_024;

/// Topics for which an alias was sent on this connection.
#[derive(Debug, Default)]
pub(super) struct OutgoingAliases {
    pub max: usize,
    /// Topic of alias 1, alias 2, and so on.
    pub topics: Vec<Box<str>>,
}

/// How the topic of a PUBLISH is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutgoingAlias {
    None,
    /// The alias together with the topic: sets the alias.
    New(u16),
    /// The alias in place of the topic.
    Known(u16),
}

impl OutgoingAliases {
    pub fn of(&self, topic: &str) -> OutgoingAlias {
        if self.max == 0 {
            return OutgoingAlias::None;
        }
        match self.topics.iter().position(|known| **known == *topic) {
            Some(index) => OutgoingAlias::Known(index as u16 + 1),
            None if self.topics.len() < self.max && topic.len() <= MAX_ALIAS_TOPIC_BYTES => {
                OutgoingAlias::New(self.topics.len() as u16 + 1)
            }
            None => OutgoingAlias::None,
        }
    }
}
