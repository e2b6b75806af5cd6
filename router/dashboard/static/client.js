// One client: what it gets now, its keys, its last requests, what it used.
import { admin, change, path } from "./api.js";
import { h, say, table, text } from "./dom.js";
import { Chart } from "./charts.js";
import { clock, duration, moment, percent, short } from "./format.js";

const EVERY_MS = 2000;
const SAMPLES = 450;

export const title = "Client";

export function client({ live, name }) {
  const numbers = Object.fromEntries(["Share", "Service/s", "Waiting", "Running", "Counter", "Service in all"].map((label) => [label, h("dd", {}, "–")]));
  const facts = h("p", { class: "hint" }, " ");
  const actions = h("p", { class: "actions" }, h("a", { class: "button", href: `#/what-if?client=${encodeURIComponent(name)}` }, "What if its weight were…"));
  const samples = { at: [], service: [], waiting: [] };
  let last = null;

  const chart = new Chart({
    title: "Service by the second",
    hint: "since this page was opened, or longer where the history has it",
    data: () => {
      const known = live.clients.get(name);
      const long = known && known.service_per_s.filter((value) => value !== null).length > samples.at.length;
      return {
        at: long ? live.at : samples.at,
        lines: [{ name: "service/s", color: "--accent", values: long ? known.service_per_s : samples.service, area: true }],
        format: short,
      };
    },
    said: ({ lines }) => `Service of ${name} by the second; now ${short(lines[0].values.at(-1))}.`,
  });
  const keys = h("section", { class: "card" }, h("h2", {}, "Keys"));
  const recent = h("section", { class: "card" }, h("h2", {}, "Last requests"));
  const usage = h("section", { class: "card" }, h("h2", {}, "Usage in tokens, 14 days"));
  const element = h("div", { class: "page" },
    h("p", { class: "crumbs" }, h("a", { href: "#/clients" }, "Clients")),
    h("h1", {}, name), facts, actions,
    h("section", { class: "card", "aria-label": "Now" }, h("dl", { class: "numbers" }, Object.entries(numbers).map(([label, value]) => h("div", {}, h("dt", {}, label), value)))),
    chart.element, h("div", { class: "columns two" }, h("div", { class: "page" }, keys, usage), recent));

  async function states() {
    if (document.hidden) return;
    const pools = await admin("/live/clients", { client: [name] });
    const state = pools[live.pool]?.[name];
    const now = performance.now();
    const row = live.latest?.clients.find((one) => one.client === name);
    let rate = row?.rates.service_per_s ?? null;
    if (rate === null && last && state) rate = Math.max(0, (1000 * (state.service - last.service)) / (now - last.now));
    if (state) last = { now, service: state.service };
    samples.at.push(Date.now());
    samples.service.push(rate);
    samples.waiting.push(state?.waiting ?? 0);
    for (const values of Object.values(samples)) if (values.length > SAMPLES) values.shift();
    const total = live.latest?.rates.service_per_s;
    const told = { Share: total && rate !== null ? percent(rate / total) : "–", "Service/s": short(rate), Waiting: short(state?.waiting ?? 0), Running: short(state?.running ?? 0), Counter: short(state?.counter), "Service in all": short(state?.service ?? 0) };
    for (const [label, value] of Object.entries(told)) text(numbers[label], value);
    chart.update();
  }

  async function about() {
    const mine = await admin(`/clients/${path(name)}`);
    const parts = [`weight ${mine.weight}`, mine.group ? `in ${mine.group}` : "in no group", mine.source === "configuration" ? "from the configuration" : `made ${moment(mine.created_at)}`];
    if (mine.priority_class) parts.push(`class ${mine.priority_class}`);
    if (!mine.enabled) parts.push("disabled");
    text(facts, parts.join(" · "));
    if (mine.source === "configuration") return;
    const toggle = h("button", { type: "button" }, mine.enabled ? "Disable" : "Enable");
    toggle.addEventListener("click", async () => {
      if (mine.enabled && !confirm(`Refuse all keys of ${name} from now on?`)) return;
      try {
        await change("PATCH", `/clients/${path(name)}`, { enabled: !mine.enabled });
        say(`${name} is ${mine.enabled ? "disabled" : "enabled"}`);
        toggle.remove();
        await about();
      } catch (error) {
        text(facts, error.message);
      }
    });
    actions.querySelector("button")?.remove();
    actions.append(toggle);
  }

  fill(keys, async () => {
    const all = (await admin("/keys", { client: name })).keys;
    if (!all.length) return h("p", { class: "none" }, "It has no key.");
    return table(`Keys of ${name}`, [{ label: "Id" }, { label: "Label" }, { label: "State" }, { label: "Expires" }],
      h("tbody", {}, all.map((key) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, key.id)), h("td", {}, key.label), h("td", {}, key.state), h("td", {}, key.expires_at ? moment(key.expires_at) : "never")))));
  });
  fill(usage, async () => {
    const from = new Date(Date.now() - 13 * 86400e3).toISOString().slice(0, 10);
    const rows = (await admin("/usage", { client: [name], by: "day,model", from, limit: 200 })).usage.reverse();
    if (!rows.length) return h("p", { class: "none" }, "Nothing in these days.");
    return table(`What ${name} used`, ["Day", "Model", "Requests", "Input", "Cached", "Output", "Service"].map((label, i) => ({ label, number: i > 1 })),
      h("tbody", {}, rows.map((row) => h("tr", {}, h("th", { scope: "row" }, row.day), h("td", {}, row.model),
        [row.requests, row.input_tokens, row.cached_tokens, row.output_tokens, row.service].map((value) => h("td", { class: "number" }, short(value)))))));
  });
  fill(recent, () => requests(name));
  about().catch((error) => text(facts, error.status === 404 ? "Not in the directory any more; what it used is still known." : error.message));
  states().catch(() => {});
  const timer = setInterval(() => states().catch(() => {}), EVERY_MS);
  return { element, update() {}, close: () => { clearInterval(timer); chart.close(); } };
}

// A section whose content comes later, or a word why not.
async function fill(section, make) {
  const waiting = h("p", { class: "none" }, "…");
  section.append(waiting);
  try {
    waiting.replaceWith(await make());
  } catch (error) {
    text(waiting, error.message);
  }
}

async function requests(name) {
  let all;
  try {
    ({ requests: all } = await admin("/requests", { client: name, limit: 15 }));
  } catch (error) {
    if (error.status !== 404) throw error;
    return h("p", { class: "none" }, "This deployment keeps no stories of requests.");
  }
  if (!all.length) return h("p", { class: "none" }, "None that a router remembers.");
  const dialog = h("dialog", { "aria-label": "What became of a request" });
  const explain = async (id) => {
    const lines = await admin(`/explain/${path(id)}`).then((story) => story.account, (error) => [error.message]);
    dialog.replaceChildren(h("h2", {}, "Request ", h("code", {}, id)), ...lines.map((line) => h("p", {}, line)),
      h("p", { class: "actions" }, h("button", { type: "button", onclick: () => dialog.close() }, "Close")));
    dialog.showModal();
  };
  const sheet = table(`Last requests of ${name}`, [{ label: "When" }, { label: "Request" }, { label: "State" }, { label: "Waited", number: true }, { label: "In all", number: true }, { label: "Tokens", number: true }],
    h("tbody", {}, all.map((one) => h("tr", {},
      h("td", {}, clock(Date.parse(one.received_at), true)),
      h("th", { scope: "row" }, h("button", { type: "button", class: "link", onclick: () => explain(one.request) }, h("code", {}, one.request))),
      h("td", {}, one.state),
      h("td", { class: "number" }, duration(one.waited_ms)), h("td", { class: "number" }, duration(one.ended_ms)),
      h("td", { class: "number" }, one.output_tokens === null ? "–" : `${short(one.input_tokens)} + ${short(one.output_tokens)}`)))));
  return h("div", {}, sheet, dialog);
}
