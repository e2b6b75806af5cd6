// A choice of a few, as buttons side by side (radio buttons to keyboards and screen readers).
import { h } from "./dom.js";

let groups = 0;

export function picker(label, options, chosen, onpick) {
  const name = `pick-${++groups}`;
  return h(
    "fieldset",
    { class: "picker" },
    h("legend", { class: "unseen" }, label),
    Object.entries(options).map(([value, told]) =>
      h("label", {},
        h("input", { type: "radio", name, value, checked: value === chosen, onchange: () => onpick(value) }),
        h("span", {}, told)),
    ),
  );
}
