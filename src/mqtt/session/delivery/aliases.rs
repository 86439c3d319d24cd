//! Topic aliases that weir sets towards one client.

/// Topic aliases that weir sets at most, whatever the client allows.
pub(super) const MAX_ALIASES: u16 = 16;
/// Longer topics get none.
const MAX_ALIAS_TOPIC_BYTES: usize = 1_024;

/// Topics that this connection's client knows by an alias [section 3.3.2.3.4].
#[derive(Debug, Default)]
pub(super) struct OutgoingAliases {
    pub max: usize,
    /// The topic of alias 1 and so on.
    pub topics: Vec<Box<str>>,
}

/// How a topic is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutgoingAlias {
    None,
    /// With the topic, which it stands for from then on.
    New(u16),
    /// In the place of the topic.
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
