// Asking the collector. Paths are relative, so the page works below any path of a proxy.

const PATIENCE_MILLISECONDS = 8000;

/** What a collector refused, or that it did not answer at all (`status` 0). */
export class Refused extends Error {
  constructor(status, reason) {
    super(reason);
    this.status = status;
  }
}

async function ask(path, options) {
  const signal = AbortSignal.timeout(PATIENCE_MILLISECONDS);
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", cache: "no-store", signal, ...options });
  } catch {
    throw new Refused(0, "it cannot be reached");
  }
  let document;
  try {
    document = await answer.json();
  } catch {
    throw new Refused(answer.status, `it answered ${answer.status}, and not in JSON`);
  }
  if (!answer.ok) throw new Refused(answer.status, document.reason ?? `it answered ${answer.status}`);
  return document;
}

export const get = (path) => ask(path, {});

/** Ask for a change: with the header that other web pages cannot send. */
export function change(path, document) {
  const headers = { "Content-Type": "application/json", "X-Axcollector": path };
  return ask(path, { method: "POST", headers, body: JSON.stringify(document) });
}
