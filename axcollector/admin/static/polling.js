// Asking again and again: one question at a time, none while nobody looks.

/**
 * Calls `work` every so many milliseconds, from the end of one call to the start of the next, while the page is shown;
 * at once when it is shown again. `failed` is told what went wrong, `worked` that nothing did.
 */
export function poll(milliseconds, work, worked = () => {}, failed = () => {}) {
  let timer = null;
  let isUnderWay = false;

  async function once() {
    timer = null;
    if (document.hidden || isUnderWay) return;
    isUnderWay = true;
    try {
      await work();
      worked();
    } catch (problem) {
      failed(problem);
    } finally {
      isUnderWay = false;
    }
    if (!document.hidden && timer === null) timer = setTimeout(once, milliseconds);
  }

  function again() {
    if (timer !== null) clearTimeout(timer);
    timer = null;
    return once();
  }

  document.addEventListener("visibilitychange", again);
  again();
  return again;
}
