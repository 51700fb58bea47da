// What went wrong and may need somebody: paused stores, failed buckets, quarantined records.

import { change } from "./api.js";
import { byId, element, fill, list, row, setText, show } from "./dom.js";
import { bucket, bytes, clock, count, seconds } from "./format.js";

const SHOWN = 200;

let askAgain = () => {};

async function retry(document, button, what) {
  button.disabled = true;
  setText(byId("told"), `Retrying ${what} …`);
  try {
    const { retried } = await change("retry", document);
    const who = `${count(retried)} ${retried === 1 ? "bucket goes" : "buckets go"}`;
    setText(byId("told"), `${who} back to staging: ${what}.`);
  } catch (problem) {
    setText(byId("told"), `${what} could not be retried: ${problem.message}`);
  } finally {
    button.disabled = false;
    askAgain();
  }
}

function failedRow({ bucket: name }) {
  const node = row(["", "moment", "number", "reason", "action"], ["Tenant", "Interval from", "Size", "Reason"]);
  const { tenant, start } = bucket(name);
  const what = `${tenant}, ${start}`;
  const button = element("button", { type: "button", "aria-label": `Retry now: ${what}` }, "Retry now");
  button.addEventListener("click", () => retry({ bucket: name }, button, what));
  node.cells[4].append(button);
  return node;
}

function showFailed({ failed }, stages) {
  const total = stages.find((stage) => stage.name === "failed")?.buckets ?? failed.length;
  show(byId("failed-part"), failed.length > 0);
  const more = total > SHOWN && failed.length >= SHOWN ? `, of which the oldest ${SHOWN} are shown` : "";
  setText(byId("failed-title"), `Failed buckets (${count(Math.max(total, failed.length))}${more})`);
  list(byId("failed"), failed.slice(0, SHOWN), (each) => each.bucket, failedRow, (node, each) => {
    const { tenant, start } = bucket(each.bucket);
    fill(node, [tenant, start, bytes(each.bytes), each.reason || "not known any more", null]);
  });
}

function showPaused({ paused, paused_count: total }, now) {
  show(byId("paused-part"), paused.length > 0);
  const shown = total > paused.length ? ` (${count(total)}, of which ${count(paused.length)} are shown)` : "";
  setText(byId("paused-title"), `Paused${shown}`);
  list(
    byId("paused"), paused, (each) => each.authority,
    () => element("li", { "data-mood": "warn" }, element("b"), element("span")),
    (node, { authority, reason, until }) => {
      setText(node.firstElementChild, authority);
      const when = until > now
        ? `tried again in ${seconds(Math.ceil(until - now))}, at ${clock(until)}`
        : "being tried again";
      setText(node.lastElementChild, ` ${reason}; ${when}`);
    },
  );
}

export function showTrouble(status) {
  const { delivery, stages, now } = status;
  showPaused(delivery, now);
  showFailed(delivery, stages);
  const aside = stages.find((stage) => stage.name === "quarantine")?.buckets ?? 0;
  show(byId("all-well"), !delivery.failed.length && !delivery.paused.length && !aside);
}

export function showQuarantine({ buckets, more }) {
  show(byId("quarantine-part"), buckets.length > 0);
  setText(byId("quarantine-title"), `Quarantined records${more ? ` (the oldest ${buckets.length} buckets)` : ""}`);
  list(
    byId("quarantine"), buckets, (each) => each.bucket,
    () => row(["", "moment", "number", "number", "reason"], ["Tenant", "Interval from", "Records", "Size", "Reasons"]),
    (node, each) => {
      const { tenant, start } = bucket(each.bucket);
      const records = `${each.is_whole ? "" : "at least "}${count(each.records)}`;
      const reasons = each.reasons.map(({ reason, records: some }) => `${reason} (${count(some)})`).join("; ");
      fill(node, [tenant, start, records, bytes(each.bytes), each.problem ? `${reasons} ${each.problem}` : reasons]);
    },
  );
}

/** Have the buttons work; `again` asks the collector at once how it is then. */
export function startTrouble(again) {
  askAgain = again;
  const button = byId("retry-all");
  button.addEventListener("click", () => retry({ all: true }, button, "all failed buckets"));
}

