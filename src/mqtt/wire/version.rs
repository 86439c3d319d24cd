//! Versions of the MQTT protocol.

/// MQTT version of a connection. The protocol level of its CONNECT decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProtocolVersion {
    /// MQTT 3.1.1, protocol level 4. Clients of MQTT 3.1 (level 3) are served as 3.1.1.
    V4,
    /// MQTT 5.0, protocol level 5.
    V5,
}

impl ProtocolVersion {
    /// Name of the version, for the audit log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ProtocolVersion::V4 => "3.1.1",
            ProtocolVersion::V5 => "5.0",
        }
    }
}
