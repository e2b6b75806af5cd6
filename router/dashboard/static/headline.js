// Five numbers: fair or not, how evenly, how much, how many wait, what serves.
import { bar, h, text } from "./dom.js";
import { count, duration, percent, short } from "./format.js";

export function verdict(seen) {
  if (seen.policy !== "vtc") return { word: "Not fair", state: "bad", why: `the policy is ${seen.policy}` };
  if (seen.gap === null) {
    const why = seen.waiting || seen.running ? "fewer than two clients compete" : "nobody asks for anything";
    return { word: seen.running || seen.waiting ? "Free" : "Idle", state: "good", why };
  }
  const bound = seen.bound_seen ?? seen.bound;
  if (bound === null) return { word: "Fair?", state: "wait", why: `the gap is ${short(seen.gap)}; the bound is not known yet` };
  if (seen.gap <= bound) return { word: "Fair", state: "good", why: `gap ${short(seen.gap)} of at most ${short(bound)}` };
  if (seen.bound === null || seen.gap <= seen.bound) return { word: "Fair?", state: "wait", why: `gap ${short(seen.gap)}: more than the ${short(bound)} that requests so far explain` };
  return { word: "Out of bound", state: "bad", why: `gap ${short(seen.gap)}, bound ${short(seen.bound)}` };
}

export function headline() {
  const card = (label, extra = null) => {
    const big = h("p", { class: "big" }, "–");
    const small = h("p", { class: "small" }, " ");
    const element = h("section", { class: "card" }, h("h2", {}, label), big, extra, small);
    return { element, big, small };
  };
  const meter = bar("Gap, of its bound");
  const fair = card("Fairness", meter);
  const even = card("Jain's index");
  const rate = card("Tokens/s");
  const line = card("Waiting");
  const room = card("Replicas");
  const element = h("div", { class: "headline" }, [fair, even, rate, line, room].map((one) => one.element));

  const update = (seen) => {
    const { word, state, why } = verdict(seen);
    text(fair.big, word);
    fair.element.dataset.state = state;
    text(fair.small, why);
    const bound = seen.bound_seen ?? seen.bound;
    meter.set(bound ? (seen.gap ?? 0) / bound : 0);
    text(even.big, seen.jain === null ? "–" : seen.jain.toFixed(3));
    text(even.small, seen.jain === null ? "needs two clients that keep waiting" : `1 is even; over the last ${duration(seen.jain_ms)}`);
    const { input_per_s: input, output_per_s: output, cached_per_s: cached, service_per_s: service } = seen.rates;
    text(rate.big, short(input + output));
    text(rate.small, `${short(input)} in${cached ? ` (${percent(cached / input, 0)} cached)` : ""}, ${short(output)} out; service ${short(service)}/s`);
    text(line.big, short(seen.waiting));
    text(line.small, seen.waiting ? `${count(seen.backlogged, "client")}, the oldest for ${duration(seen.oldest_wait_ms)}` : `${count(seen.known, "client")} known`);
    const taking = seen.replicas.filter((replica) => replica.taking).length;
    text(room.big, taking === seen.replicas.length ? String(taking) : `${taking} of ${seen.replicas.length}`);
    text(room.small, `${count(seen.running, "request")} running, ${count(seen.credits, "free credit")}`);
  };
  return { element, update };
}
