// Drives volos-analytics-apigee, unmodified, as the analytics plugin of Apigee's microgateway does: its connect
// middleware in front of every request, finalizeRecord completing the record. Its argument is the client's
// configuration as JSON, and beside it `count`, how many requests the gateway is to get.
//
// Writes each record that it hands to the client, as a line of JSON, and ends when the client has nothing left.
"use strict";

const http = require("http");
const volos = require("volos-analytics-apigee");

const PARALLEL = 16;
const { count, ...config } = JSON.parse(process.argv[2]);

// What the plugin's event handlers would have noted; whatever the gateway did not see stays undefined.
config.finalizeRecord = (req, res, record, cb) => {
  record.apiproxy = res.proxy.name;
  record.apiproxy_revision = res.proxy.revision;
  record.client_ip = req.headers["x-forwarded-for"] || record.client_ip;
  record.client_received_start_timestamp = req.times.start;
  record.client_received_end_timestamp = req.times.end;
  record.target_sent_start_timestamp = req.times.target;
  record.target_sent_end_timestamp = req.times.target + 1;
  process.stdout.write(JSON.stringify(record) + "\n");
  cb(null, record);
};

const analytics = volos.create(config);
const middleware = analytics.expressMiddleWare().apply();

const gateway = http.createServer((req, res) => {
  const number = Number(new URL(req.url, "http://gateway").searchParams.get("call"));
  const now = Date.now();
  req.times = { start: now, end: now + 1, target: number % 5 ? now + 1 : undefined };
  res.proxy = { name: number % 2 ? "edgemicro_weather" : "edgemicro_orders", revision: String(number % 3) };
  if (number % 4 === 1) {
    req.token = { client_id: "key-1", access_token: `token-${number}` };
  } else if (number % 4 === 2) {
    const names = { developer_email: "own@example.com", application_name: "own app" };
    req.token = { client_id: "key-1", ...names, api_product_list: "[own product,other]" };
  }
  middleware(req, res, () => {
    res.statusCode = number % 7 ? 200 : 404;
    res.end("{}");
  });
});

const agent = new http.Agent({ keepAlive: true, maxSockets: PARALLEL });

function call(number) {
  const headers = { "User-Agent": `Zürich "${number}"` };
  if (number % 3 === 0) headers["X-Forwarded-For"] = "198.51.100.7, 203.0.113.9";
  const path = `/v1/w%C3%A4ther?call=${number}`;
  return new Promise((resolve, reject) => {
    const options = { port: gateway.address().port, path, agent, headers };
    http.get(options, (res) => res.resume().on("end", resolve)).on("error", reject);
  });
}

async function main() {
  await new Promise((resolve) => gateway.listen(0, "127.0.0.1", resolve));
  let next = 0;
  const caller = async () => {
    while (next < count) await call(next++);
  };
  await Promise.all(Array.from({ length: PARALLEL }, caller));
  agent.destroy();
  gateway.close();
}

// The client's timer keeps no process alive. As long as it has records, those of a failed flush included, we do.
process.on("beforeExit", () => {
  if (analytics.buffer.length > 0) setTimeout(() => {}, config.flushInterval);
});

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
