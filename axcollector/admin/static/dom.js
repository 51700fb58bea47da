// Building and updating the page. Text is always put in as text: nothing that a collector says becomes markup.

export const byId = (id) => document.getElementById(id);

/** A new element: its tag, its attributes (`class`, `aria-label`, …; `onclick` and the like are listeners), its content. */
export function element(tag, attributes = {}, ...content) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else setAttribute(node, name, value);
  }
  node.append(...content);
  return node;
}

export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Change a text only where it is another: screen readers read what changes. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function show(node, isShown) {
  if (node.hidden === isShown) node.hidden = !isShown;
}

/**
 * Make the children of `parent` those of `items`, in their order, and keep the elements of those that stay: who has the
 * focus in one of them, or reads it, is not disturbed.
 */
export function list(parent, items, keyOf, make, update) {
  const present = (parent.presentByKey ??= new Map());
  const wanted = new Map(items.map((item) => [keyOf(item), item]));
  for (const [key, node] of present) {
    if (!wanted.has(key)) {
      node.remove();
      present.delete(key);
    }
  }
  let place = parent.firstElementChild;
  for (const [key, item] of wanted) {
    let node = present.get(key);
    if (!node) present.set(key, (node = make(item)));
    update(node, item);
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
}

/** A table row whose cells have these classes; the first is its heading. */
export function row(classes, labels = []) {
  const cells = classes.map((name, at) => {
    const label = labels[at] ?? null;
    return at === 0
      ? element("th", { scope: "row", class: name, "data-label": label })
      : element("td", { class: name, "data-label": label });
  });
  return element("tr", {}, ...cells);
}

/** Put texts into the cells of a row. */
export function fill(node, texts) {
  texts.forEach((text, at) => {
    if (text !== null) setText(node.cells[at], text);
  });
}
