// An edge node of Eclipse Tahu with one device: sparkplug_peer.cjs MODULES PORT
//
// It is born once, and again when it is asked for its births, but not when it connects again. Its data have aliases only. Lines on
// the standard input make it send: "data VALUE" of the device, "lose" (the number of a message, without the message), "death" of the
// device, "packed VALUE" (data in a compressed payload). It prints what happens.
const [modules, port] = process.argv.slice(2);
const sparkplug = require(require.resolve("sparkplug-client", { paths: [modules] }));

const node = sparkplug.newClient({
  serverUrl: `mqtt://127.0.0.1:${port}`,
  username: "",
  password: "",
  groupId: "Plant",
  edgeNode: "Edge",
  clientId: "edge",
  keepalive: 60,
  mqttOptions: { reconnectPeriod: 200 },
});
let born = false;

function births() {
  born = true;
  const timestamp = Date.now();
  node.publishNodeBirth({
    timestamp,
    metrics: [
      { name: "Node Control/Rebirth", type: "Boolean", value: false },
      { name: "Supply", alias: 1, type: "Double", value: 24.0, timestamp },
    ],
  });
  const properties = { engUnit: { type: "String", value: "degC" } };
  node.publishDeviceBirth("Pump", {
    timestamp,
    metrics: [{ name: "Temperature", alias: 2, type: "Int32", value: -20, timestamp, properties }],
  });
  console.log("born");
}

node.on("birth", () => {
  console.log("connected");
  if (!born) births();
});
node.on("ncmd", (payload) => {
  if (payload.metrics.some((metric) => metric.name === "Node Control/Rebirth" && metric.value)) births();
});
node.on("message", (topic, payload) => console.log(topic, payload));
node.on("error", (error) => console.log("error", error.message));

require("node:readline")
  .createInterface({ input: process.stdin })
  .on("line", (line) => {
    const [what, value] = line.split(" ");
    const timestamp = Date.now();
    const payload = { timestamp, metrics: [{ alias: 2, type: "Int32", value: Number(value), timestamp }] };
    if (what === "data") node.publishDeviceData("Pump", payload);
    if (what === "packed") node.publishDeviceData("Pump", payload, { compress: true });
    if (what === "lose") node.incrementSeqNum();
    if (what === "death") node.publishDeviceDeath("Pump", { timestamp });
  });
