//! From an accepted socket to a session: the first packet and its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncReadExt};

use super::Version;
use super::auth::{self, Denied};
use super::broker::{Attach, Attached, Broker};
use super::close::Close;
use super::codec::{self, Accepted, Connect, ConnectError, Will};
use super::delivery::Message;
use super::frame::{self, Next};
use super::session::TOPIC_ALIAS_MAXIMUM;
use super::topic;
use crate::config::Mqtt;

/// Longest client identifier in bytes: each session keeps one. The standard asks for 23 [MQTT-3.1.3-5].
const MAX_CLIENT_ID_BYTES: usize = 256;

/// A connection that ends at its CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Label in the metric.
    pub reason: &'static str,
    /// What is sent before the socket is closed.
    pub reply: Vec<u8>,
}

impl Refusal {
    fn silent(reason: &'static str) -> Self {
        Self { reason, reply: Vec::new() }
    }

    /// With the CONNACK of the client's version; `None` where 3.1.1 has no return code and just closes.
    fn answered(reason: &'static str, version: Version, v4: Option<u8>, v5: u8) -> Self {
        let mut reply = Vec::new();
        match (version, v4) {
            (Version::V5, _) => codec::put_refusal(v5, version, &mut reply),
            (Version::V4, Some(code)) => codec::put_refusal(code, version, &mut reply),
            (Version::V4, None) => {}
        }
        Self { reason, reply }
    }
}

/// A connection that begins.
#[derive(Debug)]
pub(crate) struct Welcome {
    pub connect: Connect,
    pub attached: Attached,
    pub will: Option<Message>,
    /// The CONNACK.
    pub reply: Vec<u8>,
}

/// Reads until the first packet is complete; returns it and what already follows it. The buffer grows with what
/// arrives, not with what the length field claims.
pub(crate) async fn read_connect(
    stream: &mut (impl AsyncRead + Unpin),
    max_packet_bytes: usize,
) -> Result<(Connect, Vec<u8>), Refusal> {
    let mut bytes = Vec::with_capacity(256);
    loop {
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err(Refusal::silent("connection_lost")),
            Ok(_) => {}
        }
        if bytes[0] >> 4 != frame::CONNECT {
            return Err(Refusal::silent("not_connect")); // [MQTT-3.1.0-1]
        }
        match frame::next(&bytes, max_packet_bytes) {
            Ok(Next::Partial(_)) => {}
            Ok(Next::Frame(frame)) => {
                let connect = codec::decode_connect(&frame).map_err(refuse_packet)?;
                return Ok((connect, bytes[frame.bytes.len()..].to_vec()));
            }
            // The version is not known yet.
            Err(Close::PacketTooLarge) => return Err(Refusal::silent("packet_too_large")),
            Err(_) => return Err(Refusal::silent("malformed")),
        }
    }
}

fn refuse_packet(error: ConnectError) -> Refusal {
    match error {
        ConnectError::Malformed => Refusal::silent("malformed"),
        ConnectError::Defect => Refusal::silent("defect"),
        ConnectError::Level { newer } => {
            let version = if newer { Version::V5 } else { Version::V4 };
            Refusal::answered("protocol_version", version, Some(1), 0x84)
        }
        ConnectError::Invalid(version, code) => {
            let reason = if code == 0x82 { "protocol_error" } else { "malformed" };
            Refusal::answered(reason, version, None, code)
        }
    }
}

/// Decides about a CONNECT and gives it a session.
pub(crate) fn welcome(mut connect: Connect, broker: &Broker, config: &Mqtt) -> Result<Welcome, Refusal> {
    let version = connect.version;
    let assigned = identify(&mut connect)?;
    auth::authenticate(&connect, config.allow_anonymous).map_err(|denied| match denied {
        Denied::NotAuthorized => Refusal::answered("not_authorized", version, Some(5), 0x87),
        Denied::Method => Refusal::answered("authentication_method", version, Some(5), 0x8C),
    })?;
    let will = connect.will.take().map(|will| check_will(will, version)).transpose()?;
    let attach =
        Attach { client_id: &connect.client_id, clean: connect.clean, receive_maximum: connect.receive_maximum };
    let attached = broker.attach(&attach).map_err(|_| Refusal::answered("max_connections", version, Some(3), 0x97))?;
    let accepted = Accepted {
        session_present: attached.session_present,
        receive_maximum: config.max_inflight,
        max_packet_bytes: config.max_packet_size_bytes,
        topic_alias_maximum: TOPIC_ALIAS_MAXIMUM,
        assigned_client_id: assigned,
    };
    let mut reply = Vec::new();
    if codec::put_connack(&accepted, version, &mut reply).is_err() {
        broker.detach(&attached.handle, attached.connection, false);
        return Err(Refusal::silent("defect"));
    }
    Ok(Welcome { connect, attached, will, reply })
}

/// Checks the client identifier; makes one up where the client left it to weir, and returns it.
fn identify(connect: &mut Connect) -> Result<Option<String>, Refusal> {
    let invalid = || Refusal::answered("client_id", connect.version, Some(2), 0x85);
    if connect.client_id.is_empty() {
        // [MQTT-3.1.3-8] of 3.1.1; 5.0 tells the client its identifier, so it could come back to a kept session.
        if !connect.clean && connect.version == Version::V4 {
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

/// Unlike any before, across restarts too: a device's identity matters to deduplication.
fn new_client_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("auto-{:x}-{count:x}", now.as_nanos())
}

fn check_will(will: Will, version: Version) -> Result<Message, Refusal> {
    let Some(name) = topic::valid_name(&will.topic) else {
        return Err(Refusal::answered("will_topic", version, None, 0x90));
    };
    if topic::is_reserved(name) {
        return Err(Refusal::answered("will_topic", version, Some(5), 0x87));
    }
    let properties = will.properties.into();
    Ok(Message { properties, ..Message::new(name, will.payload.clone(), will.qos, will.retain) })
}

/// The client identifier as the journal and log lines have it.
pub(crate) fn shared_client_id(attached: &Attached) -> Arc<str> {
    Arc::clone(&attached.handle.client_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::testing::client;

    fn connect(bytes: &[u8]) -> Connect {
        let Ok(Next::Frame(frame)) = frame::next(bytes, usize::MAX) else { panic!("no packet") };
        codec::decode_connect(&frame).unwrap()
    }

    fn try_welcome(bytes: &[u8], config: &Mqtt) -> Result<Welcome, Refusal> {
        welcome(connect(bytes), &Broker::new(config, Arc::default()), config)
    }

    fn check_refused(bytes: &[u8], config: &Mqtt, reason: &str, reply: &[u8]) {
        let refusal = try_welcome(bytes, config).unwrap_err();
        assert_eq!((refusal.reason, &refusal.reply[..]), (reason, reply));
    }

    #[test]
    fn a_client_is_welcomed_in_its_version() {
        let config = Mqtt::default();
        let v4 = try_welcome(&client(Version::V4).connect("c"), &config).unwrap();
        assert_eq!(v4.reply, [0x20, 2, 0, 0]);
        let v5 = try_welcome(&client(Version::V5).connect("c"), &config).unwrap();
        assert_eq!(v5.reply[2..4], [0, 0]);
        assert_eq!(v5.reply[5..8], [0x21, 3, 232], "receive maximum 1000");
    }

    #[test]
    fn an_empty_client_id_is_assigned_or_refused() {
        let config = Mqtt::default();
        let v5 = try_welcome(&client(Version::V5).connect(""), &config).unwrap();
        let id = v5.connect.client_id;
        assert!(id.starts_with("auto-"));
        assert!(v5.reply.windows(id.len()).any(|window| window == id.as_bytes()), "the client is told");
        assert!(try_welcome(&client(Version::V4).connect(""), &config).is_ok());
        check_refused(&client(Version::V4).kept().connect(""), &config, "client_id", &[0x20, 2, 0, 2]);
        let long = "x".repeat(MAX_CLIENT_ID_BYTES + 1);
        check_refused(&client(Version::V5).connect(&long), &config, "client_id", &[0x20, 3, 0, 0x85, 0]);
    }

    #[test]
    fn a_full_server_says_so() {
        let config = Mqtt { max_connections: 0, ..Mqtt::default() };
        check_refused(&client(Version::V4).connect("c"), &config, "max_connections", &[0x20, 2, 0, 3]);
        check_refused(&client(Version::V5).connect("c"), &config, "max_connections", &[0x20, 3, 0, 0x97, 0]);
    }

    #[test]
    fn wills_are_checked() {
        let config = Mqtt::default();
        let will = |version, topic| client(version).will(topic, b"x", 0).connect("c");
        check_refused(&will(Version::V5, "a/#"), &config, "will_topic", &[0x20, 3, 0, 0x90, 0]);
        check_refused(&will(Version::V5, "weir/x"), &config, "will_topic", &[0x20, 3, 0, 0x87, 0]);
        check_refused(&will(Version::V4, "$SYS/x"), &config, "will_topic", &[0x20, 2, 0, 5]);
        assert!(try_welcome(&will(Version::V4, "gone/c"), &config).unwrap().will.is_some());
    }

    #[test]
    fn anonymous_clients_may_be_refused() {
        let config = Mqtt { allow_anonymous: false, ..Mqtt::default() };
        check_refused(&client(Version::V4).connect("c"), &config, "not_authorized", &[0x20, 2, 0, 5]);
    }

    #[test]
    fn packets_that_cannot_be_read_are_answered_where_possible() {
        let reply = |error| refuse_packet(error).reply;
        assert_eq!(reply(ConnectError::Level { newer: false }), [0x20, 2, 0, 1]);
        assert_eq!(reply(ConnectError::Level { newer: true }), [0x20, 3, 0, 0x84, 0]);
        assert_eq!(reply(ConnectError::Invalid(Version::V5, 0x82)), [0x20, 3, 0, 0x82, 0]);
        assert_eq!(reply(ConnectError::Invalid(Version::V4, 0x81)), [0_u8; 0]);
    }
}
