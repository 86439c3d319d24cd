//! Everything that all connections share: configuration, broker, journal, metrics and access rules.

use std::sync::Arc;
use std::time::Instant;

use super::journal_appender::{IngestJournal, JournalAppender};
use super::rate::RateLimits;
use crate::access::Access;
use crate::clock::Clock;
use crate::config::{IngestConfig, MqttConfig};
use crate::core::formats::{MapSettings, Maps};
use crate::mqtt::broker::Broker;
use crate::mqtt::broker::ignored::IgnoredByMaps;
use crate::mqtt::broker::meters::MqttMeters;
use crate::mqtt::broker::unmatched::{UnmatchedTopicList, UnmatchedTopicUsage, UnmatchedTopics};
use crate::mqtt::session::timeline::Timeline;
use crate::mqtt::wire::refusal::RefusalReason;
use crate::mqtt::wire::topic::IngestTopics;
use crate::mqtt::wire::topic_suggestion::TopicSuggestions;
use crate::pipeline::map_watch::MapWatchers;
use crate::stall;
use crate::telemetry::audit::AuditActor;

/// Everything that all connections share.
#[derive(Debug)]
pub(crate) struct BrokerContext {
    pub config: MqttConfig,
    pub broker: Arc<Broker>,
    pub journal: JournalAppender,
    pub ingest: IngestTopics,
    pub meters: Arc<MqttMeters>,
    /// Topics that are no ingest topics.
    pub unmatched: UnmatchedTopics,
    /// Publishes on topics that maps ignore.
    pub ignored: IgnoredByMaps,
    /// Views of what maps do.
    pub map_watchers: MapWatchers,
    suggestions: TopicSuggestions,
    pub rates: RateLimits,
    pub access: Arc<Access>,
    timeline: Timeline,
}

impl BrokerContext {
    /// Makes the context. Publishes on the topics of `ingest` go to `journal`; `access` decides which clients may
    /// connect.
    pub fn new(
        config: &MqttConfig,
        ingest: &IngestConfig,
        journal: Arc<dyn IngestJournal>,
        access: Arc<Access>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let meters = Arc::new(MqttMeters::default());
        let maps: Vec<MapSettings> = ingest.maps_on().map(|map| map.settings.clone()).collect();
        let patterns = ingest.telemetry_topics.iter().chain(&ingest.error_topics).cloned();
        let timeline = Timeline::new(clock);
        let broker = Broker::new(config, Arc::clone(&meters), timeline.clone());
        Self {
            config: config.clone(),
            broker: Arc::new(
                broker
                    .with_tenants(access.policy().tenants.clone())
                    .with_host(&ingest.sparkplug_host_id, &access.policy().tenants),
            ),
            journal: JournalAppender::new(journal, Arc::clone(&meters)),
            ingest: IngestTopics::new(patterns, access.policy().tenants.clone())
                // The configuration refuses maps with faults.
                .with_maps(Arc::new(Maps::new(&maps).unwrap_or_default())),
            ignored: IgnoredByMaps::new(maps.into_iter().map(|map| map.name)),
            meters,
            unmatched: UnmatchedTopics::default(),
            map_watchers: MapWatchers::default(),
            suggestions: TopicSuggestions::new(ingest, access.policy().tenants.clone()),
            rates: RateLimits::new(config.rates),
            access,
            timeline,
        }
    }

    /// Adds the time of a pause of the journal to its metric, and tidies [`Access`]. Called once per second.
    pub fn measure(&self) {
        self.journal.count_pause(self.now());
        self.access.tidy();
    }

    /// The topics that are published on most and are no ingest topics, at most `most`. Without `all`, those with a subscriber
    /// are left out unless weir has a suggestion: somebody subscribes to them, so they are used as they are.
    pub fn unmatched_topics(&self, all: bool, most: usize) -> UnmatchedTopicList {
        let listed = self.unmatched.list(self.now()).into_iter().filter_map(|found| {
            let last = found.last;
            let suggestion = self.suggestions.suggest(&found.topic, last.look);
            let is_sure = suggestion.as_ref().is_some_and(|suggestion| suggestion.is_sure);
            (all || !last.has_subscribers || is_sure).then(|| UnmatchedTopicUsage {
                topic: found.topic.to_string(),
                count: found.count,
                last_seen: self.timeline.wall_ms(found.last_seen),
                payload_bytes: last.payload_bytes,
                client_id: found.client_id.to_string(),
                has_subscribers: last.has_subscribers,
                suggestion: suggestion.map(|suggestion| suggestion.sentence),
            })
        });
        let mut topics: Vec<UnmatchedTopicUsage> = listed.collect();
        let count = topics.len();
        topics.truncate(most);
        UnmatchedTopicList { topics, count }
    }

    /// Counts a connection that ends before there is a CONNECT to judge, and reports it in the audit log.
    pub fn refuse(&self, who: &AuditActor<'_>, reason: RefusalReason) {
        self.meters.refused(reason);
        self.note_refusal(who, reason, "");
    }

    /// Reports a refused connection in the audit log, unless the client left by itself or weir stops. `explanation`
    /// adds details, or is empty.
    pub fn note_refusal(&self, who: &AuditActor<'_>, reason: RefusalReason, explanation: &str) {
        if !reason.is_departure() {
            self.access.note_refusal(who, reason.as_str(), explanation);
        }
    }

    /// Present time, for deadlines and intervals.
    #[inline]
    pub fn now(&self) -> Instant {
        self.timeline.now()
    }

    /// Time until which the process stood still last; `None` where it never did.
    pub fn stalled_until(&self, now: Instant) -> Option<Instant> {
        stall::last_end(now)
    }
}
