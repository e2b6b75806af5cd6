// The first page: is it fair, who gets what, who waits, how the replicas are.
import { h, say } from "./dom.js";
import { Chart } from "./charts.js";
import { percent, short } from "./format.js";
import { headline, verdict } from "./headline.js";
import { picker } from "./picker.js";
import { replicaStrip } from "./replicas.js";
import { clientTable } from "./client_table.js";

export const title = "Overview";

export function overview({ live }) {
  let mode = "share";
  const head = headline();
  const strip = replicaStrip();
  const rows = clientTable(live);

  const shares = new Chart({
    title: "Service",
    hint: "who receives it: tokens by their cost, a second",
    stacked: true,
    height: 260,
    tools: [
      h("div", { class: "tools" },
        picker("Shown as", { share: "Shares", service: "Service/s" }, mode, (value) => { mode = value; shares.update(); }),
        picker("Time shown", { "15m": "15 min", "1h": "1 h", "24h": "24 h" }, live.span, (span) => live.show(span))),
    ],
    data: () => {
      const lines = stackedBy(live, "service_per_s", live.service_per_s);
      if (mode !== "share") return { at: live.at, lines, format: short, unit: "service" };
      return {
        at: live.at,
        lines: lines.map((line) => ({ ...line, values: line.values.map((value, i) => (live.service_per_s[i] ? value / live.service_per_s[i] : null)) })),
        format: (value) => percent(value, 0),
        max: 1,
        unit: "share",
      };
    },
    said: ({ lines, format }) => `Service over time. Last: ${lines.map((line) => `${line.name} ${format(line.values.at(-1) ?? 0)}`).join(", ")}.`,
  });

  const waiting = new Chart({
    title: "Waiting",
    hint: "requests in line, by client",
    stacked: true,
    data: () => ({ at: live.at, lines: stackedBy(live, "waiting", live.waiting), format: short }),
    said: () => `Waiting requests over time. Now ${short(live.waiting.at(-1) ?? 0)}.`,
  });

  const spread = new Chart({
    title: "Counters",
    hint: "ahead of the least served, in service",
    data: () => ({ at: live.at, lines: spreadOf(live), format: short }),
    said: () => "How far the counter of each client with something waiting is ahead of the lowest one, over time.",
  });

  const gap = new Chart({
    title: "Gap and bound",
    hint: "of counters, in service; logarithmic",
    data: () => ({
      at: live.at,
      lines: [
        { name: "gap", color: "--accent", values: live.gap.map((value) => (value === null ? null : Math.max(1, value))) },
        { name: "bound", color: "--warn", values: live.bound.map((value, at) => live.bound_seen[at] ?? value), dash: true },
      ],
      format: short,
      log: true,
    }),
    said: () => `The largest gap over time; now ${short(live.gap.at(-1))} of ${short(live.bound_seen.at(-1) ?? live.bound.at(-1))}.`,
  });

  const charts = [shares, waiting, spread, gap];
  const element = h("div", { class: "page" },
    h("h1", { class: "unseen" }, "Overview"),
    head.element,
    shares.element,
    h("div", { class: "columns" }, waiting.element, spread.element, gap.element),
    strip.element,
    rows.element,
  );

  let told = "";
  const update = () => {
    for (const chart of charts) chart.update();
    if (!live.latest) return;
    head.update(live.latest);
    strip.update(live.latest.replicas);
    rows.update(live.latest);
    const now = verdict(live.latest);
    if (told && told !== now.word) say(`${now.word}: ${now.why}`);
    told = now.word;
  };
  return { element, update, close: () => charts.forEach((chart) => chart.close()) };
}

// The clients with colours, and what is left of the total.
function stackedBy(live, field, total) {
  const lines = live.chosen.map((name) => ({ name, color: live.color(name), values: live.clients.get(name)?.[field] ?? [] }));
  const rest = total.map((sum, i) => Math.max(0, (sum ?? 0) - lines.reduce((known, line) => known + (line.values[i] ?? 0), 0)));
  const most = Math.max(0, ...total.map((sum) => sum ?? 0));
  if (rest.some((value) => value > 0.002 * most)) lines.push({ name: "others", color: "--others", values: rest });
  return lines;
}

function spreadOf(live) {
  const lowest = new Map(); // group -> at each time the lowest counter in it
  for (const [name, { waiting, counter }] of live.clients) {
    const group = live.groups.get(name);
    if (group === undefined) continue; // not seen since the page was opened: whom to compare it with?
    if (!lowest.has(group)) lowest.set(group, new Array(live.at.length).fill(Infinity));
    const low = lowest.get(group);
    for (let i = 0; i < low.length; i++) if (waiting[i] > 0 && counter[i] < low[i]) low[i] = counter[i];
  }
  return live.chosen.filter((name) => lowest.has(live.groups.get(name))).map((name) => {
    const { waiting, counter } = live.clients.get(name);
    const low = lowest.get(live.groups.get(name));
    return { name, color: live.color(name), values: counter.map((value, i) => (waiting[i] > 0 && value !== null ? value - low[i] : null)) };
  });
}

