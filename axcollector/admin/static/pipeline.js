// What readiness needs, and the way of the data: each station with what lies there, and how long the oldest has.

import { byId, element, list, setAttribute, setText } from "./dom.js";
import { ago, bytes, count, seconds, short } from "./format.js";

const EMPTY = { buckets: 0, bytes: 0, oldest_at: null };

function stages(status) {
  const found = Object.fromEntries(status.stages.map((stage) => [stage.name, stage]));
  return (name) => found[name] ?? EMPTY;
}

function lying(stage, noun, now) {
  const oldest = stage.oldest_at === null ? "" : `oldest: ${ago(stage.oldest_at, now)}`;
  return { main: short(stage.buckets), unit: stage.buckets === 1 ? noun : `${noun}s`, lines: [bytes(stage.bytes), oldest] };
}

function stationsOf(status, rates) {
  const { ingest, delivery, now } = status;
  const stage = stages(status);
  return [
    {
      name: "Requests", hint: "what gateways send",
      main: short(rates.records), unit: "records/s",
      lines: [`${bytes(rates.bytes)}/s`, `${count(ingest.connections)} connections`],
    },
    {
      name: "Commit", hint: "waiting to be durable",
      main: short(ingest.pending_batches), unit: ingest.pending_batches === 1 ? "batch" : "batches",
      lines: [bytes(ingest.pending_bytes), `${short(ingest.commits)} commits so far`],
    },
    { name: "Journals", hint: "tmp/", ...lying(stage("tmp"), "journal", now) },
    { name: "Staging", hint: "staging/, to be uploaded", ...lying(stage("staging"), "bucket", now) },
    {
      name: "Store", hint: "delivered",
      main: short(delivery.delivered_records), unit: "records",
      lines: [
        `${short(delivery.delivered_files)} files, ${bytes(delivery.delivered_bytes)}`,
        `${count(delivery.under_way)} uploads under way`,
        `last ${ago(delivery.delivered_at, now)}`,
      ],
      mood: delivery.paused.length ? "warn" : "",
    },
  ];
}

function besideOf(status) {
  const { now } = status;
  const stage = stages(status);
  const mood = (name, whenSome) => (stage(name).buckets ? whenSome : "");
  return [
    {
      name: "Quarantine", hint: "invalid records, set aside",
      ...lying(stage("quarantine"), "bucket", now), mood: mood("quarantine", "warn"),
    },
    {
      name: "Recovered", hint: "left by a crash, being split",
      ...lying(stage("recovered"), "journal", now), mood: mood("recovered", "warn"),
    },
    {
      name: "Failed", hint: "given up for now, tried again later",
      ...lying(stage("failed"), "bucket", now), mood: mood("failed", "bad"),
    },
    spoolOf(status),
  ];
}

function spoolOf({ spool_bytes: used, spool_quota_bytes: quota }) {
  const share = quota ? used / quota : 0;
  return {
    name: "Disk", hint: "all stages together",
    main: bytes(used), unit: "",
    lines: [quota ? `${Math.round(share * 100)} % of ${bytes(quota)}` : "no quota"],
    mood: share > 0.9 ? "bad" : share > 0.7 ? "warn" : "",
  };
}

function make() {
  const parts = ["name", "main", "lines", "hint"];
  const node = element("li", { class: "station" });
  node.parts = Object.fromEntries(parts.map((part) => [part, element("div", { class: part })]));
  node.parts.value = element("b");
  node.parts.unit = element("span", { class: "unit" });
  node.parts.main.append(node.parts.value, node.parts.unit);
  node.append(...parts.map((part) => node.parts[part]));
  return node;
}

function update(node, station) {
  setText(node.parts.name, station.name);
  setText(node.parts.hint, station.hint);
  setText(node.parts.value, station.main);
  setText(node.parts.unit, station.unit && ` ${station.unit}`);
  const lines = station.lines.filter(Boolean);
  list(node.parts.lines, lines.map((line, at) => ({ line, at })), ({ at }) => at, () => element("div"), (each, { line }) => setText(each, line));
  setAttribute(node, "data-mood", station.mood || null);
}

export function showPipeline(status, rates) {
  const name = (station) => station.name;
  list(byId("flow"), stationsOf(status, rates), name, make, update);
  list(byId("side"), besideOf(status), name, make, update);
  list(
    byId("checks"), Object.entries(status.checks), ([check]) => check,
    () => element("li"),
    (node, [check, { ok, reason, required = true }]) => {
      setAttribute(node, "data-mood", ok ? "good" : required ? "bad" : "warn");
      setText(node, [`${check}: ${ok ? "well" : reason || "not well"}`, ok && reason].filter(Boolean).join(", "));
    },
  );
}

export function showHead(status) {
  const unwell = Object.entries(status.checks).filter(([, { ok, required = true }]) => required && !ok);
  const state = byId("state");
  setText(state, unwell.length ? `Not ready: ${unwell.map(([name]) => name).join(", ")}` : "Ready");
  setAttribute(state, "data-mood", unwell.length ? "bad" : "good");
  const facts = [`version ${status.version}`, status.instance_id.slice(0, 8), `up ${seconds(Math.floor(status.now - status.started_at))}`];
  setText(byId("facts"), facts.filter(Boolean).join(" · "));
  document.title = unwell.length ? "✗ axcollector" : "axcollector";
}
