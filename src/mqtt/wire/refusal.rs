//! Reasons for which a connection ends at its CONNECT or before it. An accepted connection ends for a
//! [`CloseReason`](super::close::CloseReason).

use crate::access::LoginError;

/// The reason for which a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalReason {
    /// The socket ended or failed before the CONNECT was complete.
    ConnectionLost,
    /// weir starts or stops.
    ShuttingDown,
    /// No complete CONNECT came within `mqtt.connect_timeout`.
    ConnectTimeout,
    /// The connection had not sent its CONNECT, and a newer connection needed its place.
    TooManyWaiting,
    /// `mqtt.max_connections` is reached.
    MaxConnections,
    /// A quota of the user or its tenant is reached.
    Quota,
    /// `mqtt.max_connections_per_address` is reached.
    MaxConnectionsPerAddress,
    /// The TLS handshake failed.
    TlsHandshake,
    /// The first packet is not a CONNECT.
    NotConnect,
    /// The first bytes are no MQTT packet.
    Malformed,
    /// The CONNECT, or its CONNACK, is larger than allowed.
    PacketTooLarge,
    /// The CONNECT has no will and is larger than `mqtt.max_connect_size`.
    ConnectTooLarge,
    /// Clients that have not logged in hold `limits.pending_bytes`, and this one gives way.
    PendingBytes,
    /// A protocol level that weir does not speak.
    ProtocolVersion,
    /// The CONNECT breaks a rule of its version.
    ProtocolError,
    /// The client asks for enhanced authentication.
    AuthenticationMethod,
    /// The login was refused.
    Login(LoginError),
    /// The client identifier is missing or not allowed.
    ClientId,
    /// The topic of the will is not allowed.
    WillTopic,
    /// The access rules deny the topic of the will.
    WillDenied,
    /// The payload of the will is said to be UTF-8 and is not.
    WillPayloadFormat,
    /// A panic in a codec.
    Defect,
}

impl RefusalReason {
    /// Label `reason` in metrics, log lines and audit events.
    pub fn as_str(self) -> &'static str {
        match self {
            RefusalReason::ConnectionLost => "connection_lost",
            RefusalReason::ShuttingDown => "shutting_down",
            RefusalReason::ConnectTimeout => "connect_timeout",
            RefusalReason::TooManyWaiting => "too_many_waiting",
            RefusalReason::MaxConnections => "max_connections",
            RefusalReason::Quota => "quota",
            RefusalReason::MaxConnectionsPerAddress => "max_connections_per_address",
            RefusalReason::TlsHandshake => "tls_handshake",
            RefusalReason::NotConnect => "not_connect",
            RefusalReason::Malformed => "malformed",
            RefusalReason::PacketTooLarge => "packet_too_large",
            RefusalReason::ConnectTooLarge => "connect_too_large",
            RefusalReason::PendingBytes => "pending_bytes",
            RefusalReason::ProtocolVersion => "protocol_version",
            RefusalReason::ProtocolError => "protocol_error",
            RefusalReason::AuthenticationMethod => "authentication_method",
            RefusalReason::Login(error) => error.as_str(),
            RefusalReason::ClientId => "client_id",
            RefusalReason::WillTopic => "will_topic",
            RefusalReason::WillDenied => "will_denied",
            RefusalReason::WillPayloadFormat => "will_payload_format",
            RefusalReason::Defect => "defect",
        }
    }

    /// Whether the client left by itself or weir stops: the audit log does not report such an end.
    pub fn is_departure(self) -> bool {
        matches!(self, RefusalReason::ConnectionLost | RefusalReason::ShuttingDown)
    }

    /// Reason String for a client that asks for problem information (section 3.2.2.3.9); `None` where the reason code says
    /// enough.
    pub fn text(self) -> Option<&'static str> {
        match self {
            RefusalReason::AuthenticationMethod => Some("enhanced authentication is not offered"),
            RefusalReason::ClientId => Some("the client identifier is longer than 256 bytes"),
            RefusalReason::ConnectTooLarge => Some("a CONNECT without a will may have mqtt.max_connect_size bytes"),
            RefusalReason::MaxConnections => Some("as many clients are connected as mqtt.max_connections allows"),
            RefusalReason::Quota => Some("your user, or its tenant, has as many connections or sessions as it may"),
            RefusalReason::WillPayloadFormat => Some("the payload of the will is said to be UTF-8, which it is not"),
            RefusalReason::WillTopic => Some(
                "the topic of the will is no topic name, has more levels than mqtt.max_topic_levels, or is weir's own",
            ),
            _ => None,
        }
    }
}
