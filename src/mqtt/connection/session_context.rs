//! Context of one connection: its session, its client and everything that connections share.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::broker_context::BrokerContext;
use super::protocol::{ForwardedPublish, ProtocolEvent};
use super::protocol_context::ProtocolContext;
use super::publish_decision::{PublishDecision, decide_publish};
use crate::access::Login;
use crate::mqtt::ProtocolVersion;
use crate::mqtt::broker::DeliveryReport;
use crate::mqtt::broker::unmatched::UnmatchedRun;
use crate::mqtt::session::message::{HeldBytes, Message};
use crate::mqtt::session::{ConnectionId, Session};
use crate::mqtt::wire::close::CloseReason;
use crate::mqtt::wire::codec::{self, SubscribeOutcome, TopicSubscription};
use crate::mqtt::wire::frame;
use crate::telemetry::audit::{self, AuditActor, AuditEvent};

/// Context of one connection's [`Protocol`](super::protocol::Protocol): the broker, the session and its client.
pub(crate) struct SessionContext<'a> {
    /// Everything that connections share.
    pub shared: &'a BrokerContext,
    /// Session that the connection serves.
    pub session: &'a Arc<Session>,
    /// Number of the connection.
    pub id: ConnectionId,
    /// Login of the client.
    pub login: &'a Login,
}

impl ProtocolContext for SessionContext<'_> {
    fn allows_levels(&self, topic: &str) -> bool {
        self.shared.broker.allows_levels(topic)
    }
    fn is_ingest(&self, topic: &str) -> bool {
        self.shared.ingest.contains(topic)
    }
    fn ignoring_map(&self, topic: &str) -> Option<u16> {
        self.shared.ingest.ignoring_map(topic)
    }
    fn is_reserved(&self, topic: &str) -> bool {
        self.shared.ingest.are_closed_to(topic) || self.shared.broker.is_host_state(topic)
    }
    fn decide_publish(&self, topic: &str) -> Result<PublishDecision, CloseReason> {
        let state = self.session.own(self.id).ok_or_else(|| self.session.lost(self.id))?;
        Ok(decide_publish(&state.permissions, topic, &self.shared.ingest))
    }
    fn may_request_response_on(&self, topic: &str) -> Result<bool, CloseReason> {
        let state = self.session.own(self.id).ok_or_else(|| self.session.lost(self.id))?;
        Ok(state.permissions.may_request_response_on(topic))
    }
    fn note_denied(&self, topic: &str) {
        audit::record(AuditEvent::PublishDenied, &self.who(), topic, "");
    }
    fn note_unmatched(&self, runs: &mut dyn Iterator<Item = (&str, UnmatchedRun)>) {
        self.shared.unmatched.note(runs, &self.session.client_id, self.shared.now());
    }
    fn note_ignored(&self, map: u16, count: u64) {
        self.shared.ignored.note(map, count);
    }
    #[inline]
    fn show_unjournaled(&self, topic: &str, payload: &[u8], ignoring: Option<u16>) {
        if self.shared.map_watchers.are_open() {
            let ignoring = ignoring.and_then(|map| self.shared.ignored.name(map));
            self.shared.map_watchers.show_unjournaled(topic, &self.session.client_id, payload, ignoring);
        }
    }
    #[inline]
    fn subscriptions_version(&self) -> u64 {
        self.shared.broker.version()
    }
    fn has_subscribers(&self, topic: &str) -> bool {
        self.shared.broker.has_subscribers(topic)
    }
    fn is_retained(&self, topic: &str, payload: &[u8]) -> bool {
        self.shared.broker.is_retained(topic, payload)
    }
    fn holds(&self, packet_id: u16) -> bool {
        self.session.holds(self.id, packet_id)
    }
}

impl SessionContext<'_> {
    /// Carries out an event of the protocol. Answers to the client are appended to `out`. The report says how many
    /// subscriptions and queues were examined: other connections wait for their turn meanwhile.
    ///
    /// # Errors
    /// The client's acknowledgement does not fit the message that it names (a protocol error), or an answer could not
    /// be encoded.
    pub fn carry_out(
        &self,
        event: ProtocolEvent<'_>,
        version: ProtocolVersion,
        out: &mut Vec<u8>,
    ) -> Result<DeliveryReport, CloseReason> {
        let examined = |touched| DeliveryReport { touched, ..DeliveryReport::default() };
        match event {
            ProtocolEvent::None => Ok(examined(0)),
            ProtocolEvent::Forward(forward) => {
                Ok(self.shared.broker.deliver(&self.message(&forward), &self.session.account))
            }
            ProtocolEvent::Acknowledged { kind, packet_id, reason } => {
                if self.session.acknowledge(self.id, kind, packet_id, reason)? {
                    frame::put_ack(frame::PUBREL, packet_id, 0, version, out);
                }
                Ok(examined(0))
            }
            ProtocolEvent::Release { packet_id } => {
                // The session does not hold an identifier that was released before. The exchange is complete either
                // way.
                self.session.release(self.id, packet_id);
                frame::put_ack(frame::PUBCOMP, packet_id, 0, version, out);
                Ok(examined(0))
            }
            ProtocolEvent::Subscribe(subscribe) => {
                let outcomes: Vec<_> = subscribe.filters.iter().map(|filter| self.subscribe(filter)).collect();
                codec::put_suback(subscribe.packet_id, &outcomes, version, out)?;
                Ok(examined(outcomes.len()))
            }
            ProtocolEvent::Unsubscribe { packet_id, filters } => {
                let end = |filter: &String| self.shared.broker.unsubscribe(self.session, self.id, filter);
                let existed: Vec<bool> = filters.iter().map(end).collect();
                codec::put_unsuback(packet_id, &existed, version, out)?;
                Ok(examined(existed.len()))
            }
        }
    }

    fn subscribe(&self, filter: &TopicSubscription) -> SubscribeOutcome {
        let outcome = self.shared.broker.subscribe(self.session, self.id, filter);
        if outcome == SubscribeOutcome::NotAuthorized {
            audit::record(AuditEvent::SubscribeDenied, &self.who(), &filter.filter, "");
        }
        outcome
    }

    fn who(&self) -> AuditActor<'_> {
        AuditActor {
            client_id: Some(&self.session.client_id),
            user: self.session.user.as_deref(),
            address: self.login.address,
        }
    }

    fn message(&self, forward: &ForwardedPublish<'_>) -> Arc<Message> {
        let life = forward.properties.expiry_s.map(|seconds| Duration::from_secs(u64::from(seconds)));
        Arc::new(Message {
            topic: forward.topic.into(),
            payload: Bytes::copy_from_slice(forward.payload),
            properties: forward.properties.to_forwarded().into(),
            qos: forward.qos,
            retain: forward.retain,
            publisher: self.session.id,
            expires: life.map(|life| self.shared.now() + life),
            held: HeldBytes::default(),
        })
    }
}
