"""Publishes a session of a device and drops the connection, so that its last will is published: paho_session.py PORT QOS FILE

The file is JSON: client_id, will (topic, payload, retain; or null), messages (a list of topic, payload_base64, retain).
"""

import base64
import json
import socket
import sys
import threading

import paho.mqtt.client as mqtt

port, qos = int(sys.argv[1]), int(sys.argv[2])
with open(sys.argv[3], encoding="utf-8") as file:
    session = json.load(file)
connected, outcome = threading.Event(), []


def on_connect(client, userdata, flags, reason, properties):
    outcome.append(reason)
    connected.set()


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=session["client_id"], protocol=mqtt.MQTTv311)
if session["will"]:
    will = session["will"]
    client.will_set(will["topic"], will["payload"], qos, will["retain"])
client.on_connect = on_connect
client.connect("127.0.0.1", port)
client.loop_start()
assert connected.wait(30), "no CONNACK"
assert not outcome[0].is_failure, outcome[0]
for message in session["messages"]:
    payload = base64.b64decode(message["payload_base64"])
    info = client.publish(message["topic"], payload, qos, message["retain"])
    info.wait_for_publish(30)
    assert info.is_published(), "not acknowledged"
# Without DISCONNECT, as a device that loses its power.
connection = client.socket()
client.loop_stop()
connection.shutdown(socket.SHUT_RDWR)
