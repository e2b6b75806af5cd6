// One pool as it runs: the history that the store keeps, and every observation since.
import { admin, leave, session, written } from "./api.js";

export const SPANS = { "15m": 900e3, "1h": 3600e3, "24h": 86400e3 };
const COLUMNS = ["waiting", "running", "backlogged", "gap", "bound", "bound_seen", "jain", "service_per_s", "input_per_s", "output_per_s"];
const FIELDS = ["service_per_s", "waiting", "counter"];
const SHOWN = 8; // clients with a colour of their own
const KEPT = 60; // clients with columns
const STALE_MS = 9000;

export class Live extends EventTarget {
  constructor(pool, span) {
    super();
    this.pool = pool;
    this.span = span;
    this.latest = null;
    this.heardAt = 0;
    this.colors = new Map(); // client -> 0…7
    this.groups = new Map(); // client -> the group it was last seen in
    this.clear();
    this.watch = this.watch.bind(this);
  }

  clear() {
    this.at = [];
    for (const name of COLUMNS) this[name] = [];
    this.clients = new Map();
    this.chosenAt = 0;
    this.chosen = [];
  }

  async start() {
    this.ended = false;
    await this.load();
    this.watch();
    this.ticking = setInterval(() => this.tell("pulse"), 1000);
    document.addEventListener("visibilitychange", this.watch);
  }

  stop() {
    this.ended = true;
    clearInterval(this.ticking);
    document.removeEventListener("visibilitychange", this.watch);
    this.source?.close();
  }

  async show(span) {
    this.span = span;
    await this.load();
    this.tell("seen");
  }

  async load() {
    const history = await admin("/live/history", { pool: this.pool, span: this.span });
    this.clear();
    this.at = history.at_ms;
    for (const name of COLUMNS) this[name] = history[name];
    for (const [name, columns] of Object.entries(history.clients)) this.clients.set(name, columns);
    if (this.latest) this.append(this.latest);
    this.choose();
  }

  // A page that nobody looks at does not listen; it catches up when it is looked at again.
  async watch() {
    if (document.hidden) {
      this.source?.close();
      this.source = null;
      return;
    }
    if (this.source || this.ended) return;
    if (this.heardAt && Date.now() - this.heardAt > 20e3) await this.load().catch(() => {});
    if (this.source || this.ended) return;
    const source = new EventSource(`/dashboard/admin/live/events${written({ pool: this.pool })}`);
    this.source = source;
    source.addEventListener("observation", (event) => this.heard(JSON.parse(event.data)));
    source.addEventListener("error", async () => {
      this.tell("pulse");
      if (source.readyState !== EventSource.CLOSED) return; // it tries again on its own
      this.source = null;
      try {
        await session();
      } catch (error) {
        if (error.status === 401) return leave();
      }
      setTimeout(this.watch, 3000);
    });
  }

  heard(seen) {
    this.heardAt = Date.now();
    if (this.latest && seen.at_ms <= this.latest.at_ms) return;
    this.latest = seen;
    this.append(seen);
    if (Date.now() - this.chosenAt > 15e3 || this.chosen.length < Math.min(SHOWN, this.clients.size)) this.choose();
    this.tell("seen");
  }

  get state() {
    if (!this.latest) return "wait";
    if (Date.now() - this.heardAt > STALE_MS + 2 * this.latest.interval_ms) return "stale";
    return "live";
  }

  append(seen) {
    const last = this.at.at(-1) ?? 0;
    if (seen.at_ms <= last) return;
    const index = this.at.length;
    this.at.push(seen.at_ms);
    const values = { ...seen, ...seen.rates };
    for (const name of COLUMNS) this[name].push(values[name]);
    for (const columns of this.clients.values()) for (const field of FIELDS) columns[field].push(null);
    for (const row of seen.clients) {
      this.groups.set(row.client, row.group);
      let columns = this.clients.get(row.client);
      if (!columns) {
        if (this.clients.size >= KEPT) continue;
        columns = Object.fromEntries(FIELDS.map((field) => [field, new Array(index + 1).fill(null)]));
        this.clients.set(row.client, columns);
      }
      columns.service_per_s[index] = row.rates.service_per_s;
      columns.waiting[index] = row.waiting;
      columns.counter[index] = row.counter;
    }
    const from = seen.at_ms - SPANS[this.span];
    let drop = 0;
    while (this.at[drop] < from) drop++;
    if (drop > 30) {
      // now and then: it copies everything
      this.at.splice(0, drop);
      for (const name of COLUMNS) this[name].splice(0, drop);
      for (const [name, columns] of this.clients) {
        for (const field of FIELDS) columns[field].splice(0, drop);
        if (columns.service_per_s.every((value) => value === null)) {
          this.clients.delete(name);
          this.groups.delete(name);
        }
      }
    }
  }

  // Who gets a colour: those that received most over the time shown. Who has one keeps it.
  choose() {
    this.chosenAt = Date.now();
    const sums = [...this.clients].map(([name, columns]) => {
      const sum = (values) => values.reduce((total, value) => total + (value ?? 0), 0);
      const had = this.colors.has(name) ? 1.1 : 1;
      return [name, had * sum(columns.service_per_s), sum(columns.waiting)];
    });
    sums.sort((a, b) => b[1] - a[1] || b[2] - a[2] || (a[0] < b[0] ? -1 : 1));
    this.chosen = sums.slice(0, SHOWN).map(([name]) => name);
    for (const name of [...this.colors.keys()]) if (!this.chosen.includes(name)) this.colors.delete(name);
    const free = [...Array(SHOWN).keys()].filter((color) => ![...this.colors.values()].includes(color));
    for (const name of this.chosen) if (!this.colors.has(name)) this.colors.set(name, free.shift());
    this.chosen.sort((a, b) => this.colors.get(a) - this.colors.get(b));
  }

  color(client) {
    return this.colors.has(client) ? `--c${this.colors.get(client) + 1}` : "--others";
  }

  tell(what) {
    this.dispatchEvent(new Event(what));
  }
}
