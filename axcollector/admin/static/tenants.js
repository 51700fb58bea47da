// The tenants, of which there may be ten thousand: sorted and searched in memory, shown a page at a time.

import { byId, element, fill, list, row, setAttribute, setText } from "./dom.js";
import { ago, bytes, count, short } from "./format.js";

const PAGE = 25;
const byText = new Intl.Collator("en", { numeric: true }).compare;

const COLUMNS = [
  { name: "organization", title: "Organization", compare: (a, b) => byText(a.organization, b.organization) },
  { name: "environment", title: "Environment", compare: (a, b) => byText(a.environment, b.environment) },
  { name: "records", title: "Records", isNumber: true, compare: (a, b) => b.records - a.records },
  { name: "rate", title: "Records/s", isNumber: true, compare: (a, b) => (b.rate ?? 0) - (a.rate ?? 0) },
  { name: "bytes", title: "Bytes", isNumber: true, compare: (a, b) => b.bytes - a.bytes },
  { name: "last_at", title: "Last", isNumber: true, compare: (a, b) => b.last_at - a.last_at },
];

export class Tenants {
  constructor() {
    this.tenants = [];
    this.found = [];
    this.page = 0;
    this.now = 0;
    this.order = { column: COLUMNS[2], isReversed: false };
    this.search = byId("tenant-search");
    this.search.addEventListener("input", () => this.arrange(0));
    this.heads = COLUMNS.map((column) => this.head(column));
    byId("tenant-head").append(...this.heads);
    byId("tenant-first").addEventListener("click", () => this.turn(0));
    byId("tenant-before").addEventListener("click", () => this.turn(this.page - 1));
    byId("tenant-after").addEventListener("click", () => this.turn(this.page + 1));
    this.render();
  }

  head(column) {
    const arrow = element("span", { class: "arrow", "aria-hidden": "true" });
    const button = element("button", { type: "button", class: "sort" }, column.title, arrow);
    button.addEventListener("click", () => this.sort(column));
    return element("th", { scope: "col", class: column.isNumber ? "number" : "" }, button);
  }

  /** Sort by a column; by the one that is sorted by already, the other way round. */
  sort(column) {
    this.order = { column, isReversed: column === this.order.column && !this.order.isReversed };
    this.arrange(0);
  }

  /** Take an answer of `/tenants`, and what it is compared with to know how many records a second each sends. */
  take(tenants, now) {
    const before = new Map(this.tenants.map((tenant) => [tenant.key, tenant]));
    const since = now - this.now;
    for (const tenant of tenants) {
      tenant.key = JSON.stringify([tenant.organization, tenant.environment]);
      tenant.words = `${tenant.organization} / ${tenant.environment}`.toLowerCase();
      const known = before.get(tenant.key);
      tenant.rate = known && since > 0 ? Math.max(0, tenant.records - known.records) / since : null;
    }
    this.tenants = tenants;
    this.now = now;
    this.arrange(this.page);
  }

  arrange(page) {
    const words = this.search.value.trim().toLowerCase();
    const { column, isReversed } = this.order;
    this.found = words ? this.tenants.filter((tenant) => tenant.words.includes(words)) : [...this.tenants];
    this.found.sort(isReversed ? (a, b) => column.compare(b, a) : column.compare);
    this.turn(page);
  }

  turn(page) {
    const last = Math.max(0, Math.ceil(this.found.length / PAGE) - 1);
    this.page = Math.min(Math.max(0, page), last);
    this.render(last);
  }

  render(last = 0) {
    const first = this.page * PAGE;
    const shown = this.found.slice(first, first + PAGE);
    const make = () => row(COLUMNS.map(({ isNumber }) => (isNumber ? "number" : "")));
    list(byId("tenant-rows"), shown, (tenant) => tenant.key, make, (node, each) => {
      fill(node, [
        each.organization, each.environment, count(each.records), short(each.rate), bytes(each.bytes),
        ago(each.last_at, this.now),
      ]);
    });
    this.tell(first, shown.length, last);
  }

  tell(first, shown, last) {
    const of = this.found.length === this.tenants.length ? "" : ` found of ${count(this.tenants.length)}`;
    const range = shown ? `${count(first + 1)}–${count(first + shown)} of ${count(this.found.length)}${of}` : "No tenant found";
    setText(byId("tenant-page"), this.tenants.length ? range : "No tenant has sent anything yet");
    for (const [id, isOff] of [["first", this.page === 0], ["before", this.page === 0], ["after", this.page >= last]]) {
      setAttribute(byId(`tenant-${id}`), "aria-disabled", isOff ? "true" : null);
    }
    COLUMNS.forEach((column, at) => {
      const isSorted = column === this.order.column;
      const isDescending = Boolean(column.isNumber) !== this.order.isReversed;
      setAttribute(this.heads[at], "aria-sort", isSorted ? (isDescending ? "descending" : "ascending") : null);
      setText(this.heads[at].querySelector(".arrow"), isSorted ? (isDescending ? " ▼" : " ▲") : "");
    });
  }
}
