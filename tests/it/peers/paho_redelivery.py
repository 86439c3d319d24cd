"""Publishes through paho-mqtt, 20 in flight, across losses of the connection:
paho_redelivery.py PORT VERSION QOS CLEAN DEVICE START_MS COUNT; prints how many were acknowledged as they are."""

import json
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MessageState



class Client(mqtt.Client):
    """Where two attempts to connect follow each other, paho forgets that a message has its PUBREC, and publishes it again
    without DUP. Here it releases the message."""

    def _messages_reconnect_reset_out(self):
        # The main thread adds messages meanwhile.
        with self._out_message_mutex:
            released = [m for m in self._out_messages.values() if m.state == MessageState.MQTT_MS_RESEND_PUBREL]
            super()._messages_reconnect_reset_out()
            for message in released:
                message.state = MessageState.MQTT_MS_RESEND_PUBREL


port, version, qos, clean = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4] == "clean"
device, start, count = sys.argv[5], int(sys.argv[6]), int(sys.argv[7])
if version == "5":
    client = Client(mqtt.CallbackAPIVersion.VERSION2, client_id=device, protocol=mqtt.MQTTv5)
else:
    client = Client(
        mqtt.CallbackAPIVersion.VERSION2, client_id=device, protocol=mqtt.MQTTv311, clean_session=clean
    )
client.max_inflight_messages_set(20)
client.max_queued_messages_set(0)
client.reconnect_delay_set(1, 1)
acknowledged, done = 0, threading.Event()


def on_publish(client, userdata, mid, reason, properties):
    global acknowledged
    acknowledged += 1
    if acknowledged % 100 == 0:
        print(acknowledged, flush=True)
    if acknowledged == count:
        done.set()


client.on_publish = on_publish
client.connect("127.0.0.1", port)
client.loop_start()
for number in range(count):
    # One reading a message, no sequence number: MQTT's own identity is all there is. Without a connection paho keeps it.
    payload = {"metric": "m", "value": number, "timestamp": start + number * 10}
    client.publish(f"devices/{device}/telemetry", json.dumps(payload), qos)
    time.sleep(0.001)
assert done.wait(120), f"{acknowledged} of {count} acknowledged"
client.disconnect()
client.loop_stop()
print("done", flush=True)
