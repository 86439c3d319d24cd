"""Publishes through paho-mqtt and sees its windows: paho_peer.py PORT VERSION QOS DEVICE START_MS [tcp|websockets [CA|- [USER PASSWORD]]]"""

import json
import sys
import threading

import paho.mqtt.client as mqtt

port, version, qos, device, start = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
protocol = mqtt.MQTTv5 if version == "5" else mqtt.MQTTv311
connected, subscribed, done = threading.Event(), threading.Event(), threading.Event()
windows, outcome = [], []


def on_connect(client, userdata, flags, reason, properties):
    outcome.append(reason)
    connected.set()


def on_subscribe(client, userdata, mid, reasons, properties):
    assert all(not reason.is_failure for reason in reasons), reasons
    subscribed.set()


def on_message(client, userdata, message):
    windows.append((message.topic, json.loads(message.payload)))
    done.set()


transport = sys.argv[6] if len(sys.argv) > 6 else "tcp"
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=device, protocol=protocol, transport=transport)
if transport == "websockets":
    client.ws_set_options(path="/mqtt")
secure = len(sys.argv) > 7 and sys.argv[7] != "-"
if secure:
    client.tls_set(ca_certs=sys.argv[7])
if len(sys.argv) > 8:
    client.username_pw_set(sys.argv[8], sys.argv[9])
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
client.connect("localhost" if secure else "127.0.0.1", port)
client.loop_start()
assert connected.wait(30), "no CONNACK"
assert not outcome[0].is_failure, outcome[0]
client.subscribe(f"weir/windows/{device}/+", qos)
assert subscribed.wait(30), "no SUBACK"
for seq, offset in enumerate([0, 1000, 7000]):
    payload = {"metric": "temperature", "value": 20 + seq, "timestamp": start + offset, "seq": seq}
    info = client.publish(f"devices/{device}/telemetry", json.dumps(payload), qos)
    info.wait_for_publish(30)
    assert info.is_published(), "not acknowledged"
assert done.wait(30), "no window"
topic, window = windows[0]
assert topic == f"weir/windows/{device}/temperature", topic
assert (window["count"], window["sum"], window["window_start"]) == (2, 41.0, start), window
client.disconnect()
client.loop_stop()
