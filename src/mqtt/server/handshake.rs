//! The CONNECT and its answer: checking it, giving the client a session, encoding the CONNACK.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::access::{Login, Policy};
use crate::config::MqttConfig;
use crate::mqtt::ProtocolVersion;
use crate::mqtt::broker::{AttachError, AttachRequest, AttachedSession, Broker};
use crate::mqtt::connection::protocol::TOPIC_ALIAS_MAXIMUM;
use crate::mqtt::session::message::Message;
use crate::mqtt::session::will::Will;
use crate::mqtt::wire::codec::{self, ConnackOptions, ConnectRequest};
use crate::mqtt::wire::frame;
use crate::mqtt::wire::refusal::RefusalReason;
use crate::mqtt::wire::topic::{self, IngestTopics};
use crate::telemetry::audit::{self, AuditActor, AuditEvent};

/// Longest client identifier in bytes. Each session keeps one, so it is bounded; the standard asks for 23 [MQTT-3.1.3-5].
const MAX_CLIENT_ID_BYTES: usize = 256;

/// A connection that ends at its CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectRefusal {
    /// Why the connection is refused.
    pub reason: RefusalReason,
    /// Bytes to send before the socket is closed; empty where the client is not told.
    pub reply: Vec<u8>,
}

impl ConnectRefusal {
    pub fn silent(reason: RefusalReason) -> Self {
        Self { reason, reply: Vec::new() }
    }

    /// A refusal with the CONNACK of the client's version. `v4` is `None` where 3.1.1 has no return code; the connection is then
    /// closed without an answer.
    pub fn answered(reason: RefusalReason, version: ProtocolVersion, v4: Option<u8>, v5: u8) -> Self {
        let mut reply = Vec::new();
        match (version, v4) {
            (ProtocolVersion::V5, _) => codec::put_refusal(v5, version, &mut reply),
            (ProtocolVersion::V4, Some(code)) => codec::put_refusal(code, version, &mut reply),
            (ProtocolVersion::V4, None) => {}
        }
        Self { reason, reply }
    }

    /// Adds a Reason String to a 5.0 CONNACK, unless it becomes longer than `explain_within` bytes [MQTT-3.2.2-19].
    pub fn explained(mut self, explain_within: Option<usize>) -> Self {
        let Some(text) = self.reason.text() else { return self };
        if let (Some(max), &[_, 3, flags, code, 0]) = (explain_within, &self.reply[..])
            && let Some(packet) = frame::explained(frame::CONNACK, &[flags, code], text, max)
        {
            self.reply = packet;
        }
        self
    }
}

/// A client that was accepted, with its session and its CONNACK.
#[derive(Debug)]
pub(crate) struct AcceptedConnect {
    pub connect: ConnectRequest,
    pub login: Login,
    pub attached: AttachedSession,
    pub will: Option<Arc<Will>>,
    /// Encoded CONNACK.
    pub reply: Vec<u8>,
}

/// Checks the CONNECT of a client that has logged in, and gives it a session.
///
/// # Errors
/// The client identifier or the will is not allowed, or as many clients are connected as may be.
pub(crate) fn welcome(
    mut connect: ConnectRequest,
    login: Login,
    policy: &Policy,
    broker: &Broker,
    ingest: &IngestTopics,
    config: &MqttConfig,
) -> Result<AcceptedConnect, ConnectRefusal> {
    let version = connect.version;
    let assigned = identify(&mut connect)?;
    let keep_alive_s = limit_keep_alive(&mut connect, config);
    let will =
        connect.will.take().map(|will| check_will(will, &connect, &login, policy, (broker, ingest))).transpose()?;
    let attach = AttachRequest {
        login: &login,
        policy,
        client_id: &connect.client_id,
        clean: connect.clean,
        receive_maximum: connect.receive_maximum,
        expiry_s: connect.session_expiry_s,
    };
    let attached = broker.attach(&attach).map_err(|error| {
        let reason = match error {
            AttachError::TooManyConnections => RefusalReason::MaxConnections,
            AttachError::Quota => RefusalReason::Quota,
        };
        ConnectRefusal::answered(reason, version, Some(3), 0x97)
    })?;
    attached.session.allow_aliases(attached.connection, connect.topic_alias_maximum);
    let kept_s = broker.session_expiry(connect.session_expiry_s).map_or(u32::MAX, |expiry| expiry.as_secs() as u32);
    let accepted = ConnackOptions {
        session_present: attached.session_present && !connect.is_3_1, // 3.1 has no such flag
        receive_maximum: config.max_inflight,
        max_packet_bytes: config.max_packet_size_bytes,
        topic_alias_maximum: TOPIC_ALIAS_MAXIMUM,
        assigned_client_id: assigned,
        keep_alive_s,
        session_expiry_s: (kept_s < connect.session_expiry_s).then_some(kept_s),
    };
    let mut reply = Vec::new();
    let answered = codec::put_connack(&accepted, version, &mut reply);
    // A packet larger than the client's maximum must not be sent [MQTT-3.1.2-24], and without a CONNACK the client cannot
    // go on.
    let reason = if reply.len() > connect.max_packet_bytes { Some(RefusalReason::PacketTooLarge) } else { None };
    if let Some(reason) = answered.err().map(|_| RefusalReason::Defect).or(reason) {
        broker.detach(&attached.session, attached.connection, 0, None);
        return Err(ConnectRefusal::silent(reason));
    }
    let will = will.map(|will| broker.take_will(will, &attached.session));
    Ok(AcceptedConnect { connect, login, attached, will, reply })
}

/// Limits the keep-alive of a 5.0 client to `mqtt.max_keep_alive`, and returns the Server Keep Alive to announce
/// [MQTT-3.1.2-21]. A 3.1.1 client cannot be told, so its keep-alive stays. A client without keep-alive stays without.
fn limit_keep_alive(connect: &mut ConnectRequest, config: &MqttConfig) -> Option<u16> {
    let max = u16::try_from(config.max_keep_alive_ms? / 1_000).unwrap_or(u16::MAX);
    if connect.version == ProtocolVersion::V4 || connect.keep_alive_s <= max {
        return None;
    }
    connect.keep_alive_s = max;
    Some(max)
}

/// Checks the client identifier. Where it is empty, assigns one and returns it.
fn identify(connect: &mut ConnectRequest) -> Result<Option<String>, ConnectRefusal> {
    let invalid = || ConnectRefusal::answered(RefusalReason::ClientId, connect.version, Some(2), 0x85);
    if connect.client_id.is_empty() {
        // 3.1.1 must refuse it [MQTT-3.1.3-8]. A 5.0 client learns its identifier, so it can continue its session later.
        if connect.version == ProtocolVersion::V4 && (!connect.clean || connect.is_3_1) {
            return Err(invalid());
        }
        connect.client_id = new_client_id();
        return Ok(Some(connect.client_id.clone()));
    }
    if connect.client_id.len() > MAX_CLIENT_ID_BYTES || connect.client_id.contains('\0') {
        return Err(invalid());
    }
    Ok(None)
}

/// Makes a client identifier that was never used before, across restarts too: deduplication depends on it.
fn new_client_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("auto-{:x}-{count:x}", now.as_nanos())
}

fn check_will(
    will: codec::ConnectWill,
    connect: &ConnectRequest,
    login: &Login,
    policy: &Policy,
    (broker, ingest): (&Broker, &IngestTopics),
) -> Result<Will, ConnectRefusal> {
    let version = connect.version;
    let name = topic::valid_name(&will.topic).filter(|name| topic::is_shallow(name) && broker.allows_levels(name));
    let Some(name) = name else {
        return Err(ConnectRefusal::answered(RefusalReason::WillTopic, version, None, 0x90));
    };
    if ingest.are_closed_to(name) || broker.is_host_state(name) {
        return Err(ConnectRefusal::answered(RefusalReason::WillTopic, version, Some(5), 0x87));
    }
    let client_id: Arc<str> = connect.client_id.as_str().into();
    let permissions = policy.permissions(&login.identity, Arc::clone(&client_id));
    let may_respond = will.response_topic.as_deref().is_none_or(|topic| permissions.may_request_response_on(topic));
    if !permissions.may_publish(name) || !may_respond {
        let user = login.identity.user.as_deref();
        let who = AuditActor { client_id: Some(&client_id), user, address: login.address };
        audit::record(AuditEvent::WillDenied, &who, name, "refused at its CONNECT");
        return Err(ConnectRefusal::answered(RefusalReason::WillDenied, version, Some(5), 0x87));
    }
    if !will.is_formatted {
        return Err(ConnectRefusal::answered(RefusalReason::WillPayloadFormat, version, None, 0x99)); // [section 3.1.3.2.3]
    }
    let message =
        Message { properties: will.properties.into(), ..Message::new(name, will.payload, will.qos, will.retain) };
    let (expiry_s, delay_s) = (will.expiry_s, will.delay_s);
    Ok(Will { number: 0, client_id, login: login.clone(), message, expiry_s, delay_s })
}

/// Client identifier of the session, shared without copying.
pub(crate) fn shared_client_id(attached: &AttachedSession) -> Arc<str> {
    Arc::clone(&attached.session.client_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::MapTopics;
    use crate::core::formats::{MapSettings, Maps};
    use crate::mqtt::session::timeline::Timeline;
    use crate::mqtt::testing::{self, client};
    use crate::mqtt::wire::frame::NextFrame;

    fn connect(bytes: &[u8]) -> ConnectRequest {
        let Ok(NextFrame::Frame(frame)) = frame::next(bytes, usize::MAX) else { panic!("no packet") };
        codec::decode_connect(&frame).unwrap()
    }

    fn try_welcome(bytes: &[u8], config: &MqttConfig) -> Result<AcceptedConnect, ConnectRefusal> {
        let broker = Broker::new(config, Arc::default(), Timeline::default());
        let map = MapSettings {
            name: "aws".into(),
            topics: vec!["$aws/things/{device}/shadow/update".into()],
            ..MapSettings::default()
        };
        let maps = Arc::new(Maps::new(&[map]).unwrap());
        let policy = Policy { map_topics: MapTopics(Arc::clone(&maps)), ..testing::policy().clone() };
        let ingest = IngestTopics::default().with_maps(maps);
        welcome(connect(bytes), testing::anonymous(), &policy, &broker, &ingest, config)
    }

    fn check_refused(bytes: &[u8], config: &MqttConfig, reason: RefusalReason, reply: &[u8]) {
        let refusal = try_welcome(bytes, config).unwrap_err();
        assert_eq!((refusal.reason, &refusal.reply[..]), (reason, reply));
    }

    #[test]
    fn a_client_is_welcomed_in_its_version() {
        let config = MqttConfig::default();
        let v4 = try_welcome(&client(ProtocolVersion::V4).connect("c"), &config).unwrap();
        assert_eq!(v4.reply, [0x20, 2, 0, 0]);
        let v5 = try_welcome(&client(ProtocolVersion::V5).connect("c"), &config).unwrap();
        assert_eq!(v5.reply[2..4], [0, 0]);
        assert_eq!(v5.reply[5..8], [0x21, 3, 232], "receive maximum 1000");
    }

    #[test]
    fn an_empty_client_id_is_assigned_or_refused() {
        let config = MqttConfig::default();
        let v5 = try_welcome(&client(ProtocolVersion::V5).connect(""), &config).unwrap();
        let id = v5.connect.client_id;
        assert!(id.starts_with("auto-"));
        assert!(v5.reply.windows(id.len()).any(|window| window == id.as_bytes()), "the client is told");
        assert!(try_welcome(&client(ProtocolVersion::V4).connect(""), &config).is_ok());
        check_refused(
            &client(ProtocolVersion::V4).kept().connect(""),
            &config,
            RefusalReason::ClientId,
            &[0x20, 2, 0, 2],
        );
        let long = "x".repeat(MAX_CLIENT_ID_BYTES + 1);
        check_refused(
            &client(ProtocolVersion::V5).connect(&long),
            &config,
            RefusalReason::ClientId,
            &[0x20, 3, 0, 0x85, 0],
        );
    }

    #[test]
    fn a_5_0_client_is_told_what_it_gets_instead() {
        let config =
            MqttConfig { max_keep_alive_ms: Some(60_000), max_session_expiry_ms: Some(9_000), ..MqttConfig::default() };
        let contains = |reply: &[u8], property: &[u8]| reply.windows(property.len()).any(|window| window == property);
        let v5 = try_welcome(&client(ProtocolVersion::V5).kept().keep_alive(120).connect("c"), &config).unwrap();
        assert_eq!(v5.connect.keep_alive_s, 60);
        assert!(contains(&v5.reply, &[0x13, 0, 60]) && contains(&v5.reply, &[0x11, 0, 0, 0, 9]), "{:?}", v5.reply);
        let v5 = try_welcome(&client(ProtocolVersion::V5).keep_alive(60).connect("c"), &config).unwrap();
        assert!(!contains(&v5.reply, &[0x13]) && !contains(&v5.reply, &[0x11]), "{:?}", v5.reply);
        let v4 = try_welcome(&client(ProtocolVersion::V4).keep_alive(120).connect("c"), &config).unwrap();
        assert_eq!(v4.connect.keep_alive_s, 120);
    }

    #[test]
    fn a_full_server_says_so() {
        let config = MqttConfig { max_connections: 0, ..MqttConfig::default() };
        check_refused(
            &client(ProtocolVersion::V4).connect("c"),
            &config,
            RefusalReason::MaxConnections,
            &[0x20, 2, 0, 3],
        );
        check_refused(
            &client(ProtocolVersion::V5).connect("c"),
            &config,
            RefusalReason::MaxConnections,
            &[0x20, 3, 0, 0x97, 0],
        );
    }

    #[test]
    fn a_refusal_is_explained_where_the_client_takes_it() {
        let refusal = || ConnectRefusal::answered(RefusalReason::ClientId, ProtocolVersion::V5, Some(2), 0x85);
        let text = b"the client identifier is longer than 256 bytes";
        let explained = refusal().explained(Some(100)).reply;
        assert_eq!(explained[..2], [0x20, text.len() as u8 + 6]);
        assert_eq!(explained[2..8], [0, 0x85, text.len() as u8 + 3, 0x1f, 0, text.len() as u8]);
        assert_eq!(&explained[8..], text);
        assert_eq!(refusal().explained(Some(explained.len() - 1)), refusal());
        assert_eq!(refusal().explained(None), refusal());
        let v4 = ConnectRefusal::answered(RefusalReason::ClientId, ProtocolVersion::V4, Some(2), 0x85);
        assert_eq!(v4.clone().explained(Some(100)), v4);
    }

    #[test]
    fn wills_are_checked() {
        let config = MqttConfig::default();
        let will = |version, topic| client(version).will(topic, b"x", 0).connect("c");
        check_refused(&will(ProtocolVersion::V5, "a/#"), &config, RefusalReason::WillTopic, &[0x20, 3, 0, 0x90, 0]);
        let deep = "/".repeat(201);
        check_refused(&will(ProtocolVersion::V5, &deep), &config, RefusalReason::WillTopic, &[0x20, 3, 0, 0x90, 0]);
        let flat = MqttConfig { max_topic_levels: 2, ..MqttConfig::default() };
        check_refused(&will(ProtocolVersion::V5, "a/b/c"), &flat, RefusalReason::WillTopic, &[0x20, 3, 0, 0x90, 0]);
        check_refused(&will(ProtocolVersion::V5, "weir/x"), &config, RefusalReason::WillTopic, &[0x20, 3, 0, 0x87, 0]);
        check_refused(&will(ProtocolVersion::V4, "$SYS/x"), &config, RefusalReason::WillTopic, &[0x20, 2, 0, 5]);
        check_refused(&will(ProtocolVersion::V4, "$aws/x"), &config, RefusalReason::WillTopic, &[0x20, 2, 0, 5]);
        for topic in ["gone/c", "$aws/things/c/shadow/update"] {
            assert!(try_welcome(&will(ProtocolVersion::V4, topic), &config).unwrap().will.is_some(), "{topic}");
        }
    }

    #[test]
    fn a_will_that_is_not_of_its_format_is_refused() {
        let connect = |payload: u8| {
            let body = [b"\0\x04MQTT\x05\x06\0\0\0\0\x01c\x02\x01\x01\0\x01t\0\x01", &[payload][..]].concat();
            [&[0x10, body.len() as u8][..], &body].concat()
        };
        let config = MqttConfig::default();
        check_refused(&connect(0xFF), &config, RefusalReason::WillPayloadFormat, &[0x20, 3, 0, 0x99, 0]);
        assert!(try_welcome(&connect(b'x'), &config).unwrap().will.is_some());
    }
}
