// What another weight would do, before it is set.
import { admin, change, path } from "./api.js";
import { bar, h, keyed, say, table, text } from "./dom.js";
import { groupName, inClass, percent, short } from "./format.js";

export const title = "What if";

export function whatIf({ live, query }) {
  let kind = query.has("group") ? "group" : "client";
  const name = h("input", { id: "name", value: query.get(kind) ?? "", list: "names", required: true, autocomplete: "off", spellcheck: "false" });
  const names = h("datalist", { id: "names" });
  const weight = h("input", { id: "weight", type: "number", min: "0.001", max: "1000000", step: "any", value: "2", required: true });
  const greedy = h("input", { id: "greedy", type: "checkbox" });
  const now = h("p", { class: "hint", id: "now" }, " ");
  const why = h("p", { role: "alert" });
  const body = h("tbody");
  const sheet = table("Predicted shares", [{ label: "Who" }, { label: "Weight", number: true }, { label: "Now", number: true }, { label: "Fair share", number: true }, { label: "After", number: true }, { label: "Change", number: true }], body);
  const same = h("p", { class: "hint" });
  const result = h("section", { class: "card", hidden: true }, h("h2", {}, "What would change"), same, sheet,
    h("p", { class: "hint" }, "Shares are max-min, on each level of groups, of what is wanted now: who has something waiting wants more, the others what they get. Real shares follow within seconds, but demand may change with them."));
  const empty = h("p", { class: "hint" }, "Name a client or a group and a weight: you see what everybody would receive. Nothing changes until you set it.");
  const apply = h("button", { type: "submit", disabled: true }, "Set this weight");
  const dialog = h("dialog", { "aria-labelledby": "sure" });
  const kinds = h("fieldset", { class: "picker" }, h("legend", { class: "unseen" }, "Whose weight"),
    ["client", "group"].map((one) => h("label", {}, h("input", { type: "radio", name: "kind", value: one, checked: one === kind, onchange: () => { kind = one; current = null; offer(); look(); } }), h("span", {}, one === "client" ? "A client" : "A group"))));
  const form = h("form", { class: "card filter", onsubmit: (event) => { event.preventDefault(); sure(); } },
    kinds,
    h("div", {}, h("label", { for: "name" }, "Name"), name, names),
    h("div", {}, h("label", { for: "weight" }, "New weight"), weight),
    h("div", { class: "check" }, greedy, h("label", { for: "greedy" }, "as if it wanted all it can get")),
    apply, now, why);
  const element = h("div", { class: "page" }, h("h1", {}, "What if a weight were different?"), form, empty, result, dialog);

  let current = null; // as the directory has it
  let asked = 0;
  let waiting = 0;
  let chosen = false; // was a weight typed?

  const offer = () => {
    const all = kind === "client" ? live.latest?.clients.map((row) => row.client) : [...new Set(live.latest?.groups.map((row) => inClass(row.group)[1]))].filter(Boolean);
    names.replaceChildren(...(all ?? []).map((one) => h("option", { value: one })));
  };
  const soon = () => { clearTimeout(waiting); waiting = setTimeout(look, 250); };

  async function look() {
    const mine = ++asked;
    const wanted = name.value.trim();
    apply.disabled = true;
    empty.hidden = Boolean(wanted);
    if (!wanted || !weight.checkValidity()) return;
    try {
      if (current?.name !== wanted) {
        current = null;
        current = await admin(`/${kind}s/${path(wanted)}`);
        if (mine !== asked) return;
        if (!chosen) weight.value = 2 * current.weight;
        text(now, `Its weight is ${current.weight}${current.source === "configuration" ? "; it is part of the configuration, and can be changed only there" : ""}.`);
      }
      const found = await admin("/live/what-if", { pool: live.pool, [kind]: wanted, weight: weight.value, greedy: greedy.checked });
      if (mine !== asked) return;
      show(found, wanted);
      text(why, "");
      apply.disabled = current.source === "configuration" || Number(weight.value) === current.weight;
    } catch (error) {
      if (mine !== asked) return;
      text(why, error.message);
      result.hidden = true;
      if (!current) text(now, " ");
    }
  }

  function show({ shares, service_per_s: total }, wanted) {
    result.hidden = false;
    const rows = shares.filter((row) => row.kind !== "group" || row.now_per_s || row.after_per_s || inClass(row.name)[1] === wanted)
      .map((row) => ({ ...row, total: total || 1, target: row.kind === kind && (kind === "group" ? inClass(row.name)[1] : row.name) === wanted }));
    rows.sort((a, b) => Number(b.target) - Number(a.target) || Math.abs(b.after_per_s - b.before_per_s) - Math.abs(a.after_per_s - a.before_per_s) || b.after_per_s - a.after_per_s);
    keyed(body, rows.slice(0, 40), (row) => `${row.kind} ${row.name}`, line);
    const mine = rows[0];
    text(same, mine?.target && !mine.backlogged && rows.every((row) => Math.abs(row.after_per_s - row.before_per_s) < 5e-4 * row.total)
      ? `Nothing would change now: ${mine.now_per_s ? `${wanted} receives all that it asks for` : `${wanted} asks for nothing`}. See what it would get “as if it wanted all it can get”.` : "");
    if (mine?.target) say(`${wanted}: from ${percent(mine.before_per_s / mine.total)} to ${percent(mine.after_per_s / mine.total)}`);
  }

  function sure() {
    if (apply.disabled) return;
    const yes = h("button", { type: "button", onclick: set }, "Set it");
    dialog.replaceChildren(h("h2", { id: "sure" }, `Set the weight of ${current.name} from ${current.weight} to ${weight.value}?`),
      h("p", {}, "It holds on every router within a second, for requests from then on."),
      h("p", { class: "actions" }, yes, h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Cancel")));
    dialog.showModal();
    yes.focus();
  }

  async function set() {
    dialog.close();
    try {
      current = await change("PATCH", `/${kind}s/${path(current.name)}`, { weight: Number(weight.value) });
      text(now, `Its weight is ${current.weight}, from now on.`);
      say(`The weight of ${current.name} is ${current.weight}`);
      await look();
    } catch (error) {
      text(why, error.message);
    }
  }

  name.addEventListener("input", soon);
  weight.addEventListener("input", () => { chosen = true; soon(); });
  greedy.addEventListener("change", look);
  offer();
  look();
  let turns = 0;
  const update = () => { if (!names.children.length) offer(); if (++turns % 3 === 0) look(); };
  return { element, update, close() { clearTimeout(waiting); } };
}

function line() {
  const who = h("th", { scope: "row" });
  const cells = ["weight", "now", "before"].map(() => h("td", { class: "number" }));
  const after = h("span");
  const afterBar = bar();
  const diff = h("td", { class: "number" });
  const element = h("tr", {}, who, cells, h("td", { class: "number share" }, after, afterBar), diff);
  element.update = (row) => {
    element.classList.toggle("target", row.target);
    text(who, row.kind === "others" ? (row.group ? `other clients of ${groupName(row.group)}` : "other clients") : row.kind === "group" ? `${groupName(row.name)}${inClass(row.name)[1] ? " (group)" : ""}` : row.name);
    text(cells[0], row.weight === null ? "–" : short(row.weight));
    text(cells[1], percent(row.now_per_s / row.total));
    text(cells[2], percent(row.before_per_s / row.total));
    text(after, percent(row.after_per_s / row.total));
    afterBar.set(row.after_per_s / row.total);
    const change = (row.after_per_s - row.before_per_s) / row.total;
    text(diff, Math.abs(change) < 0.0005 ? "" : `${change > 0 ? "+" : "−"}${percent(Math.abs(change))}`);
    diff.dataset.state = change > 0.0005 ? "good" : change < -0.0005 ? "bad" : "";
  };
  return element;
}
