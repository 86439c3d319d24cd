//! What lies around a session: the broker, the journal's topics, the part of the session that outlives the connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ingest::{Gate, Journal};
use super::permission::{self, Verdict};
use super::protocol::{Event, Forward, Surroundings};
use super::rate::RateLimits;
use crate::access::{Access, Login};
use crate::clock::Clock;
use crate::config::{IngestConfig, MqttConfig};
use crate::mqtt::Version;
use crate::mqtt::broker::Broker;
use crate::mqtt::broker::meters::Meters;
use crate::mqtt::session::message::{Held, Message};
use crate::mqtt::session::timeline::Timeline;
use crate::mqtt::session::{ConnectionId, Handle};
use crate::mqtt::wire::close::Close;
use crate::mqtt::wire::codec::{self, Filter, SubscribeOutcome};
use crate::mqtt::wire::frame;
use crate::mqtt::wire::topic::IngestTopics;
use crate::telemetry::audit::{self, AuditActor, AuditEvent};

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Door {
    pub config: MqttConfig,
    pub broker: Arc<Broker>,
    pub gate: Gate,
    pub ingest: IngestTopics,
    pub meters: Arc<Meters>,
    pub rates: RateLimits,
    pub access: Arc<Access>,
    timeline: Timeline,
}

impl Door {
    /// Publishes on the topics of `ingest` will go to `journal`; `access` says who is let in.
    pub fn new(
        config: &MqttConfig,
        ingest: &IngestConfig,
        journal: Arc<dyn Journal>,
        access: Arc<Access>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let meters = Arc::new(Meters::default());
        let patterns = ingest.telemetry_topics.iter().chain(&ingest.error_topics).cloned();
        let timeline = Timeline::new(clock);
        Self {
            config: config.clone(),
            broker: Arc::new(Broker::new(config, Arc::clone(&meters), timeline.clone())),
            gate: Gate::new(journal, Arc::clone(&meters)),
            ingest: IngestTopics::new(patterns),
            meters,
            rates: RateLimits::new(config.rates),
            access,
            timeline,
        }
    }

    /// What is to be done once per second.
    pub fn measure(&self) {
        self.gate.count_pause(self.now());
        self.access.tidy();
    }

    /// A connection ends before there was a CONNECT to judge: it is counted, and told in the audit log.
    pub fn refuse(&self, who: &AuditActor<'_>, reason: &'static str) {
        self.meters.refused(reason);
        self.note_refusal(who, reason, "");
    }

    /// Tells of a refusal in the audit log, unless the client left by itself or weir stops. `explanation` is what more is
    /// known, or nothing.
    pub fn note_refusal(&self, who: &AuditActor<'_>, reason: &'static str, explanation: &str) {
        if !matches!(reason, "connection_lost" | "shutting_down") {
            self.access.note_refusal(who, reason, explanation);
        }
    }

    /// Now, for deadlines and intervals.
    #[inline]
    pub fn now(&self) -> Instant {
        self.timeline.now()
    }
}

/// The world as the session sees it.
pub(crate) struct Around<'a> {
    pub door: &'a Door,
    pub handle: &'a Arc<Handle>,
    pub id: ConnectionId,
    /// Who the client is.
    pub login: &'a Login,
}

impl Surroundings for Around<'_> {
    fn allows_levels(&self, topic: &str) -> bool {
        self.door.broker.allows_levels(topic)
    }
    fn is_ingest(&self, topic: &str) -> bool {
        self.door.ingest.contains(topic)
    }
    fn judge_publish(&self, topic: &str) -> Result<Verdict, Close> {
        let kept = self.handle.own(self.id).ok_or_else(|| self.handle.lost(self.id))?;
        Ok(permission::judge_publish(&kept.permissions, topic, &self.door.ingest))
    }
    fn note_denied(&self, topic: &str) {
        audit::record(AuditEvent::PublishDenied, &self.who(), topic, "");
    }
    #[inline]
    fn subscriptions_version(&self) -> u64 {
        self.door.broker.version()
    }
    fn has_subscribers(&self, topic: &str) -> bool {
        self.door.broker.has_subscribers(topic)
    }
    fn holds(&self, packet_id: u16) -> bool {
        self.handle.holds(self.id, packet_id)
    }
}

impl Around<'_> {
    /// Does what the session asks for; answers go to `out`. Returns how many subscriptions and queues were looked at
    /// for it: others wait for their turn meanwhile.
    pub fn carry_out(&self, event: Event<'_>, version: Version, out: &mut Vec<u8>) -> Result<usize, Close> {
        match event {
            Event::None => Ok(0),
            Event::Forward(forward) => Ok(self.door.broker.deliver(&self.message(&forward))),
            Event::Acknowledged { kind, packet_id, reason } => {
                if self.handle.acknowledge(self.id, kind, packet_id, reason)? {
                    frame::put_ack(frame::PUBREL, packet_id, 0, version, out);
                }
                Ok(0)
            }
            Event::Release { packet_id } => {
                // An id that is not held was released before: the exchange is complete either way.
                self.handle.release(self.id, packet_id);
                frame::put_ack(frame::PUBCOMP, packet_id, 0, version, out);
                Ok(0)
            }
            Event::Subscribe(subscribe) => {
                let outcomes: Vec<_> = subscribe.filters.iter().map(|filter| self.subscribe(filter)).collect();
                codec::put_suback(subscribe.packet_id, &outcomes, version, out)?;
                Ok(outcomes.len())
            }
            Event::Unsubscribe { packet_id, filters } => {
                let end = |filter: &String| self.door.broker.unsubscribe(self.handle, self.id, filter);
                let existed: Vec<bool> = filters.iter().map(end).collect();
                codec::put_unsuback(packet_id, &existed, version, out)?;
                Ok(existed.len())
            }
        }
    }

    fn subscribe(&self, filter: &Filter) -> SubscribeOutcome {
        let outcome = self.door.broker.subscribe(self.handle, self.id, filter);
        if outcome == SubscribeOutcome::NotAuthorized {
            audit::record(AuditEvent::SubscribeDenied, &self.who(), &filter.filter, "");
        }
        outcome
    }

    fn who(&self) -> AuditActor<'_> {
        AuditActor {
            client_id: Some(&self.handle.client_id),
            user: self.handle.user.as_deref(),
            address: self.login.address,
        }
    }

    fn message(&self, forward: &Forward<'_>) -> Arc<Message> {
        let life = forward.properties.expiry_s.map(|seconds| Duration::from_secs(u64::from(seconds)));
        Arc::new(Message {
            topic: forward.topic.into(),
            payload: Bytes::copy_from_slice(forward.payload),
            properties: forward.properties.to_forwarded().into(),
            qos: forward.qos,
            retain: forward.retain,
            publisher: self.handle.id,
            expires: life.map(|life| self.door.now() + life),
            held: Held::default(),
        })
    }
}
