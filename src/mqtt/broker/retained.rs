//! Retained messages in memory, MQTT 5.0 section 3.3.1.3. The copy on disk is `retained_store`'s.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use super::retained_store::RetainedStore;
use crate::mqtt::session::account::{Account, Holding};
use crate::mqtt::session::message::Message;
use crate::mqtt::session::retained_cursor::RetainedCursor;
use crate::mqtt::session::timeline::Timeline;
use crate::mqtt::wire::topic;
use crate::state::named_values::Mark;

/// The retained message of each topic, bounded by number and by bytes. Each belongs to the user that published it last.
#[derive(Debug)]
pub(crate) struct RetainedMessages {
    messages: BTreeMap<Box<str>, RetainedMessage>,
    /// Topics by the number of the owner's account and the number of the change: the oldest message of each owner first.
    by_owner: BTreeMap<(u64, u64), Box<str>>,
    /// Number of the newest change.
    changes: u64,
    bytes: usize,
    /// Number of messages with an expiry.
    expiring: usize,
    max_messages: usize,
    max_bytes: usize,
    kept_in: Option<(RetainedStore, Timeline)>,
}

#[derive(Debug)]
struct RetainedMessage {
    message: Arc<Message>,
    /// Number of the change that set the message.
    change: u64,
    /// User that published the message.
    owner: Arc<Account>,
}

/// What a retained message that does not fit would need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetainedBound {
    /// The owner or its tenant is at a quota.
    Quota,
    /// All users together hold `mqtt.max_retained_messages`.
    Messages,
    /// All users together hold `mqtt.max_retained_bytes`. The message needs this many bytes.
    Bytes(usize),
}

impl RetainedMessages {
    pub fn new(max_messages: usize, max_bytes: usize) -> Self {
        let (messages, by_owner) = (BTreeMap::new(), BTreeMap::new());
        Self { messages, by_owner, changes: 0, bytes: 0, expiring: 0, max_messages, max_bytes, kept_in: None }
    }

    /// Also sends changes to `store` from now on.
    pub fn keep_in(&mut self, store: RetainedStore, timeline: Timeline) {
        self.kept_in = Some((store, timeline));
    }

    /// Store of the changes; `None` without one.
    pub fn store(&self) -> Option<RetainedStore> {
        self.kept_in.as_ref().map(|(store, _)| store.clone())
    }

    /// Position of the newest change in the store; `None` without a store.
    pub fn mark(&self) -> Option<Mark> {
        self.kept_in.as_ref().map(|(store, _)| store.mark())
    }

    /// Puts up to `most` messages into the store once more, those on topics after `after` (all for `None`). Returns the last of
    /// their topics; `None` when no message is left.
    pub fn put_again(&self, after: Option<&str>, most: usize) -> Option<Box<str>> {
        let (store, timeline) = self.kept_in.as_ref()?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        for (topic, RetainedMessage { message, owner, .. }) in
            self.messages.range::<str, _>((from, Bound::Unbounded)).take(most)
        {
            store.put(message, owner.name.as_ref(), message.expires.map(|expires| timeline.wall_ms(expires)));
            last = Some(topic);
        }
        last.cloned()
    }

    /// Sets the retained message of a topic, which then belongs to `owner`. An empty payload removes it [MQTT-3.3.1-6].
    ///
    /// # Errors
    /// A bound is reached: the topic keeps its previous message.
    pub fn set(&mut self, message: &Arc<Message>, owner: &Arc<Account>) -> Result<(), RetainedBound> {
        if message.payload.is_empty() {
            self.remove(&message.topic);
            return Ok(());
        }
        let old = self.messages.get(&*message.topic);
        let old_bytes = old.map_or(0, |old| old.message.bytes());
        // What the owner of the old message holds already is not needed again.
        let is_own = old.is_some_and(|old| old.owner.number == owner.number);
        let own_bytes = if is_own { message.bytes().saturating_sub(old_bytes) } else { message.bytes() };
        if owner.full(Holding::RetainedMessages, usize::from(!is_own)).filter(|_| !is_own).is_some()
            || owner.full(Holding::RetainedBytes, own_bytes).filter(|_| own_bytes > 0).is_some()
        {
            return Err(RetainedBound::Quota);
        }
        if old.is_none() && self.messages.len() >= self.max_messages {
            return Err(RetainedBound::Messages);
        }
        let bytes = self.bytes - old_bytes + message.bytes();
        if bytes > self.max_bytes {
            return Err(RetainedBound::Bytes(message.bytes().saturating_sub(old_bytes)));
        }
        self.insert(message, owner);
        if let Some((store, timeline)) = &self.kept_in {
            let expires_ms = message.expires.map(|expires| timeline.wall_ms(expires));
            store.put(message, owner.name.as_ref(), expires_ms);
        }
        Ok(())
    }

    fn insert(&mut self, message: &Arc<Message>, owner: &Arc<Account>) {
        // A clone. It shares the payload, and its bytes are counted apart from the original's: the count of the original
        // ends when the last session has sent it.
        let copy = Arc::new(Message::clone(message));
        self.changes += 1;
        let retained = RetainedMessage { message: copy, change: self.changes, owner: Arc::clone(owner) };
        self.by_owner.insert((owner.number, self.changes), message.topic.clone());
        owner.add(Holding::RetainedMessages, 1);
        owner.add(Holding::RetainedBytes, message.bytes());
        self.bytes += message.bytes();
        self.expiring += usize::from(message.expires.is_some());
        if let Some(old) = self.messages.insert(message.topic.clone(), retained) {
            self.discount(&old);
        }
    }

    /// Counts a message that is no longer there.
    fn discount(&mut self, old: &RetainedMessage) {
        self.by_owner.remove(&(old.owner.number, old.change));
        old.owner.remove(Holding::RetainedMessages, 1);
        old.owner.remove(Holding::RetainedBytes, old.message.bytes());
        self.bytes -= old.message.bytes();
        self.expiring -= usize::from(old.message.expires.is_some());
    }

    /// Removes the oldest message of an owner; returns its topic.
    pub fn remove_oldest_of(&mut self, owner: &Account) -> Option<Box<str>> {
        let (_, topic) = self.by_owner.range((owner.number, 0)..=(owner.number, u64::MAX)).next()?;
        let topic = topic.clone();
        self.remove(&topic);
        Some(topic)
    }

    fn remove(&mut self, topic: &str) {
        let Some(old) = self.messages.remove(topic) else { return };
        self.discount(&old);
        if let Some((store, _)) = &self.kept_in {
            store.remove(topic);
        }
    }

    /// Removes expired messages; returns how many.
    pub fn expire(&mut self, now: Instant) -> usize {
        if self.expiring == 0 {
            return 0;
        }
        let messages = self.messages.values().map(|retained| &retained.message);
        let expired: Vec<Arc<Message>> = messages.filter(|message| message.is_expired(now)).map(Arc::clone).collect();
        for message in &expired {
            self.remove(&message.topic);
        }
        expired.len()
    }

    /// Whether a message with this payload is retained on `topic`.
    pub fn has(&self, topic: &str, payload: &[u8], now: Instant) -> bool {
        let retained = self.messages.get(topic).map(|retained| &retained.message);
        retained.is_some_and(|message| message.payload == payload && !message.is_expired(now))
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Bytes of all messages.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A cursor over all present messages.
    pub fn due(&self) -> RetainedCursor {
        RetainedCursor { after: Box::default(), until: self.changes }
    }

    /// Messages of `due` on topics that match `filter`, in the order of topics, without expired ones. Compares at most `most`
    /// topics (at least one).
    pub fn matching(&self, filter: &str, due: &RetainedCursor, most: usize, now: Instant) -> RetainedPage {
        let is_due = |retained: &&RetainedMessage| retained.change <= due.until && !retained.message.is_expired(now);
        let Some(wildcard) = filter.find(['+', '#']) else {
            let retained = self.messages.get(filter).filter(is_due);
            let messages = retained.map(|retained| Arc::clone(&retained.message)).into_iter().collect();
            return RetainedPage { messages, looked_at: 1, rest: None };
        };
        // "a/#" matches "a" too, so the slash before the wildcard does not belong to the common prefix.
        let prefix = filter[..wildcard].strip_suffix('/').unwrap_or(&filter[..wildcard]);
        let from = if due.after.is_empty() { Bound::Included(prefix) } else { Bound::Excluded(&*due.after) };
        let mut part = RetainedPage { messages: Vec::new(), looked_at: 0, rest: None };
        let range = self.messages.range::<str, _>((from, Bound::Unbounded));
        for (name, retained) in range.take_while(|(name, _)| name.starts_with(prefix)) {
            part.looked_at += 1;
            if topic::matches(filter, name) && is_due(&retained) {
                part.messages.push(Arc::clone(&retained.message));
            }
            if part.looked_at >= most {
                part.rest = Some(RetainedCursor { after: name.clone(), until: due.until });
                break;
            }
        }
        part
    }
}

/// Result of one step through the retained messages.
#[derive(Debug)]
pub(crate) struct RetainedPage {
    pub messages: Vec<Arc<Message>>,
    /// Number of topics that were compared with the filter.
    pub looked_at: usize,
    /// Cursor after the last compared topic; `None` when there are no more.
    pub rest: Option<RetainedCursor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_MESSAGES: usize = 1_000;
    const MAX_BYTES: usize = 1024 * 1024;

    fn message(topic: &str, payload: &'static [u8]) -> Arc<Message> {
        Arc::new(Message::new(topic, payload.into(), 1, true))
    }

    fn set(retained: &mut RetainedMessages, message: &Arc<Message>) -> bool {
        retained.set(message, &Account::of_weir()).is_ok()
    }

    fn matching(retained: &RetainedMessages, filter: &str, most: usize, now: Instant) -> Vec<Arc<Message>> {
        let (mut found, mut rest) = (Vec::new(), Some(retained.due()));
        while let Some(due) = rest {
            let part = retained.matching(filter, &due, most, now);
            assert!(part.looked_at <= most, "{filter}");
            found.extend(part.messages);
            rest = part.rest;
        }
        found
    }

    fn check(retained: &RetainedMessages, filter: &str, expected: &[&str]) {
        for most in [1, 2, 100] {
            let found = matching(retained, filter, most, Instant::now());
            let topics: Vec<_> = found.iter().map(|message| message.topic.to_string()).collect();
            assert_eq!(topics, expected, "{filter}, {most} at a time");
        }
    }

    #[test]
    fn filters_find_their_messages() {
        let mut retained = RetainedMessages::new(MAX_MESSAGES, MAX_BYTES);
        for topic in ["a", "a/b", "a/b/c", "ab", "$SYS/x", "b"] {
            assert!(set(&mut retained, &message(topic, b"x")));
        }
        check(&retained, "a/#", &["a", "a/b", "a/b/c"]);
        check(&retained, "a/+", &["a/b"]);
        check(&retained, "a/+/c", &["a/b/c"]);
        check(&retained, "#", &["a", "a/b", "a/b/c", "ab", "b"]);
        check(&retained, "$SYS/#", &["$SYS/x"]);
        check(&retained, "ab", &["ab"]);
        check(&retained, "+", &["a", "ab", "b"]);
    }

    #[test]
    fn an_empty_payload_removes() {
        let mut retained = RetainedMessages::new(MAX_MESSAGES, MAX_BYTES);
        set(&mut retained, &message("a", b"12345"));
        set(&mut retained, &message("a", b"1"));
        assert_eq!((retained.len(), retained.bytes), (1, message("a", b"1").bytes()));
        let now = Instant::now();
        let has = |topic, payload| retained.has(topic, payload, now);
        assert_eq!([has("a", b"1"), has("a", b"12345"), has("b", b"1")], [true, false, false]);
        set(&mut retained, &message("a", b""));
        assert_eq!((retained.len(), retained.bytes), (0, 0));
    }

    #[test]
    fn the_bounds_hold_and_known_topics_still_change() {
        let mut retained = RetainedMessages::new(MAX_MESSAGES, MAX_BYTES);
        for index in 0..MAX_MESSAGES {
            assert!(set(&mut retained, &message(&format!("t/{index}"), b"x")));
        }
        assert!(!set(&mut retained, &message("one/more", b"x")));
        assert!(set(&mut retained, &message("t/0", b"yy")));
        assert_eq!(retained.len(), MAX_MESSAGES);
        let large = Arc::new(Message::new("t/1", vec![0; MAX_BYTES].into(), 0, true));
        assert!(!set(&mut retained, &large));
        assert_eq!(&matching(&retained, "t/1", 10, Instant::now())[0].payload[..], b"x");
    }

    #[test]
    fn messages_go_when_their_time_is_over() {
        let now = Instant::now();
        let mut retained = RetainedMessages::new(MAX_MESSAGES, MAX_BYTES);
        let expires = Some(now + std::time::Duration::from_secs(1));
        set(&mut retained, &Arc::new(Message { expires, ..Message::new("a", "x".into(), 0, true) }));
        set(&mut retained, &message("b", b"x"));
        assert_eq!((matching(&retained, "#", 10, now).len(), retained.expire(now)), (2, 0));
        let later = now + std::time::Duration::from_secs(1);
        assert_eq!((matching(&retained, "#", 10, later).len(), retained.expire(later)), (1, 1));
        assert_eq!((retained.len(), retained.expiring, retained.bytes()), (1, 0, message("b", b"x").bytes()));
    }
}
