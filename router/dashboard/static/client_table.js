// Those that receive or wait for most, now.
import { bar, h, keyed, table, text } from "./dom.js";
import { count, groupName, percent, short } from "./format.js";

const ORDERS = {
  share: ["Share", (row) => row.rates.service_per_s],
  waiting: ["Waiting", (row) => row.waiting],
  running: ["Running", (row) => row.running],
  ahead: ["Counter ahead by", (row) => row.ahead ?? -1],
  service: ["Service in all", (row) => row.service],
};

export function clientTable(live) {
  let order = "share";
  let seen = null;
  const body = h("tbody");
  const heads = [{ label: "Client" }, { label: "Weight", number: true }];
  for (const [key, [label]] of Object.entries(ORDERS)) {
    heads.push({ number: true, label: h("button", { type: "button", class: "sort", onclick: () => { order = key; mark(); update(seen); } }, label) });
  }
  const sheet = table("Clients now", heads, body);
  const mark = () => {
    [...sheet.querySelectorAll("thead th")].slice(2).forEach((cell, i) => {
      if (Object.keys(ORDERS)[i] === order) cell.setAttribute("aria-sort", "descending");
      else cell.removeAttribute("aria-sort");
    });
  };
  mark();
  const others = h("p", { class: "hint" });
  const element = h("section", { class: "card" },
    h("div", { class: "row" }, h("h2", {}, "Clients"), h("a", { href: "#/clients" }, "All clients")), sheet, others);

  const update = (now) => {
    seen = now;
    if (!seen) return;
    const lowest = new Map(); // in each group, of those that wait
    for (const { group, waiting, counter } of seen.clients) if (waiting) lowest.set(group, Math.min(counter, lowest.get(group) ?? Infinity));
    const rows = seen.clients.map((row) => ({ ...row, ahead: row.waiting ? row.counter - lowest.get(row.group) : null }));
    const value = ORDERS[order][1];
    rows.sort((a, b) => value(b) - value(a) || (a.client < b.client ? -1 : 1));
    keyed(body, rows, (row) => row.client, () => rowOf(live, () => seen));
    text(others, seen.others.clients ? `${count(seen.others.clients, "other client")}: ${percent(seen.others.rates.service_per_s / (seen.rates.service_per_s || 1))} of service, ${seen.others.waiting} waiting` : "");
  };
  return { element, update };
}

function rowOf(live, seen) {
  const link = h("a");
  const swatch = h("span", { class: "swatch", "aria-hidden": "true" });
  const group = h("span", { class: "small" });
  const share = h("span");
  const shareBar = bar();
  const cells = Object.fromEntries(["weight", "waiting", "running", "ahead", "service"].map((name) => [name, h("td", { class: "number" })]));
  const element = h("tr", {},
    h("th", { scope: "row" }, swatch, link, group),
    cells.weight, h("td", { class: "number share" }, share, shareBar), cells.waiting, cells.running, cells.ahead, cells.service);
  element.update = (row) => {
    text(link, row.client);
    link.href = `#/clients/${encodeURIComponent(row.client)}`;
    text(group, groupName(row.group));
    swatch.style.background = `var(${live.color(row.client)})`;
    const part = row.rates.service_per_s / (seen().rates.service_per_s || 1);
    text(share, percent(part));
    shareBar.set(part, `var(${live.color(row.client)})`);
    text(cells.weight, row.weight ?? "–");
    text(cells.waiting, short(row.waiting));
    text(cells.running, short(row.running));
    text(cells.ahead, short(row.ahead));
    text(cells.service, short(row.service));
  };
  return element;
}
