// Elements without markup in strings: names come from people, and are only ever text.

// h("td", {class: "number", onclick: …}, "text", element, null)
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// Sets a text only if it is another one: screen readers and selections are left in peace.
export function text(element, value) {
  const told = String(value);
  if (element.textContent !== told) element.textContent = told;
}

// Makes the children of `parent` those of `items`, by key, keeping elements (and the focus) that
// are there already. make(item) -> element with an `update(item)` of its own.
export function keyed(parent, items, keyOf, make) {
  const had = parent.keyed ?? new Map();
  const has = new Map();
  let before = null;
  for (const item of items) {
    const key = keyOf(item);
    const element = had.get(key) ?? make(item);
    element.update(item);
    has.set(key, element);
    const next = before ? before.nextSibling : parent.firstChild;
    if (next !== element) parent.insertBefore(element, next);
    before = element;
  }
  for (const [key, element] of had) if (!has.has(key)) element.remove();
  parent.keyed = has;
}

// A horizontal bar from 0 to 1. `said` is what it means, for who can't see it; without, it is
// decoration beside a number.
export function bar(said) {
  const fill = h("span", { class: "fill" });
  const element = said
    ? h("span", { class: "track", role: "meter", "aria-label": said, "aria-valuemin": 0, "aria-valuemax": 100 }, fill)
    : h("span", { class: "track", "aria-hidden": "true" }, fill);
  element.set = (part, color) => {
    const percent = Math.max(0, Math.min(100, 100 * part)) || 0;
    fill.style.width = `${percent}%`;
    if (color) fill.style.background = color;
    if (said) {
      element.setAttribute("aria-valuenow", Math.round(percent));
      element.setAttribute("aria-valuetext", `${Math.round(percent)} %`);
    }
  };
  return element;
}

// A table with a caption for screen readers; wide ones scroll in their own box.
export function table(caption, heads, body, props = {}) {
  const cells = heads.map((head) => h("th", { scope: "col", class: head.number ? "number" : null, "aria-sort": head.sort ?? null }, head.label));
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption, ...props },
    h("table", {}, h("caption", { class: "unseen" }, caption), h("thead", {}, h("tr", {}, cells)), body),
  );
}

export function say(message) {
  const said = document.getElementById("said");
  if (said) text(said, message);
}
