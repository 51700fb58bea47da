// The status page: asks the collector every two seconds, and shows what it says.

import { Refused, get } from "./api.js";
import { Charts } from "./charts.js";
import { byId, setText, show } from "./dom.js";
import { clock } from "./format.js";
import { showHead, showPipeline } from "./pipeline.js";
import { poll } from "./polling.js";
import { Configuration, Events, showAnswers, showCollector, showJobs, showSync, showWorkers } from "./system.js";
import { Tenants } from "./tenants.js";
import { showQuarantine, showTrouble, startTrouble } from "./trouble.js";

const OFTEN_MILLISECONDS = 2000;
const SELDOM_MILLISECONDS = 10000;

const charts = new Charts();
const tenants = new Tenants();
const events = new Events();
const configuration = new Configuration();
let heardAt = null;
let run = null;
let now = 0;

const last = (name) => charts.columns?.[name].at(-1) ?? 0;

async function often() {
  const [status, history, news] = await Promise.all([
    get("status"), get(`history?since=${charts.next}`), get(`events?since=${events.next}`),
  ]);
  if (run !== null && run !== status.started_at) {
    charts.forget();
    events.forget();
    run = null;
    return often();
  }
  run = status.started_at;
  now = status.now;
  charts.take(history);
  events.take(news);
  showHead(status);
  showPipeline(status, { records: last("records"), bytes: last("bytes") });
  showTrouble(status);
  for (const part of [showCollector, showSync, showWorkers, showAnswers, showJobs]) part(status);
}

async function seldom() {
  const [list, quarantine, settings] = await Promise.all([get("tenants"), get("quarantine"), get("configuration")]);
  tenants.take(list, now || Date.now() / 1000);
  showQuarantine(quarantine);
  configuration.take(settings);
}

function answered() {
  heardAt = Date.now() / 1000;
  show(byId("silent"), false);
  document.body.classList.remove("stale");
}

function whatIsWrong(problem) {
  if (!(problem instanceof Refused)) return `This page met a bug: ${problem.message}.`;
  if (problem.status === 401) return "The collector wants the admin token: reload the page to give it.";
  const since = heardAt === null ? "" : ` since ${clock(heardAt)}; what is shown is from then`;
  return `The collector does not answer${since} (${problem.message}). It is asked again every 2 seconds.`;
}

function report(problem) {
  if (!(problem instanceof Refused)) console.error(problem);
}

function silent(problem) {
  report(problem);
  setText(byId("silent"), whatIsWrong(problem));
  show(byId("silent"), true);
  document.body.classList.add("stale");
}

const askAgain = poll(OFTEN_MILLISECONDS, often, answered, silent);
poll(SELDOM_MILLISECONDS, seldom, () => {}, report);
startTrouble(askAgain);
