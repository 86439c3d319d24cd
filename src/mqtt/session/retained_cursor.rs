//! Progress of a new subscription through the retained messages, which are queued for it some at a time.

/// Retained messages that a subscription still gets. A message that is retained after the subscribe reaches it as an ordinary
/// message and must not come twice, hence `until`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RetainedCursor {
    /// Messages on topics after this one, in the order of topics, are still to be queued; empty: all.
    pub after: Box<str>,
    /// Number of the newest change of the retained messages that still belongs to the subscribe.
    pub until: u64,
}

impl RetainedCursor {
    /// Extends the subscription's share up to the change of `later`, after a repeated SUBSCRIBE.
    pub fn extend_to(&mut self, later: &RetainedCursor) {
        self.until = later.until;
    }
}
