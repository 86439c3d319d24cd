"""Properties, expiry, retained messages and shared subscriptions through paho-mqtt: paho_properties.py PORT"""

import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

port = int(sys.argv[1])


def connect(client_id, clean=True, expiry=0):
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
    client.connected, client.answers, client.messages = queue.Queue(), queue.Queue(), queue.Queue()
    client.on_connect = lambda c, u, flags, reason, properties: c.connected.put((flags, reason))
    client.on_subscribe = lambda c, u, mid, reasons, properties: c.answers.put(reasons)
    client.on_message = lambda c, u, message: c.messages.put(message)
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = expiry
    client.connect("127.0.0.1", port, clean_start=clean, properties=properties)
    client.loop_start()
    flags, reason = client.connected.get(timeout=30)
    assert not reason.is_failure, reason
    return client, flags.session_present


def subscribe(client, topic, **options):
    properties = Properties(PacketTypes.SUBSCRIBE)
    properties.SubscriptionIdentifier = 300
    client.subscribe(topic, options=mqtt.SubscribeOptions(**options), properties=properties)
    reasons = client.answers.get(timeout=30)
    assert not any(reason.is_failure for reason in reasons), reasons


def publish(client, topic, payload, **arguments):
    info = client.publish(topic, payload, **arguments)
    info.wait_for_publish(30)
    assert info.is_published()


publisher, _ = connect("paho-publisher")
subscriber, present = connect("paho-subscriber", clean=False, expiry=60)
assert not present
subscribe(subscriber, "paho/+", qos=2)
subscriber.disconnect()
subscriber.loop_stop()

properties = Properties(PacketTypes.PUBLISH)
properties.MessageExpiryInterval = 100
properties.UserProperty = ("b", "1")
properties.UserProperty = ("a", "2")
properties.ResponseTopic = "answers"
publish(publisher, "paho/kept", "waited", qos=2, retain=True, properties=properties)
subscriber, present = connect("paho-subscriber", clean=False, expiry=60)
assert present
message = subscriber.messages.get(timeout=30)
assert message.payload == b"waited" and not message.retain, message
assert message.properties.UserProperty == [("b", "1"), ("a", "2")], message.properties
assert message.properties.SubscriptionIdentifier == [300], message.properties
assert 90 < message.properties.MessageExpiryInterval <= 100, message.properties
subscribe(subscriber, "paho/kept", qos=1)
assert subscriber.messages.get(timeout=30).retain
for client in (publisher, subscriber):
    client.disconnect()
    client.loop_stop()
