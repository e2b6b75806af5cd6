// All clients, by name, a page at a time: only what is shown is asked for.
import { admin } from "./api.js";
import { h, keyed, say, table, text } from "./dom.js";
import { short } from "./format.js";

const PAGE = 50;
const EVERY_MS = 5000;

export const title = "Clients";

export function clients({ live, query }) {
  let search = query.get("search") ?? "";
  let group = query.get("group") ?? "";
  const before = []; // where earlier pages began
  let after = "";
  let next = null;
  let rows = [];
  let asked = 0;

  const body = h("tbody");
  const sheet = table("Clients", [
    { label: "Client" }, { label: "Group" }, { label: "Weight", number: true }, { label: "State" },
    { label: "Waiting", number: true }, { label: "Running", number: true }, { label: "Service in all", number: true },
  ], body);
  const field = h("input", { type: "search", id: "search", value: search, placeholder: "Part of a name", autocomplete: "off", spellcheck: "false" });
  const inGroup = h("input", { type: "search", id: "in-group", value: group, placeholder: "acme/ml", autocomplete: "off", spellcheck: "false" });
  const told = h("p", { class: "hint", role: "status" });
  const back = h("button", { type: "button", onclick: () => { after = before.pop() ?? ""; load(); } }, "Previous");
  const forth = h("button", { type: "button", onclick: () => { before.push(after); after = next; load(); } }, "Next");
  const pages = h("nav", { class: "pages", "aria-label": "Pages of clients", hidden: true }, back, forth);
  const element = h("div", { class: "page" },
    h("h1", {}, "Clients"),
    h("form", { class: "filter", role: "search", onsubmit: (event) => event.preventDefault() },
      h("div", {}, h("label", { for: "search" }, "Search"), field),
      h("div", {}, h("label", { for: "in-group" }, "In group"), inGroup)),
    h("section", { class: "card" }, sheet, told, pages));

  let typing = 0;
  const typed = () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      [search, group, after] = [field.value.trim(), inGroup.value.trim(), ""];
      before.length = 0;
      load();
    }, 250);
  };
  field.addEventListener("input", typed);
  inGroup.addEventListener("input", typed);

  async function load() {
    const mine = ++asked;
    try {
      const page = await admin("/clients", { search, group, after, limit: PAGE });
      if (mine !== asked) return; // something else was asked meanwhile
      rows = page.clients.map((client) => ({ client, state: null }));
      next = page.next;
      back.disabled = !before.length && !after;
      forth.disabled = !next;
      pages.hidden = back.disabled && forth.disabled;
      text(told, rows.length ? "" : next ? "None on this page; there may be on the next." : "No client is so called.");
      show();
      if (rows.length) say(`${rows.length} clients, from ${rows[0].client.name}`);
      await states();
    } catch (error) {
      text(told, error.message);
    }
  }

  async function states() {
    if (!rows.length || document.hidden) return;
    const mine = asked;
    const pools = await admin("/live/clients", { client: rows.map(({ client }) => client.name) });
    if (mine !== asked) return;
    for (const row of rows) row.state = pools[live.pool]?.[row.client.name] ?? null;
    show();
  }

  const show = () => keyed(body, rows, ({ client }) => client.name, line);
  load();
  const timer = setInterval(() => states().catch(() => {}), EVERY_MS);
  return { element, update() {}, close: () => clearInterval(timer) };
}

function line() {
  const link = h("a");
  const cells = ["group", "weight", "state", "waiting", "running", "service"].map((name) =>
    h("td", { class: ["group", "state"].includes(name) ? null : "number" }));
  const element = h("tr", {}, h("th", { scope: "row" }, link), cells);
  element.update = ({ client, state }) => {
    text(link, client.name);
    link.href = `#/clients/${encodeURIComponent(client.name)}`;
    const values = [
      client.group ?? "", client.weight, client.enabled ? "active" : "disabled",
      state ? short(state.waiting) : "", state ? short(state.running) : "", state ? short(state.service) : "",
    ];
    values.forEach((value, i) => text(cells[i], value));
  };
  return element;
}
