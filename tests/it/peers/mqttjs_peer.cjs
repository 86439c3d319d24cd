// Speaks to weir through MQTT.js: mqttjs_peer.cjs MODULES PORT VERSION
const assert = require("node:assert");
const [modules, port, version] = process.argv.slice(2);
const mqtt = require(require.resolve("mqtt", { paths: [modules] }));

const protocolVersion = Number(version);
const url = `mqtt://127.0.0.1:${port}`;
const connect = (clientId, options = {}) =>
  mqtt.connectAsync(url, { clientId, protocolVersion, reconnectPeriod: 0, ...options });
const next = (client) =>
  new Promise((resolve) => client.once("message", (topic, payload, packet) => resolve({ topic, payload: payload.toString(), packet })));

async function main() {
  const subscriber = await connect("js-subscriber");
  const publisher = await connect("js-publisher");
  for (const qos of [0, 1, 2]) {
    await subscriber.subscribeAsync("js/+", { qos });
    const arrived = next(subscriber);
    await publisher.publishAsync("js/a", `qos ${qos}`, { qos });
    const message = await arrived;
    assert.deepStrictEqual([message.topic, message.payload, message.packet.qos], ["js/a", `qos ${qos}`, qos]);
  }
  await publisher.publishAsync("kept/js", "retained", { qos: 1, retain: true });
  const kept = next(subscriber);
  await subscriber.subscribeAsync("kept/js", { qos: 1 });
  assert.strictEqual((await kept).packet.retain, true);
  await publisher.publishAsync("kept/js", "", { qos: 1, retain: true });

  await subscriber.subscribeAsync("will/js", { qos: 1 });
  const mortal = await connect("js-mortal", { will: { topic: "will/js", payload: Buffer.from("gone"), qos: 1 } });
  const gone = next(subscriber);
  mortal.stream.destroy();
  assert.strictEqual((await gone).payload, "gone");

  const clean = protocolVersion === 4 ? { clean: false } : { clean: false, properties: { sessionExpiryInterval: 60 } };
  const first = await connect("js-kept", clean);
  await first.subscribeAsync("queue/js", { qos: 2 });
  await first.endAsync();
  await publisher.publishAsync("queue/js", "waited", { qos: 2 });
  const again = mqtt.connect(url, { clientId: "js-kept", protocolVersion, reconnectPeriod: 0, ...clean });
  const waited = next(again);
  const connack = await new Promise((resolve) => again.once("connect", resolve));
  assert.strictEqual(connack.sessionPresent, true);
  assert.strictEqual((await waited).payload, "waited");
  await again.endAsync();

  if (protocolVersion === 5) {
    await subscriber.subscribeAsync("props/js", { qos: 1, properties: { subscriptionIdentifier: 7 } });
    const arrived = next(subscriber);
    const properties = {
      responseTopic: "answers/js",
      correlationData: Buffer.from([1, 2]),
      contentType: "text/plain",
      payloadFormatIndicator: true,
      messageExpiryInterval: 100,
      userProperties: { unit: "bar" },
    };
    await publisher.publishAsync("props/js", "x", { qos: 1, properties });
    const got = (await arrived).packet.properties;
    assert.strictEqual(got.subscriptionIdentifier, 7);
    assert.strictEqual(got.responseTopic, "answers/js");
    assert.deepStrictEqual([...got.correlationData], [1, 2]);
    assert.strictEqual(got.userProperties.unit, "bar");
    assert.ok(got.messageExpiryInterval > 90 && got.messageExpiryInterval <= 100);

    const shared = [await connect("js-shared-1"), await connect("js-shared-2")];
    let received = 0;
    const all = new Promise((resolve) => {
      for (const member of shared) member.on("message", () => ++received === 10 && resolve());
    });
    for (const member of shared) await member.subscribeAsync("$share/js/work", { qos: 1 });
    for (let number = 0; number < 10; number++) await publisher.publishAsync("work", `${number}`, { qos: 1 });
    await all;
    for (const member of shared) await member.endAsync();
  }
  await publisher.endAsync();
  await subscriber.endAsync();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
