// The rest of what there is to know: sync, workers, answers, jobs, events, configuration.

import { byId, element, fill, list, row, setAttribute, setText, show } from "./dom.js";
import { ago, clock, count, seconds, utc } from "./format.js";

const SOURCES = { registry: "the registry on this machine", transicator: "the sync servers", none: "the embedding program" };
const LEVELS = ["info", "warn", "error", "critical"];
const KEPT_EVENTS = 200;

export function showSync({ catalog, now }) {
  const rows = Object.entries(catalog.rows).map(([table, some]) => [`rows of ${table}`, count(some)]);
  showPairs("sync", [
    ["source", SOURCES[catalog.source] ?? catalog.source],
    ["version", catalog.version ?? "there is no catalog yet"],
    ["changed", ago(catalog.changed_at, now)],
    ["known to be current", ago(catalog.heard_at, now)],
    ["last rebuild took", seconds(catalog.rebuild_seconds)],
    ...rows,
  ]);
}

export function showCollector({ version, instance_id: id, started_at: startedAt, now }) {
  showPairs("collector", [
    ["version", version], ["instance", id || "–"], ["started", utc(startedAt)], ["its clock", utc(now)],
  ]);
}

function showPairs(id, pairs) {
  list(
    byId(id), pairs, ([name]) => name,
    ([name]) => element("div", {}, element("dt", {}, name), element("dd")),
    (node, [, value]) => setText(node.lastElementChild, value),
  );
}

export function showWorkers({ workers }) {
  show(byId("workers-part"), workers.length > 0);
  list(
    byId("workers"), workers, (worker) => worker.number,
    () => element("li", {}, element("b"), element("span")),
    (node, { number, pid, ready }) => {
      setAttribute(node, "data-mood", ready ? "good" : "bad");
      setText(node.firstElementChild, `Worker ${number}`);
      const state = ready ? "takes records" : "takes no records";
      setText(node.lastElementChild, pid === null ? " has no process now" : ` process ${pid}, ${state}`);
    },
  );
}

export function showAnswers({ ingest }) {
  const key = ({ route, status, code }) => `${route} ${status} ${code}`;
  const sorted = [...ingest.requests].sort((a, b) => b.count - a.count);
  list(byId("answers"), sorted, key, () => row(["", "", "number"]), (node, each) => {
    fill(node, [each.route, `${each.status} ${each.code}`, count(each.count)]);
  });
}

export function showJobs({ jobs }) {
  const make = () => row(["", "number", "number"]);
  list(byId("jobs"), jobs, (job) => job.name, make, (node, { name, runs, failures, reason }) => {
    fill(node, [reason ? `${name}: ${reason}` : name, count(runs), count(failures)]);
    setAttribute(node, "data-mood", failures ? "warn" : null);
  });
}

/** The last events; those before the page was opened come with the first answer. */
export class Events {
  constructor() {
    this.events = [];
    this.next = 0;
    this.level = byId("event-level");
    this.level.addEventListener("change", () => this.render());
  }

  /** Begin anew: the collector was started again. */
  forget() {
    this.events = [];
    this.next = 0;
  }

  take({ next, events }) {
    this.next = next;
    if (!events.length) return;
    this.events = [...events.reverse(), ...this.events].slice(0, KEPT_EVENTS);
    this.render();
  }

  render() {
    const least = LEVELS.indexOf(this.level.value);
    const shown = this.events.filter((event) => LEVELS.indexOf(event.level) >= least);
    list(
      byId("event-list"), shown, (event) => event.number,
      (event) => element(
        "li", { "data-level": event.level },
        element("time", { datetime: new Date(event.at * 1000).toISOString(), title: utc(event.at) }, clock(event.at)),
        element("span", { class: "level" }, event.level),
        element("span", { class: "text" }, event.text),
      ),
      () => {},
    );
  }
}

/** The configuration, of which one may want to see only what somebody has set. */
export class Configuration {
  constructor() {
    this.settings = [];
    this.onlyChanged = byId("only-changed");
    this.onlyChanged.addEventListener("change", () => this.render());
  }

  take({ settings }) {
    this.settings = settings;
    this.render();
  }

  render() {
    const shown = this.settings.filter((setting) => !(this.onlyChanged.checked && setting.is_default));
    const make = () => row(["key", "setting", "note"]);
    list(byId("settings"), shown, (setting) => setting.key, make, (node, each) => {
      fill(node, [each.key, each.value === "" ? "–" : [each.value, each.unit].filter(Boolean).join(" "), each.description]);
      setAttribute(node, "data-changed", each.is_default ? null : "true");
    });
  }
}
