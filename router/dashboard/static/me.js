// A client's own page. Its key stays in this tab.
import { bar, h, keyed, table, text } from "./dom.js";
import { duration, percent, short } from "./format.js";

const KEY = "fairlane-key";
const EVERY_MS = 3000;

const bytes = (value) => (value >= 2 ** 20 ? `${short(value / 2 ** 20)} MiB` : `${short(value / 2 ** 10)} KiB`);
const LIMITS = {
  max_body_bytes: ["A request’s body", bytes],
  max_wait_s: ["Waits no longer than", (seconds) => duration(1000 * seconds)],
  waiting_requests: ["Requests that wait", short],
  waiting_bytes: ["Their bodies together", bytes],
  requests_per_minute: ["Requests a minute", short],
  tokens_per_minute: ["Tokens a minute", short],
  concurrency: ["Requests in flight", short],
  queued_requests: ["Requests in line", short],
  queued_bytes: ["Bytes in line", bytes],
};

const ask = document.getElementById("ask");
const mine = document.getElementById("mine");
const field = document.getElementById("key");
const why = document.getElementById("why");
const forget = document.getElementById("forget");
let timer = 0;

async function load(key) {
  const answer = await fetch("/me", { headers: { Authorization: `Bearer ${key}`, Accept: "application/json" }, credentials: "omit" });
  const content = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(content.error?.message ?? `the server answered ${answer.status}`), { status: answer.status });
  return content;
}

const pools = h("div", { class: "page" });
const usage = h("tbody");
const limits = h("dl", { class: "numbers" });
const heading = h("h1");
const about = h("p", { class: "hint" });
const trouble = h("p", { class: "hint", role: "status" });
mine.append(h("div", { class: "page", hidden: true },
  heading, about, trouble, pools,
  h("section", { class: "card" }, h("h2", {}, "Usage in tokens, 14 days"), table("What you used", ["Day", "Model", "Requests", "Input", "Cached", "Output", "Service"].map((label, i) => ({ label, number: i > 1 })), usage)),
  h("section", { class: "card" }, h("h2", {}, "Limits"), limits)));

function show(content) {
  mine.firstChild.hidden = false;
  text(heading, content.client);
  text(about, `weight ${content.weight}${content.group ? ` in ${content.group}` : ""}${content.priority_class ? `, class ${content.priority_class}` : ""}`);
  keyed(pools, Object.entries(content.pools), ([name]) => name, pool);
  usage.replaceChildren(...[...content.usage].reverse().map((row) => h("tr", {}, h("th", { scope: "row" }, row.day), h("td", {}, row.model),
    [row.requests, row.input_tokens, row.cached_tokens, row.output_tokens, row.service].map((value) => h("td", { class: "number" }, short(value))))));
  const every = Object.entries(content.limits).map(([name, limit]) => ["", name, limit]);
  const own = Object.entries(content.own_limits).flatMap(([of, some]) => Object.entries(some).map(([name, limit]) => [of, name, limit]));
  keyed(limits, [...own, ...every], ([of, name]) => `${of} ${name}`, () => {
    const [label, value] = [h("dt"), h("dd")];
    const element = h("div", {}, label, value);
    element.update = ([of, name, limit]) => {
      const [called, shown] = LIMITS[name] ?? [name.replaceAll("_", " "), short];
      text(label, of ? `${called}, ${of}` : called);
      text(value, shown(limit));
    };
    return element;
  });
}

function pool() {
  const names = ["Share", "Service/s", "Waiting", "Running", "Longest wait", "Ahead of you"];
  const values = Object.fromEntries(names.map((name) => [name, h("dd")]));
  const share = bar("Your share of the service");
  const title = h("h2");
  const element = h("section", { class: "card" }, title, h("dl", { class: "numbers" }, names.map((name) => h("div", {}, h("dt", {}, name), values[name]))), share);
  element.update = ([name, now]) => {
    text(title, name);
    text(values.Share, percent(now.share));
    text(values["Service/s"], short(now.service_per_s));
    text(values.Waiting, short(now.waiting));
    text(values.Running, short(now.running));
    text(values["Longest wait"], now.waiting ? duration(now.waited_ms) : "–");
    text(values["Ahead of you"], now.ahead.length ? now.ahead.map((place) => `${place.ahead} of ${place.of}${place.group ? ` in ${place.group}` : ""}`).join(", ") : "–");
    share.set(now.share ?? 0);
  };
  return element;
}

async function begin(key) {
  clearInterval(timer);
  show(await load(key));
  sessionStorage.setItem(KEY, key);
  ask.hidden = true;
  forget.hidden = false;
  timer = setInterval(async () => {
    if (document.hidden) return;
    try {
      show(await load(key));
      text(trouble, "");
    } catch (error) {
      if (error.status === 401) end(error.message);
      else text(trouble, error.message);
    }
  }, EVERY_MS);
}

function end(message = "") {
  clearInterval(timer);
  sessionStorage.removeItem(KEY);
  mine.firstChild.hidden = true;
  forget.hidden = true;
  ask.hidden = false;
  field.value = "";
  text(why, message);
  field.focus();
}

ask.addEventListener("submit", (event) => {
  event.preventDefault();
  text(why, "");
  begin(field.value.trim()).catch((error) => { text(why, error.message); field.select(); });
});
forget.addEventListener("click", () => end());
const kept = sessionStorage.getItem(KEY);
if (kept) begin(kept).catch((error) => end(error.message));
else end();
