//! Quotas: bounds on what one user, or all users of a tenant together, may hold.

/// Bounds on what one user, or all users of a tenant together, may hold. `None`: no bound of its own; the bounds of `[mqtt]`
/// hold for all users together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quotas {
    /// Open connections.
    pub connections: Option<usize>,
    /// Sessions, with or without a connection.
    pub sessions: Option<usize>,
    /// Subscriptions of all sessions.
    pub subscriptions: Option<usize>,
    /// Retained messages that were published last by the user.
    pub retained_messages: Option<usize>,
    /// Bytes of these retained messages.
    pub retained_bytes: Option<usize>,
    /// Bytes of the messages that wait in all sessions or are not acknowledged. A message counts in each session that holds it.
    pub queued_bytes: Option<usize>,
    /// Publishes per second on all connections together. A faster user is read more slowly.
    pub publish_rate: Option<u32>,
}

impl Quotas {
    /// The larger value of each bound.
    #[must_use]
    pub fn largest(self, other: Self) -> Self {
        fn larger<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            one.zip(other).map(|(one, other)| one.max(other))
        }
        Self {
            connections: larger(self.connections, other.connections),
            sessions: larger(self.sessions, other.sessions),
            subscriptions: larger(self.subscriptions, other.subscriptions),
            retained_messages: larger(self.retained_messages, other.retained_messages),
            retained_bytes: larger(self.retained_bytes, other.retained_bytes),
            queued_bytes: larger(self.queued_bytes, other.queued_bytes),
            publish_rate: larger(self.publish_rate, other.publish_rate),
        }
    }
}
