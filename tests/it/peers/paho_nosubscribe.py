"""Subscribes where some filters are refused: paho_nosubscribe.py PORT VERSION"""

import sys
import threading

import paho.mqtt.client as mqtt

port, version = int(sys.argv[1]), sys.argv[2]
protocol = mqtt.MQTTv5 if version == "5" else mqtt.MQTTv311
connected, subscribed, got = threading.Event(), threading.Event(), threading.Event()
answers, messages, publishes = [], [], {}


def on_connect(client, userdata, flags, reason, properties):
    assert not reason.is_failure, reason
    connected.set()


def on_subscribe(client, userdata, mid, reasons, properties):
    answers.extend(reason.value for reason in reasons)
    subscribed.set()


def on_message(client, userdata, message):
    messages.append(message.topic)
    if message.topic == "TopicA/end":
        got.set()


def on_publish(client, userdata, mid, reason, properties):
    publishes[mid] = reason.value


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="nosubscribe", protocol=protocol)
client.username_pw_set("own", "secret")
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
client.on_publish = on_publish
client.connect("127.0.0.1", port)
client.loop_start()
assert connected.wait(30), "no CONNACK"
client.subscribe([("nosubscribe", 2), ("TopicA/#", 1), ("nosubscribe/x", 0), ("#", 1)])
assert subscribed.wait(30), "no SUBACK"
refused = 0x87 if version == "5" else 0x80
assert answers == [refused, 1, refused, refused], answers
for topic in ["nosubscribe", "nosubscribe/x", "TopicA/end"]:
    client.publish(topic, "x", 1).wait_for_publish(30)
assert got.wait(30), "no message"
assert messages == ["TopicA/end"], messages
client.disconnect()
client.loop_stop()
