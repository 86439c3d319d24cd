//! weir as a primary host of Sparkplug B: edge nodes see by a retained message whether it is there.
//!
//! The messages of a host are `spBv1.0/STATE/HOST`. An edge node that waits for a primary host looks at this topic among those that
//! it may subscribe to, so each tenant has one below its prefix.

use crate::config::Tenants;

use super::Broker;

/// Topics on which weir says whether it is there; none: it is no host.
#[derive(Debug, Default)]
pub(super) struct HostState {
    topics: Box<[Box<str>]>,
}

impl HostState {
    /// The topics of the host `host_id`, and below the prefixes of tenants. An empty `host_id` is none.
    fn new(host_id: &str, tenants: &Tenants) -> Self {
        let prefixes = std::iter::once("").chain(tenants.iter().map(|tenant| &*tenant.prefix));
        let topic = |prefix: &str| format!("{prefix}spBv1.0/STATE/{host_id}").into();
        Self { topics: prefixes.filter(|_| !host_id.is_empty()).map(topic).collect() }
    }
}

impl Broker {
    /// Makes weir the host `host_id` of Sparkplug B; an empty one makes it none.
    pub(crate) fn with_host(self, host_id: &str, tenants: &Tenants) -> Self {
        Self { host: HostState::new(host_id, tenants), ..self }
    }

    /// Whether weir says on this topic whether it is there. No client may publish there.
    pub(crate) fn is_host_state(&self, topic: &str) -> bool {
        self.host.topics.iter().any(|own| **own == *topic)
    }

    /// Says whether weir is there from now on. It does nothing where weir is no host.
    pub fn announce_host(&self, online: bool) {
        let now_ms = self.timeline.wall_ms(self.timeline.now());
        let payload = format!(r#"{{"online":{online},"timestamp":{now_ms}}}"#);
        for topic in self.host.topics.iter() {
            self.publish(topic, payload.clone().into(), 1, true);
            if !self.is_retained(topic, payload.as_bytes()) {
                tracing::warn!(
                    topic = &**topic,
                    "edge nodes cannot see whether weir is there: there is no room for the retained message; raise \
                     mqtt.max_retained_messages or mqtt.max_retained_bytes"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Quotas, Tenant};

    #[test]
    fn each_tenant_has_a_topic() {
        let tenant = Tenant {
            name: "acme".into(),
            prefix: "acme/".into(),
            users: Vec::new(),
            quotas: Quotas::default(),
            devices: None,
        };
        let tenants = Tenants::new([tenant]);
        let topics = HostState::new("weir", &tenants).topics;
        assert_eq!(
            topics.iter().map(|topic| &**topic).collect::<Vec<_>>(),
            ["spBv1.0/STATE/weir", "acme/spBv1.0/STATE/weir"]
        );
        assert!(HostState::new("", &tenants).topics.is_empty());
    }
}
