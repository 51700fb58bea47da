// The line charts of the last 30 minutes. Each says in words what it shows, for whoever does not see it.

import { byId, element, setAttribute, setText } from "./dom.js";
import { bytes, clock, seconds, short } from "./format.js";

const WINDOW_SECONDS = 1800;
// What marks on an axis of durations may be apart, in seconds: as clocks count from a minute on.
const STEPS_OF_TIME = [
  ...[1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1].flatMap((size) => [size, 2 * size, 5 * size]), 10, 20, 30, 60, 120, 300, 600, 1200,
  ...[0.5, 1, 2, 6, 12, 24, 48, 168, 1000].map((hours) => hours * 3600),
];
const perSecond = (text) => (value) => (value === null || value === undefined ? "–" : `${text(value)}/s`);

const CHARTS = [
  { title: "Records", text: perSecond(short), lines: [["records", "taken", "--line-1", true]] },
  {
    title: "Bytes",
    text: perSecond(bytes),
    lines: [["bytes", "taken", "--line-1", true], ["delivered", "delivered", "--line-2", false]],
  },
  {
    title: "Commit latency",
    text: seconds,
    steps: STEPS_OF_TIME,
    lines: [["commit_median", "half within", "--line-1", true], ["commit_slow", "99 of 100 within", "--line-2", false]],
  },
  {
    title: "Delivery lag",
    text: seconds,
    steps: STEPS_OF_TIME,
    lines: [["lag", "after the interval's end", "--line-1", true], ["waiting", "oldest in staging", "--line-2", false]],
  },
];

class Chart {
  constructor({ title, text, lines, steps }) {
    this.title = title;
    this.text = text;
    this.steps = steps;
    this.lines = lines;
    this.cursor = null;
    this.data = [[], ...lines.map(() => [])];
    this.values = lines.map(([, label, color]) => {
      const value = element("b", {}, "–");
      const mark = element("i", { class: `mark mark${color}`, "aria-hidden": "true" });
      return { value, node: element("span", { class: "value" }, mark, value, ` ${label}`) };
    });
    this.when = element("span", { class: "when" });
    this.canvas = element("div", { class: "canvas", role: "img", "aria-label": title });
    this.summary = element("p", { class: "summary" });
    const caption = element("figcaption", {}, element("h3", {}, title), this.when);
    const values = element("p", { class: "values" }, ...this.values.map(({ node }) => node));
    this.node = element("figure", { class: "chart" }, caption, values, this.canvas, this.summary);
    new ResizeObserver(() => this.resize()).observe(this.canvas);
  }

  draw() {
    this.plot?.destroy();
    this.plot = new globalThis.uPlot(this.options(), this.data, this.canvas);
  }

  options() {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = {
      stroke: color("--muted"), font: "11px system-ui, sans-serif",
      grid: { stroke: color("--grid"), width: 1 }, ticks: { show: false },
    };
    return {
      ...this.size(),
      legend: { show: false },
      padding: [8, 12, 0, 0],
      cursor: { y: false, drag: { x: false, y: false } },
      scales: {
        x: { time: true, range: (_, low, high) => [high - WINDOW_SECONDS, high] },
        y: { range: (_, low, high) => [0, high > 0 ? high * 1.15 : 1] },
      },
      axes: [
        { ...axis, size: 26, gap: 4, space: 70, values: (_, moments) => moments.map((moment) => clock(moment).slice(0, 5)) },
        { ...axis, size: 66, space: 34, incrs: this.steps, values: (_, values) => values.map((value) => this.text(value)) },
      ],
      series: [
        {},
        ...this.lines.map(([, label, name, isFilled]) => ({
          label, stroke: color(name), width: 1.75, spanGaps: true, points: { show: false },
          fill: isFilled ? color(`${name}-fill`) : undefined,
        })),
      ],
      hooks: { setCursor: [(plot) => this.point(plot.cursor.idx)] },
    };
  }

  size() {
    return { width: Math.max(120, Math.floor(this.canvas.clientWidth)), height: 170 };
  }

  resize() {
    if (this.plot) this.plot.setSize(this.size());
  }

  /** Show the values under the pointer, or, where there is none, the newest. */
  point(index) {
    this.cursor = index ?? null;
    this.tell();
  }

  show(columns) {
    this.data = [columns.at, ...this.lines.map(([name]) => columns[name])];
    if (this.plot) this.plot.setData(this.data);
    else this.draw();
    this.tell();
  }

  tell() {
    const [moments, ...lines] = this.data;
    const at = this.cursor ?? moments.length - 1;
    this.values.forEach(({ value }, line) => setText(value, this.text(newest(lines[line], at, this.cursor !== null))));
    setText(this.when, this.cursor === null ? "now" : `at ${clock(moments[at])}`);
    const said = this.lines.map(([, label], line) => this.inWords(label, lines[line]));
    setText(this.summary, said.join("; "));
    setAttribute(this.canvas, "aria-label", `${this.title}, line chart of the last 30 minutes. ${said.join("; ")}.`);
  }

  inWords(label, values) {
    const known = values.filter((value) => value !== null);
    if (!known.length) return `${label}: nothing yet`;
    const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
    return `${label}: mean ${this.text(mean)}, most ${this.text(Math.max(...known))}`;
  }
}

/** The value at an index; where it may be an older one, the last that there was. */
function newest(values, at, isExact) {
  if (isExact) return values[at];
  while (at > 0 && (values[at] === null || values[at] === undefined)) at -= 1;
  return values[at];
}

/** The samples so far, by column, and the charts that show them. */
export class Charts {
  constructor() {
    this.charts = CHARTS.map((chart) => new Chart(chart));
    byId("chart-list").append(...this.charts.map((chart) => chart.node));
    this.forget();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      if (this.columns) this.charts.forEach((chart) => chart.draw());
    });
  }

  /** Begin anew: the collector was started again. */
  forget() {
    this.next = 0;
    this.columns = null;
  }

  /** Take an answer of `/history`; where samples are missing before it, what there was is too old. */
  take({ first, next, columns, rows }) {
    if (this.columns === null || first !== this.next) this.columns = Object.fromEntries(columns.map((name) => [name, []]));
    this.next = next;
    for (const sample of rows) columns.forEach((name, at) => this.columns[name].push(sample[at]));
    const surplus = this.columns.at.length - 900;
    if (surplus > 0) for (const values of Object.values(this.columns)) values.splice(0, surplus);
    if (this.columns.at.length) this.charts.forEach((chart) => chart.show(this.columns));
  }
}
