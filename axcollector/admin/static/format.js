// Numbers as a person reads them.

const NONE = "–";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

function threeDigits(value) {
  return value.toFixed(value >= 100 || Number.isInteger(value) ? 0 : value >= 10 ? 1 : 2);
}

export function count(value) {
  return value === null || value === undefined ? NONE : whole.format(value);
}

/** 1234567 as 1.23 M: for places where there is little room. */
export function short(value) {
  if (value === null || value === undefined) return NONE;
  for (const [size, unit] of [[1e9, " G"], [1e6, " M"], [1e4, " k"]]) {
    if (value >= size) return threeDigits(value / (unit === " k" ? 1e3 : size)) + unit;
  }
  return value >= 100 ? whole.format(value) : threeDigits(value);
}

export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit ? threeDigits(value) : Math.round(value)} ${UNITS[unit]}`;
}

export function seconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value === 0) return "0 s";
  if (value < 0.001) return `${threeDigits(value * 1e6)} µs`;
  if (value < 1) return `${threeDigits(value * 1e3)} ms`;
  if (value < 60) return `${threeDigits(value)} s`;
  if (value < 3600) return inTwo(value, 60, "min", 1, "s");
  if (value < 86400) return inTwo(value, 3600, "h", 60, "min");
  return inTwo(value, 86400, "d", 3600, "h");
}

function inTwo(value, large, largeUnit, small, smallUnit) {
  const rest = Math.floor((value % large) / small);
  return `${Math.floor(value / large)} ${largeUnit}${rest ? ` ${rest} ${smallUnit}` : ""}`;
}

/** How long before `now` a moment was. */
export function ago(moment, now) {
  if (moment === null || moment === undefined) return "never";
  const age = now - moment;
  return age < 1 ? "now" : `${seconds(Math.floor(age))} ago`;
}

/** The time of day of a moment, where the reader is. */
export function clock(moment) {
  return new Date(moment * 1000).toLocaleTimeString("en-GB");
}

/** A moment in UTC, to the second. */
export function utc(moment) {
  return new Date(moment * 1000).toISOString().slice(0, 19).replace("T", " ") + " UTC";
}

/** A bucket's name, `{org}~{env}~{yyyyMMddHHmmss}`, as its tenant and the start of its interval. */
export function bucket(name) {
  const parts = /^([^~]*)~([^~]*)~(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)$/.exec(name);
  if (!parts) return { tenant: name, start: "" };
  const [, organization, environment, year, month, day, hour, minute, second] = parts;
  const start = `${year}-${month}-${day} ${hour}:${minute}:${second} UTC`;
  return { tenant: `${decoded(organization)} / ${decoded(environment)}`, start };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
