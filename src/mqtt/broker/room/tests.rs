//! Whatever one user does, the absent session of another user, its queue and its retained message stay.

use std::collections::BTreeMap;
use std::time::Instant;

use proptest::prelude::*;

use super::super::{AttachError, AttachRequest, AttachedSession, Broker};
use crate::access::{Identity, Login};
use crate::config::{MqttConfig, Quotas, Tenant, Tenants};
use crate::mqtt::ProtocolVersion;
use crate::mqtt::session::message::Message;
use crate::mqtt::session::timeline::Timeline;
use crate::mqtt::testing::{SentPacket, attaching, packets};
use crate::mqtt::wire::codec::{RetainHandling, TopicSubscription};
use crate::sync::lock;

const MAX_CONNECTIONS: usize = 6;

fn broker() -> Broker {
    let config = MqttConfig {
        max_connections: MAX_CONNECTIONS,
        max_retained_messages: 5,
        max_retained_bytes: 2_000,
        max_queued_bytes_total: 6_000,
        ..MqttConfig::default()
    };
    let crowd = Tenant {
        name: "crowd".into(),
        prefix: "crowd/".into(),
        users: vec!["crowd.*".into()],
        quotas: Quotas::default(),
        devices: None,
    };
    Broker::new(&config, Default::default(), Timeline::default()).with_tenants(Tenants::new([crowd]))
}

fn login(user: &str) -> Login {
    let identity = Identity { user: Some(user.into()), roles: std::sync::Arc::new(["bridge".into()]) };
    Login { identity, ..Login::default() }
}

fn attach(broker: &Broker, user: &str, client_id: &str) -> Result<AttachedSession, AttachError> {
    broker.attach(&AttachRequest { login: &login(user), clean: false, ..attaching(client_id) })
}

fn subscribe(broker: &Broker, to: &AttachedSession, filter: &str) {
    let filter = TopicSubscription {
        filter: filter.into(),
        qos: 1,
        no_local: false,
        retain_as_published: false,
        retain: RetainHandling::Never,
        identifier: None,
    };
    broker.subscribe(&to.session, to.connection, &filter);
}

fn publish(broker: &Broker, user: &str, topic: &str, bytes: usize, retain: bool) -> bool {
    let message = std::sync::Arc::new(Message::new(topic, vec![b'x'; bytes].into(), 1, retain));
    !broker.deliver(&message, &broker.accounts.of(Some(&user.into()))).over_quota
}

fn leave(broker: &Broker, attached: &AttachedSession, expiry_s: u32) {
    broker.detach(&attached.session, attached.connection, expiry_s, None);
}

/// One step of the load.
#[derive(Debug, Clone)]
enum LoadStep {
    Connect { user: usize, client: usize },
    Leave { user: usize, client: usize, lasting: bool },
    Publish { user: usize, client: usize, bytes: usize },
    Retain { user: usize, topic: usize, bytes: usize },
}

fn step() -> impl Strategy<Value = LoadStep> {
    let (user, client) = (0..3_usize, 0..8_usize);
    prop_oneof![
        4 => (user.clone(), client.clone()).prop_map(|(user, client)| LoadStep::Connect { user, client }),
        3 => (user.clone(), client.clone(), any::<bool>())
            .prop_map(|(user, client, lasting)| LoadStep::Leave { user, client, lasting }),
        4 => (user.clone(), client, 0..900_usize)
            .prop_map(|(user, client, bytes)| LoadStep::Publish { user, client, bytes }),
        3 => (user, 0..8_usize, 1..900_usize).prop_map(|(user, topic, bytes)| LoadStep::Retain { user, topic, bytes }),
    ]
}

/// Carries out the load of these users, and ends connections that were pushed out, as their tasks do.
fn carry_out(broker: &Broker, users: &[&str], steps: &[LoadStep]) {
    let mut open: BTreeMap<(usize, usize), AttachedSession> = BTreeMap::new();
    for step in steps {
        match *step {
            LoadStep::Connect { user, client } => {
                let user = user % users.len();
                if let Ok(attached) = attach(broker, users[user], &format!("c{client}")) {
                    subscribe(broker, &attached, &format!("fill/{user}/{client}"));
                    open.insert((user, client), attached);
                }
            }
            LoadStep::Leave { user, client, lasting } => {
                if let Some(attached) = open.remove(&(user % users.len(), client)) {
                    leave(broker, &attached, if lasting { 60 } else { 0 });
                }
            }
            LoadStep::Publish { user, client, bytes } => {
                let user = user % users.len();
                publish(broker, users[user], &format!("fill/{user}/{client}"), bytes, false);
            }
            LoadStep::Retain { user, topic, bytes } => {
                let user = user % users.len();
                publish(broker, users[user], &format!("kept/{user}/{topic}"), bytes, true);
            }
        }
        open.retain(|_, attached| {
            let stays = !attached.session.is_revoked(attached.connection);
            if !stays {
                leave(broker, attached, 60);
            }
            stays
        });
        let stats = broker.stats();
        assert!(stats.connections <= MAX_CONNECTIONS && stats.sessions <= MAX_CONNECTIONS, "{stats:?}");
        assert!(stats.retained <= 5 && stats.retained_bytes <= 2_000, "{stats:?}");
        assert!(stats.held_bytes <= 12_000 + 1_200, "{stats:?}");
    }
}

fn received(attached: &AttachedSession) -> usize {
    let mut out = Vec::new();
    attached.session.write(attached.connection, ProtocolVersion::V4, usize::MAX, usize::MAX, Instant::now, &mut out);
    packets(&out, ProtocolVersion::V4).iter().filter(|packet| matches!(packet, SentPacket::Publish { .. })).count()
}

/// The absent user's session, queue and retained message before and after the load of `users`.
fn check(users: &[&str], steps: &[LoadStep]) {
    let broker = broker();
    let absent = attach(&broker, "absent", "absent").unwrap();
    subscribe(&broker, &absent, "commands");
    leave(&broker, &absent, 60);
    assert!(publish(&broker, "absent", "mine", 10, true));
    for _ in 0..3 {
        assert!(publish(&broker, "operator", "commands", 10, false));
    }
    carry_out(&broker, users, steps);
    for _ in 0..2 {
        assert!(publish(&broker, "operator", "commands", 10, false), "there is room for the light user");
    }
    let back = attach(&broker, "absent", "absent").unwrap();
    assert!(back.session_present, "the session is gone");
    assert_eq!(received(&back), 5, "messages are missing");
    let due = lock(&broker.retained).due();
    assert_eq!(lock(&broker.retained).matching("mine", &due, 10, Instant::now()).messages.len(), 1);
}

proptest! {
    #[test]
    fn no_load_of_one_user_harms_another(steps in proptest::collection::vec(step(), 0..80)) {
        check(&["heavy"], &steps);
    }

    #[test]
    fn no_load_of_one_tenant_harms_another(steps in proptest::collection::vec(step(), 0..80)) {
        check(&["crowd.a", "crowd.b", "crowd.c"], &steps);
    }
}
