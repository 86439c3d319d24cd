//! One MQTT connection of a device: drives rumqttc's event loop, and finds the publish that an acknowledgement belongs
//! to. When to publish or reconnect is decided in `device`.
//!
//! rumqttc assigns a packet id when a request leaves its channel, in the order of the requests, and reports the id with
//! `Outgoing::Publish(pkid)`; the id is 0 for QoS 0. Every connection has a new event loop and a clean session: rumqttc
//! 0.25 replays pending publishes only for a resumed session, without the DUP flag, and its in-flight count underflows
//! when a PUBREL is replayed. The device itself publishes unacknowledged messages again, with the same payload and the
//! same `seq`, as firmware with a store of its own does.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use rumqttc::{AsyncClient, ConnectionError, Event, LastWill, MqttOptions, Outgoing, Packet, QoS};

use crate::simulator::message::Publication;
use crate::simulator::options::{FleetCredentials, FleetOptions};

const KEEP_ALIVE: Duration = Duration::from_secs(60);
const MAX_PACKET_BYTES: usize = 256 * 1024;

/// An event of a connection.
#[derive(Debug)]
pub enum LinkEvent {
    /// The broker accepted the connection.
    Connected,
    /// A publish was written to the socket.
    Written,
    /// A publish was acknowledged.
    Acknowledged(Publication),
    /// DISCONNECT was written to the socket.
    Disconnected,
    /// An event that needs no reaction.
    Other,
}

/// One MQTT connection of a device.
pub struct BrokerLink {
    client: AsyncClient,
    events: Pin<Box<dyn Stream<Item = Result<Event, ConnectionError>> + Send>>,
    qos: QoS,
    limit: usize,
    /// Publishes handed to rumqttc that have no packet id yet.
    submitted: VecDeque<Publication>,
    /// Publishes that were written and not acknowledged, with their packet ids, in the order of writing.
    unacknowledged: VecDeque<(u16, Publication)>,
}

impl BrokerLink {
    /// A connection of a device of `fleet`. The first call of [`BrokerLink::next`] opens it.
    pub fn new(fleet: &FleetOptions, client_id: &str, will: Option<Publication>) -> Self {
        let FleetOptions { address, qos, in_flight, .. } = *fleet;
        let mut options = MqttOptions::new(client_id, address.ip().to_string(), address.port());
        if let Some(FleetCredentials { user, password }) = &fleet.credentials {
            options.set_credentials(user, password);
        }
        let qos = match qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        if let Some(will) = will {
            options.set_last_will(LastWill::new(will.topic, will.payload.to_vec(), qos, will.retain));
        }
        options.set_keep_alive(KEEP_ALIVE).set_clean_session(true);
        options.set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES);
        // One more than publishes are handed over: when its in-flight window is full, rumqttc reads no further request,
        // not even a DISCONNECT. The spare slot also keeps a packet id from being assigned while it is still in use.
        options.set_inflight(in_flight + 1);
        let (client, event_loop) = AsyncClient::new(options, usize::from(in_flight) + 1);
        // A stream keeps the future of one poll until it is done. Dropping a poll half way would lose the events it
        // read.
        let events = futures_util::stream::unfold(event_loop, |mut event_loop| async move {
            let event = event_loop.poll().await;
            Some((event, event_loop))
        });
        Self {
            client,
            events: Box::pin(events),
            qos,
            limit: usize::from(in_flight),
            submitted: VecDeque::new(),
            unacknowledged: VecDeque::new(),
        }
    }

    /// Whether the connection takes one more publish.
    pub fn has_room(&self) -> bool {
        self.submitted.len() + self.unacknowledged.len() < self.limit
    }

    /// Whether all publishes were written to the socket.
    pub fn all_written(&self) -> bool {
        self.submitted.is_empty()
    }

    /// Whether all publishes were acknowledged; with QoS 0, written.
    pub fn is_idle(&self) -> bool {
        self.submitted.is_empty() && self.unacknowledged.is_empty()
    }

    /// Hands a publish to the connection, to be sent with `payload`. Call it only while [`BrokerLink::has_room`].
    ///
    /// # Errors
    /// The publish itself, when rumqttc does not take it.
    pub fn publish(&mut self, publication: Publication, payload: Vec<u8>) -> Result<(), Publication> {
        match self.client.try_publish(publication.topic.as_str(), self.qos, publication.retain, payload) {
            Ok(()) => {
                self.submitted.push_back(publication);
                Ok(())
            }
            Err(_) => Err(publication),
        }
    }

    /// Requests a DISCONNECT. [`LinkEvent::Disconnected`] follows when it is written.
    pub fn disconnect(&mut self) {
        // The channel cannot be full: it has one place more than publishes are handed over.
        let _ = self.client.try_disconnect();
    }

    /// Waits for the next event. The future may be dropped at any time without losing an event.
    ///
    /// # Errors
    /// The connection failed or ended.
    pub async fn next(&mut self) -> Result<LinkEvent, ConnectionError> {
        let event = self.events.next().await.unwrap_or(Err(ConnectionError::RequestsDone))?;
        Ok(self.interpret(event))
    }

    fn interpret(&mut self, event: Event) -> LinkEvent {
        match event {
            Event::Incoming(Packet::ConnAck(_)) => LinkEvent::Connected,
            Event::Incoming(Packet::PubAck(ack)) => self.acknowledged(ack.pkid),
            // weir sends PUBREC when the publish is on disk, so PUBREC counts as the acknowledgement of QoS 2.
            Event::Incoming(Packet::PubRec(ack)) => self.acknowledged(ack.pkid),
            Event::Outgoing(Outgoing::Publish(pkid)) => {
                if let Some(publication) = self.submitted.pop_front()
                    && pkid != 0
                {
                    self.unacknowledged.push_back((pkid, publication));
                }
                LinkEvent::Written
            }
            Event::Outgoing(Outgoing::Disconnect) => LinkEvent::Disconnected,
            _ => LinkEvent::Other,
        }
    }

    fn acknowledged(&mut self, pkid: u16) -> LinkEvent {
        // Acknowledgements come in the order of publishes, so the search ends at the front.
        match self.unacknowledged.iter().position(|(waiting, _)| *waiting == pkid) {
            Some(at) => self
                .unacknowledged
                .remove(at)
                .map_or(LinkEvent::Other, |(_, publication)| LinkEvent::Acknowledged(publication)),
            None => LinkEvent::Other,
        }
    }

    /// Drops the connection without a DISCONNECT, as a power cut does. Returns the unacknowledged publishes in their
    /// order.
    pub fn abandon(self) -> VecDeque<Publication> {
        self.unacknowledged.into_iter().map(|(_, publication)| publication).chain(self.submitted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use rumqttc::{ConnAck, ConnectReturnCode, PubAck, PubComp, PubRec};

    fn publication(seq: u64) -> Publication {
        Publication {
            topic: "t".into(),
            payload: Bytes::from_static(b"x"),
            seqs: seq..=seq,
            readings: 1,
            retain: false,
        }
    }

    fn link(qos: u8, in_flight: u16, published: u64) -> BrokerLink {
        let mut link = BrokerLink::new(
            &FleetOptions { address: "127.0.0.1:1".parse().unwrap(), qos, in_flight, ..FleetOptions::default() },
            "c",
            None,
        );
        for seq in 0..published {
            assert!(link.has_room());
            link.publish(publication(seq), b"x".to_vec()).unwrap();
        }
        link
    }

    fn acknowledged(event: LinkEvent) -> Option<u64> {
        match event {
            LinkEvent::Acknowledged(publication) => Some(*publication.seqs.start()),
            _ => None,
        }
    }

    fn written(link: &mut BrokerLink, pkid: u16) {
        assert!(matches!(link.interpret(Event::Outgoing(Outgoing::Publish(pkid))), LinkEvent::Written));
    }

    #[test]
    fn packet_ids_belong_to_publishes_in_their_order() {
        let mut link = link(1, 10, 3);
        (1..=3).for_each(|pkid| written(&mut link, pkid));
        let ack = |pkid| Event::Incoming(Packet::PubAck(PubAck { pkid }));
        assert_eq!(acknowledged(link.interpret(ack(2))), Some(1));
        assert_eq!(acknowledged(link.interpret(ack(1))), Some(0));
        assert_eq!(acknowledged(link.interpret(ack(1))), None);
        assert!(!link.is_idle());
        assert_eq!(acknowledged(link.interpret(ack(3))), Some(2));
        assert!(link.is_idle());
    }

    #[test]
    fn pubrec_is_the_promise_of_qos_2() {
        let mut link = link(2, 10, 1);
        written(&mut link, 1);
        assert_eq!(acknowledged(link.interpret(Event::Incoming(Packet::PubRec(PubRec { pkid: 1 })))), Some(0));
        assert_eq!(acknowledged(link.interpret(Event::Incoming(Packet::PubComp(PubComp { pkid: 1 })))), None);
    }

    #[test]
    fn qos_0_is_done_when_written() {
        let mut link = link(0, 10, 2);
        written(&mut link, 0);
        assert!(!link.all_written());
        written(&mut link, 0);
        assert!(link.is_idle());
    }

    #[test]
    fn what_was_not_acknowledged_comes_back_in_order() {
        let mut link = link(1, 4, 4);
        assert!(!link.has_room());
        (1..=3).for_each(|pkid| written(&mut link, pkid));
        link.interpret(Event::Incoming(Packet::PubAck(PubAck { pkid: 2 })));
        let rest: Vec<u64> = link.abandon().iter().map(|publication| *publication.seqs.start()).collect();
        assert_eq!(rest, [0, 2, 3]);
    }

    #[test]
    fn other_packets_need_no_reaction() {
        let mut link = link(1, 4, 0);
        let connack = ConnAck { session_present: false, code: ConnectReturnCode::Success };
        assert!(matches!(link.interpret(Event::Incoming(Packet::ConnAck(connack))), LinkEvent::Connected));
        assert!(matches!(link.interpret(Event::Incoming(Packet::PingResp)), LinkEvent::Other));
    }
}
