// Charts by uPlot: stacked areas and lines over time, each with a legend that is also the list of
// what it shows, and with its numbers as a table.
import { h, keyed, text } from "./dom.js";
import { clock } from "./format.js";

const { uPlot } = globalThis;
const GAP_MS = 30e3; // without a point: the line breaks
const ROWS = 12;
const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// series: () -> {at: [ms], lines: [{name, color, values, dash?, area?}], format, max?}
export class Chart {
  constructor({ title, hint, stacked = false, height = 200, data, said, tools = [] }) {
    Object.assign(this, { stacked, height, data, said });
    this.plot = h("div", { class: "plot", role: "img" });
    this.plot.style.height = `${height}px`;
    this.legend = h("ul", { class: "legend" });
    this.none = h("p", { class: "none", hidden: true }, "Nothing yet.");
    this.body = h("tbody");
    this.head = h("tr");
    this.details = h(
      "details",
      { ontoggle: () => this.list() },
      h("summary", {}, "As a table"),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}, as a table` },
        h("table", {}, h("caption", { class: "unseen" }, title), h("thead", {}, this.head), this.body)),
    );
    this.element = h(
      "figure",
      { class: "card chart" },
      h("figcaption", {}, h("h2", {}, title), hint ? h("p", { class: "hint" }, hint) : null, ...tools),
      this.plot, this.none, this.legend, this.details,
    );
    this.sizing = new ResizeObserver(() => this.resize());
    this.sizing.observe(this.plot);
    this.restyle = () => this.rebuild();
    document.addEventListener("themechange", this.restyle);
  }

  close() {
    this.sizing.disconnect();
    document.removeEventListener("themechange", this.restyle);
    this.chart?.destroy();
  }

  resize() {
    const width = this.plot.clientWidth;
    if (this.chart && width && width !== this.chart.width) this.chart.setSize({ width, height: this.height });
    else if (!this.chart && width) this.update();
  }

  rebuild() {
    this.chart?.destroy();
    this.chart = null;
    this.update();
  }

  update() {
    const shown = this.data();
    this.shown = shown;
    this.plot.setAttribute("aria-label", this.said(shown));
    this.none.hidden = shown.at.length > 1;
    this.plot.hidden = shown.at.length < 2;
    this.label(shown);
    if (this.details.open) this.list();
    if (shown.at.length < 2 || !this.plot.clientWidth) return;
    const key = shown.lines.map((line) => `${line.name}\n${line.color}`).join("\n") + shown.unit;
    if (this.chart && this.key !== key) {
      this.chart.destroy();
      this.chart = null;
    }
    const values = this.columns(shown);
    if (this.chart) this.chart.setData(values);
    else this.chart = new uPlot(this.options(shown), values, this.plot);
    this.key = key;
  }

  columns({ at, lines }) {
    const breaks = [];
    for (let i = 1; i < at.length; i++) {
      const usual = Math.min(at[i] - at[i - 1], i > 1 ? at[i - 1] - at[i - 2] : Infinity);
      if (at[i] - at[i - 1] > Math.max(GAP_MS, 4 * usual)) breaks.push(i);
    }
    const broken = (values, fill) => {
      const out = values.slice();
      for (const i of [...breaks].reverse()) out.splice(i, 0, fill(i));
      return out;
    };
    const x = broken(at, (i) => at[i - 1] + 1).map((ms) => ms / 1000);
    if (!this.stacked) return [x, ...lines.map((line) => broken(line.values, () => null))];
    const sums = new Array(at.length).fill(0);
    const known = at.map((_, i) => lines.some((line) => (line.values[i] ?? null) !== null));
    return [x, ...lines.map((line) => {
      for (let i = 0; i < sums.length; i++) sums[i] += line.values[i] ?? 0;
      return broken(sums.map((sum, i) => (known[i] ? sum : null)), () => null);
    })];
  }

  options({ lines, format, max, log }) {
    const axis = { stroke: css("--muted"), font: "11px system-ui, sans-serif", grid: { stroke: css("--grid"), width: 1 }, ticks: { show: false } };
    return {
      width: this.plot.clientWidth,
      height: this.height,
      padding: [8, 22, 0, 0],
      legend: { show: false },
      cursor: { points: { size: 5 }, drag: { x: false, y: false }, y: false },
      scales: {
        x: { time: true },
        y: log
          ? { distr: 3, range: (_, low, high) => [1, 10 ** Math.ceil(Math.log10(Math.max(10, high || 1)) + 0.05)] }
          : { range: (_, low, high) => [0, max ?? Math.max(1e-9, high * 1.06 || 1)] },
      },
      axes: [
        { ...axis, size: 26, space: this.plot.clientWidth < 500 ? 58 : 86, incrs: STEPS_S, grid: { show: false }, values: (_, ticks) => ticks.map((s) => clock(1000 * s, ticks.length > 1 && ticks[1] - ticks[0] < 60)) },
        {
          ...axis, size: 46, space: 34,
          values: (_, ticks) => ticks.map((value) => format(value)),
          ...(log ? { splits: (_, axis, low, high) => powers(low, high), filter: (_, splits) => splits } : {}),
        },
      ],
      series: [
        {},
        ...lines.map((line) => ({
          label: line.name,
          stroke: css(line.color),
          width: this.stacked ? 1 : line.dash ? 1.5 : 2,
          dash: line.dash ? [6, 4] : undefined,
          fill: this.stacked ? `${css(line.color)}cc` : line.area ? `${css(line.color)}33` : undefined,
          points: this.stacked ? { show: false } : { show: true, size: 3, width: 0, fill: css(line.color), filter: alone },
        })),
      ],
      bands: this.stacked ? lines.slice(1).map((_, i) => ({ series: [i + 2, i + 1] })) : [],
      hooks: { setCursor: [(plot) => this.point(plot.cursor.idx)] },
    };
  }

  // The legend tells the values under the pointer, else the last ones.
  point(index) {
    this.pointed = index ?? null;
    this.label(this.shown);
  }

  label({ at, lines, format }) {
    // Kept, since an item is made once and updated often.
    this.index = this.pointed !== null && this.pointed !== undefined && this.pointed < at.length ? this.pointed : at.length - 1;
    keyed(this.legend, lines, (line) => line.name, () => {
      const swatch = h("span", { class: "swatch", "aria-hidden": "true" });
      const name = h("span", { class: "name" });
      const value = h("span", { class: "value" });
      const item = h("li", {}, swatch, name, value);
      item.update = (line) => {
        swatch.style.background = `var(${line.color})`;
        text(name, line.name);
        const now = line.values[this.index];
        text(value, now === null || now === undefined ? "–" : format(now));
      };
      return item;
    });
  }

  list() {
    if (!this.details.open || !this.shown) return;
    const { at, lines, format } = this.shown;
    const step = Math.max(1, Math.ceil(at.length / ROWS));
    const rows = at.map((_, i) => i).filter((i) => (at.length - 1 - i) % step === 0).reverse();
    this.head.replaceChildren(h("th", { scope: "col" }, "time"), ...lines.map((line) => h("th", { scope: "col", class: "number" }, line.name)));
    this.body.replaceChildren(
      ...rows.map((i) => h("tr", {}, h("th", { scope: "row" }, clock(at[i], true)), lines.map((line) =>
        h("td", { class: "number" }, line.values[i] === null || line.values[i] === undefined ? "–" : format(line.values[i]))))),
    );
  }
}

// Points without neighbours: no line goes through them, so each is drawn by itself.
function alone(plot, series) {
  const values = plot.data[series];
  const none = (i) => values[i] === null || values[i] === undefined;
  return values.flatMap((_, i) => (!none(i) && none(i - 1) && none(i + 1) ? [i] : []));
}

// Of ten, no more than five.
function powers(low, high) {
  const [first, last] = [Math.round(Math.log10(low)), Math.round(Math.log10(high))];
  const step = Math.ceil((last - first) / 5);
  return Array.from({ length: Math.floor((last - first) / step) + 1 }, (_, i) => 10 ** (first + i * step));
}
