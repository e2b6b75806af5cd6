// The tree of shares: organisations, their teams, and the clients that have a row.
import { admin } from "./api.js";
import { bar, h, keyed, table, text } from "./dom.js";
import { count, inClass, percent, short } from "./format.js";

export const title = "Groups";

export function groups({ live }) {
  const closed = new Set();
  let known = new Map(); // path -> weight, of all there are
  const body = h("tbody");
  const sheet = table("Groups and clients", [
    { label: "Name" }, { label: "Weight", number: true }, { label: "Entitled to", number: true },
    { label: "Share of all", number: true }, { label: "Waiting", number: true }, { label: "Running", number: true }, { label: "Counter", number: true }, { label: h("span", { class: "unseen" }, "More") },
  ], body);
  const none = h("p", { class: "none" }, "");
  const element = h("div", { class: "page" },
    h("h1", {}, "Groups"),
    h("p", { class: "hint" }, "Who stands together shares by weight; what one leaves goes to its siblings first. “Entitled to” is its part, by weight, among the siblings that ask for something now: who asks for less leaves the rest to them. Priority classes go in their order. Of clients, those with most service."),
    h("section", { class: "card" }, sheet, none));

  const update = () => {
    const seen = live.latest;
    if (!seen) return;
    const nodes = tree(seen, known);
    const rows = [];
    const walk = (parent, depth) => {
      const children = nodes.filter((node) => node.parent === parent);
      const active = children.filter((node) => node.waiting || node.running);
      const weights = active.reduce((sum, node) => sum + (node.weight ?? 1), 0);
      children.sort((a, b) => Number(idle(a)) - Number(idle(b)) || Number(b.isGroup) - Number(a.isGroup) || b.rate - a.rate || (a.name < b.name ? -1 : 1));
      for (const node of children) {
        const owed = active.includes(node) && weights && !node.isClass ? (node.weight ?? 1) / weights : null;
        const holds = nodes.some((one) => one.parent === node.path && node.isGroup);
        rows.push({ ...node, holds, depth, owed, share: node.rate / (seen.rates.service_per_s || 1), open: !closed.has(node.key) });
        if (node.isGroup && !closed.has(node.key)) walk(node.path, depth + 1);
      }
    };
    walk("", 0);
    keyed(body, rows, (row) => row.key, () => line((key) => { closed.has(key) ? closed.delete(key) : closed.add(key); update(); }));
    text(none, nodes.some((node) => node.isGroup) ? "" : "There are no groups; all clients stand together.");
  };
  admin("/groups", { limit: 200 }).then((page) => {
    known = new Map(page.groups.map((group) => [group.name, group.weight]));
    update();
  }).catch(() => {});
  update();
  return { element, update, close() {} };
}

const idle = (node) => !node.waiting && !node.running && !node.rate;

// Groups of the directory, with what was seen of them, and the clients with rows.
function tree(seen, known) {
  const outer = (path) => (path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "");
  const rows = new Map(seen.groups.map((row) => [row.group, row]));
  const classed = new Set([...rows.keys()].filter((path) => inClass(path)[0]).map((path) => inClass(path)[1]));
  const paths = new Set([...[...known.keys()].filter((path) => !classed.has(path)), ...rows.keys()]);
  for (const path of [...paths, ...seen.clients.map((row) => row.group)]) for (let p = path; p; p = outer(p)) paths.add(p);
  const nodes = [...paths].map((path) => {
    const row = rows.get(path);
    const [priority, within] = inClass(path);
    const isClass = Boolean(priority && !within);
    return { key: `${path}/`, path, inner: within, isClass, name: isClass ? `class ${priority}` : path.split("/").at(-1), parent: outer(path), isGroup: true, weight: isClass ? null : row?.weight ?? known.get(path) ?? 1, rate: row?.rates.service_per_s ?? 0, waiting: row?.waiting ?? 0, running: row?.running ?? 0, counter: row?.counter ?? null };
  });
  for (const row of seen.clients) {
    nodes.push({ key: row.client, path: row.client, inner: row.client, name: row.client, parent: row.group, isGroup: false, weight: row.weight, rate: row.rates.service_per_s, waiting: row.waiting, running: row.running, counter: row.counter });
  }
  return nodes;
}

function line(toggle) {
  const head = h("th", { scope: "row" });
  const share = h("span");
  const shareBar = bar();
  const cells = ["weight", "owed", "waiting", "running", "counter"].map(() => h("td", { class: "number" }));
  const what = h("a");
  const members = h("a");
  const element = h("tr", {}, head, cells[0], cells[1], h("td", { class: "number share" }, share, shareBar), cells[2], cells[3], cells[4], h("td", {}, what, " ", members));
  let built = null;
  element.update = (row) => {
    if (built !== row.holds) {
      head.className = `deep-${Math.min(3, row.depth)}`;
      head.replaceChildren(
        row.isGroup && !row.holds ? row.name : row.isGroup
          ? h("button", { type: "button", class: "fold", onclick: () => toggle(row.key) }, h("span", { "aria-hidden": "true", class: "arrow" }), row.name)
          : h("a", { href: `#/clients/${encodeURIComponent(row.path)}` }, row.name),
      );
      what.href = `#/what-if?${row.isGroup ? "group" : "client"}=${encodeURIComponent(row.inner)}`;
      what.hidden = row.isClass;
      what.textContent = "What if";
      what.setAttribute("aria-label", `What if the weight of ${row.path} were different`);
      members.href = `#/clients?group=${encodeURIComponent(row.inner)}`;
      members.textContent = "Clients";
      members.setAttribute("aria-label", `Clients of ${row.path}`);
      members.hidden = !row.isGroup || row.isClass;
      built = row.holds;
    }
    if (row.isGroup && row.holds) head.firstChild.setAttribute("aria-expanded", String(row.open));
    element.classList.toggle("group", row.isGroup);
    element.classList.toggle("idle", idle(row));
    [row.weight ?? "–", row.owed === null ? "–" : percent(row.owed), row.isGroup ? count(row.waiting, "client") : short(row.waiting), short(row.running), short(row.counter)].forEach((value, i) => text(cells[i], value));
    text(share, percent(row.share));
    shareBar.set(row.share);
  };
  return element;
}
