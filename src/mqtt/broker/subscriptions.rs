//! Ordinary and shared subscriptions, and the subscribers that a message goes to.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::trie::SubscriptionTrie;
use crate::mqtt::session::Session;
use crate::mqtt::session::account::Holding;
use crate::mqtt::session::delivery::DeliveryGrant;
use crate::mqtt::wire::codec::{RetainHandling, TopicSubscription};
use crate::mqtt::wire::topic;

/// One subscription of a session.
#[derive(Debug, Clone)]
pub(crate) struct Subscriber {
    pub session: Arc<Session>,
    pub qos: u8,
    no_local: bool,
    retain_as_published: bool,
    identifier: Option<u32>,
}

impl Subscriber {
    pub fn new(session: &Arc<Session>, filter: &TopicSubscription) -> Self {
        Self {
            session: Arc::clone(session),
            qos: filter.qos,
            no_local: filter.no_local,
            retain_as_published: filter.retain_as_published,
            identifier: filter.identifier,
        }
    }

    /// The filter and options of the SUBSCRIBE, without its retain handling.
    pub fn to_subscription(&self, filter: &str) -> TopicSubscription {
        TopicSubscription {
            filter: filter.to_owned(),
            qos: self.qos,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain: RetainHandling::Never,
            identifier: self.identifier,
        }
    }

    /// How a message with this QoS and RETAIN flag is sent for this subscription.
    pub fn grant(&self, qos: u8, retain: bool) -> DeliveryGrant {
        DeliveryGrant {
            qos: self.qos.min(qos),
            retain: retain && self.retain_as_published,
            identifiers: self.identifier.into_iter().collect(),
            share: None,
        }
    }
}

/// The members of one shared subscription. Never empty.
#[derive(Debug)]
struct ShareGroup {
    number: u64,
    members: Vec<Subscriber>,
    /// Number of messages delivered: decides which member is next.
    turn: AtomicUsize,
}

/// All subscriptions. Bounded by the broker.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    plain: SubscriptionTrie<Subscriber>,
    /// Shared subscriptions by their filter, which names their group.
    shared: SubscriptionTrie<Arc<str>>,
    groups: HashMap<Arc<str>, ShareGroup>,
    members: usize,
    /// Levels of all filters.
    levels: usize,
    last_group: u64,
}

impl Subscriptions {
    /// Number of subscriptions.
    pub fn len(&self) -> usize {
        self.plain.len() + self.members
    }

    /// Levels of the filters of all subscriptions.
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// Number of memberships in shared subscriptions.
    pub fn shared_len(&self) -> usize {
        self.members
    }

    /// Adds or replaces the subscription of a session to a valid filter.
    pub fn insert(&mut self, filter: &str, subscriber: Subscriber) {
        let Some((_, inner)) = topic::split_shared(filter) else {
            let session = Arc::clone(&subscriber.session);
            if self.plain.insert(filter, session.id, subscriber).is_none() {
                self.count(filter, &session);
            }
            return;
        };
        if let Some(group) = self.groups.get_mut(filter) {
            match group.members.iter_mut().find(|member| member.session.id == subscriber.session.id) {
                Some(member) => *member = subscriber,
                None => {
                    let session = Arc::clone(&subscriber.session);
                    group.members.push(subscriber);
                    self.members += 1;
                    self.count(filter, &session);
                }
            }
            return;
        }
        let name: Arc<str> = filter.into();
        self.last_group += 1;
        self.shared.insert(inner, self.last_group, Arc::clone(&name));
        let session = Arc::clone(&subscriber.session);
        let group = ShareGroup { number: self.last_group, members: vec![subscriber], turn: AtomicUsize::new(0) };
        self.groups.insert(name, group);
        self.members += 1;
        self.count(filter, &session);
    }

    /// Counts a new subscription of a session.
    fn count(&mut self, filter: &str, session: &Session) {
        let levels = topic::levels(filter);
        self.levels += levels;
        session.account.add(Holding::Subscriptions, 1);
        session.account.add(Holding::Levels, levels);
    }

    /// Counts a removed subscription of a session.
    fn discount(&mut self, filter: &str, session: &Session) {
        let levels = topic::levels(filter);
        self.levels -= levels;
        session.account.remove(Holding::Subscriptions, 1);
        session.account.remove(Holding::Levels, levels);
    }

    /// The subscription of a session to exactly this filter.
    pub fn find(&self, filter: &str, session_id: u64) -> Option<&Subscriber> {
        if topic::split_shared(filter).is_none() {
            return self.plain.get(filter, session_id);
        }
        self.groups.get(filter)?.members.iter().find(|member| member.session.id == session_id)
    }

    /// Removes the subscription of a session to exactly this filter.
    pub fn remove(&mut self, filter: &str, session_id: u64) {
        let Some((_, inner)) = topic::split_shared(filter) else {
            if let Some(removed) = self.plain.remove(filter, session_id) {
                self.discount(filter, &removed.session);
            }
            return;
        };
        let Some(group) = self.groups.get_mut(filter) else { return };
        let Some(place) = group.members.iter().position(|member| member.session.id == session_id) else { return };
        let removed = group.members.remove(place);
        if group.members.is_empty() {
            let number = group.number;
            self.groups.remove(filter);
            self.shared.remove(inner, number);
        }
        self.members -= 1;
        self.discount(filter, &removed.session);
    }

    /// Whether a message on `topic` has a subscriber.
    pub fn any(&self, topic: &str) -> bool {
        let mut found = false;
        self.plain.for_each_match(topic, &mut |_, _| found = true);
        self.shared.for_each_match(topic, &mut |_, _| found = true);
        found
    }

    /// Whether some subscription could match a topic that begins with `prefix` (which ends in `/`).
    pub fn any_below(&self, prefix: &str) -> bool {
        self.plain.len() > 0 && self.plain.may_match_below(prefix)
            || self.shared.len() > 0 && self.shared.may_match_below(prefix)
    }

    /// Subscribers of a message outside of shared subscriptions, each once: at the highest QoS that its overlapping
    /// subscriptions grant, with the identifiers of all of them [MQTT-3.3.4-2], [MQTT-3.3.4-4]. `publisher` is the session that
    /// published the message, which a No Local subscription leaves out. Adds the number of examined nodes to `touched`.
    pub fn matching(
        &self,
        topic: &str,
        qos: u8,
        retain: bool,
        publisher: u64,
        touched: &mut usize,
    ) -> Vec<(Arc<Session>, DeliveryGrant)> {
        let mut found: Vec<(&Subscriber, DeliveryGrant)> = Vec::new();
        *touched += self.plain.for_each_match(topic, &mut |id, subscriber| {
            if !(subscriber.no_local && id == publisher) {
                found.push((subscriber, subscriber.grant(qos, retain)));
            }
        });
        *touched += found.len();
        found.sort_by_key(|(subscriber, _)| subscriber.session.id);
        found.dedup_by(|(later, also), (first, grant)| {
            let same = later.session.id == first.session.id;
            if same {
                grant.qos = grant.qos.max(also.qos);
                grant.retain |= also.retain;
                grant.identifiers.append(&mut also.identifiers);
            }
            same
        });
        found.into_iter().map(|(subscriber, grant)| (Arc::clone(&subscriber.session), grant)).collect()
    }

    /// Shared subscriptions that match `topic`. Adds the number of examined nodes to `touched`.
    pub fn shares(&self, topic: &str, touched: &mut usize) -> Vec<Arc<str>> {
        let mut found = Vec::new();
        if self.members > 0 {
            *touched += self.shared.for_each_match(topic, &mut |_, share| found.push(Arc::clone(share)));
        }
        *touched += found.len();
        found
    }

    /// Members of a shared subscription in the order in which a message is offered to them: connected members in turn, then the
    /// others.
    pub fn turn(&self, share: &str) -> Vec<Subscriber> {
        let Some(group) = self.groups.get(share) else { return Vec::new() };
        let turn = group.turn.fetch_add(1, Ordering::Relaxed);
        let (mut connected, absent): (Vec<_>, Vec<_>) =
            group.members.iter().cloned().partition(|member| member.session.is_connected());
        if !connected.is_empty() {
            let len = connected.len();
            connected.rotate_left(turn % len);
        }
        connected.extend(absent);
        connected
    }
}
