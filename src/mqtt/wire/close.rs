//! Why a connection ends: the reason code on the wire, the label in metrics, and what happens to the will.

/// The end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The client sent DISCONNECT; its will is discarded.
    Normal,
    /// The client sent DISCONNECT 0x04: its will is published.
    NormalWithWill,
    /// The socket ended or failed.
    Lost,
    /// Bytes that are no MQTT packet.
    Malformed,
    /// A packet without a body that claims one. The bytes after it cannot be trusted to be packets; nothing is answered.
    Unframed,
    /// A packet that the standard forbids at this point.
    Protocol,
    /// A PUBLISH topic with wildcards.
    TopicName,
    /// A topic alias that was not announced or not set.
    TopicAlias,
    /// A packet larger than the announced maximum.
    PacketTooLarge,
    /// More unacknowledged publishes than the announced receive maximum.
    ReceiveMaximum,
    /// A bound of this connection's state.
    Quota,
    /// A bound of all clients is reached, another client needs the place, and this client's user has most.
    OverQuota,
    /// A publish to a topic that clients may not use; 3.1.1 has no other answer.
    NotAuthorized,
    /// Nothing arrived for one and a half keep-alive intervals.
    KeepAlive,
    /// The same client identifier connected again.
    TakenOver,
    /// weir stops.
    ShuttingDown,
    /// The journal failed: nothing can be acknowledged any more.
    Journal,
    /// A panic in this connection's task or in a codec.
    Defect,
}

impl CloseReason {
    /// Reason code of the DISCONNECT that tells a 5.0 client, MQTT 5.0 section 3.14.2.1; `None` where none is sent.
    pub fn code(self) -> Option<u8> {
        match self {
            CloseReason::Normal | CloseReason::NormalWithWill | CloseReason::Lost | CloseReason::Unframed => None,
            // 0x90 is for topic names that are well formed [section 4.13].
            CloseReason::Malformed | CloseReason::TopicName => Some(0x81),
            CloseReason::Protocol => Some(0x82),
            CloseReason::Journal | CloseReason::Defect => Some(0x83),
            CloseReason::NotAuthorized => Some(0x87),
            CloseReason::ShuttingDown => Some(0x8B),
            CloseReason::KeepAlive => Some(0x8D),
            CloseReason::TakenOver => Some(0x8E),
            CloseReason::ReceiveMaximum => Some(0x93),
            CloseReason::TopicAlias => Some(0x94),
            CloseReason::PacketTooLarge => Some(0x95),
            CloseReason::Quota | CloseReason::OverQuota => Some(0x97),
        }
    }

    /// Label `reason` in metrics and log lines.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::Normal => "disconnect",
            CloseReason::NormalWithWill => "disconnect_with_will",
            CloseReason::Lost => "connection_lost",
            CloseReason::Malformed | CloseReason::Unframed => "malformed",
            CloseReason::Protocol => "protocol_error",
            CloseReason::TopicName => "topic_name_invalid",
            CloseReason::TopicAlias => "topic_alias_invalid",
            CloseReason::PacketTooLarge => "packet_too_large",
            CloseReason::ReceiveMaximum => "receive_maximum",
            CloseReason::Quota => "quota",
            CloseReason::OverQuota => "over_quota",
            CloseReason::NotAuthorized => "not_authorized",
            CloseReason::KeepAlive => "keep_alive",
            CloseReason::TakenOver => "taken_over",
            CloseReason::ShuttingDown => "shutting_down",
            CloseReason::Journal => "journal",
            CloseReason::Defect => "defect",
        }
    }

    /// Reason String for a client that asks for problem information (section 3.14.2.2.3).
    pub fn text(self) -> &'static str {
        match self {
            CloseReason::Malformed => "the packet cannot be read, or a name in it is not well formed",
            CloseReason::Protocol => "the packet, or a property of it, is not allowed here",
            CloseReason::TopicName => "the topic name has wildcards, or more levels than mqtt.max_topic_levels",
            CloseReason::TopicAlias => "the topic alias is 0 or above the topic alias maximum",
            CloseReason::PacketTooLarge => "the packet is larger than mqtt.max_packet_size",
            CloseReason::ReceiveMaximum => "more publishes are unacknowledged than mqtt.max_inflight",
            CloseReason::Quota => "a limit of this connection is reached",
            CloseReason::OverQuota => {
                "weir is at a limit, and your user has more than others; another client needs the room"
            }
            CloseReason::KeepAlive => "nothing arrived for one and a half times the keep-alive",
            CloseReason::TakenOver => "the same client identifier connected again",
            CloseReason::ShuttingDown => "weir stops",
            CloseReason::Journal => "weir cannot store anything any more",
            CloseReason::Defect => "a defect of weir, see its log",
            _ => self.as_str(),
        }
    }

    /// Fate of the will [MQTT-3.1.2-8], [MQTT-3.14.4-3]. When the journal has failed, weir ends, and the next start publishes the
    /// will as after a crash [section 3.1.2.5].
    pub fn will(self) -> WillEnd {
        match self {
            CloseReason::Normal => WillEnd::Discarded,
            CloseReason::Journal => WillEnd::Deferred,
            _ => WillEnd::Published,
        }
    }
}

/// What the end of a connection does to its will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WillEnd {
    /// The will is published after its delay.
    Published,
    /// The will is discarded.
    Discarded,
    /// The next start of weir publishes the will after its delay.
    Deferred,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_will_is_published_unless_the_client_said_goodbye() {
        assert_eq!(CloseReason::Normal.will(), WillEnd::Discarded);
        assert_eq!(CloseReason::Journal.will(), WillEnd::Deferred);
        for close in [
            CloseReason::NormalWithWill,
            CloseReason::Lost,
            CloseReason::Malformed,
            CloseReason::KeepAlive,
            CloseReason::ShuttingDown,
        ] {
            assert_eq!(close.will(), WillEnd::Published, "{close:?}");
        }
    }

    #[test]
    fn a_client_that_left_by_itself_is_sent_nothing() {
        for close in [CloseReason::Normal, CloseReason::NormalWithWill, CloseReason::Lost] {
            assert_eq!(close.code(), None);
        }
    }
}
