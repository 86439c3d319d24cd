//! weir as a primary host of Sparkplug B: edge nodes see by a retained message whether it is there.
//!
//! The messages of a host are `spBv1.0/STATE/HOST`, in JSON; in version 2.2 of the standard they were `STATE/HOST`, a word. weir keeps
//! both, for edge nodes of both versions. An edge node that waits for a primary host looks at this topic among those that it may
//! subscribe to, so each tenant has them below its prefix.

use crate::config::Tenants;

use super::Broker;

/// Topics on which weir says whether it is there; none: it is no host.
#[derive(Debug, Default)]
pub(super) struct HostState {
    topics: Box<[HostTopic]>,
}

#[derive(Debug, PartialEq, Eq)]
struct HostTopic {
    topic: Box<str>,
    form: StateForm,
}

/// How a host says whether it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StateForm {
    /// JSON with the time: version 3.0.
    Json,
    /// One word: version 2.2.
    Word,
}

impl StateForm {
    fn payload(self, online: bool, now_ms: i64) -> String {
        match self {
            Self::Json => format!(r#"{{"online":{online},"timestamp":{now_ms}}}"#),
            Self::Word if online => "ONLINE".into(),
            Self::Word => "OFFLINE".into(),
        }
    }
}

impl HostState {
    /// The topics of the host `host_id`, and below the prefixes of tenants. An empty `host_id` is none.
    fn new(host_id: &str, tenants: &Tenants) -> Self {
        let prefixes = std::iter::once("").chain(tenants.iter().map(|tenant| &*tenant.prefix));
        let topics = |prefix: &str| {
            [("spBv1.0/STATE", StateForm::Json), ("STATE", StateForm::Word)]
                .map(|(levels, form)| HostTopic { topic: format!("{prefix}{levels}/{host_id}").into(), form })
        };
        Self { topics: prefixes.filter(|_| !host_id.is_empty()).flat_map(topics).collect() }
    }
}

impl Broker {
    /// Makes weir the host `host_id` of Sparkplug B; an empty one makes it none.
    pub(crate) fn with_host(self, host_id: &str, tenants: &Tenants) -> Self {
        Self { host: HostState::new(host_id, tenants), ..self }
    }

    /// Whether weir says on this topic whether it is there. No client may publish there.
    pub(crate) fn is_host_state(&self, topic: &str) -> bool {
        self.host.topics.iter().any(|own| *own.topic == *topic)
    }

    /// Says whether weir is there from now on. It does nothing where weir is no host.
    pub fn announce_host(&self, online: bool) {
        let now_ms = self.timeline.wall_ms(self.timeline.now());
        for HostTopic { topic, form } in self.host.topics.iter() {
            let payload = form.payload(online, now_ms);
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
    fn each_tenant_has_its_topics() {
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
            topics.iter().map(|own| (&*own.topic, own.form)).collect::<Vec<_>>(),
            [
                ("spBv1.0/STATE/weir", StateForm::Json),
                ("STATE/weir", StateForm::Word),
                ("acme/spBv1.0/STATE/weir", StateForm::Json),
                ("acme/STATE/weir", StateForm::Word),
            ]
        );
        assert!(HostState::new("", &tenants).topics.is_empty());
    }
}
