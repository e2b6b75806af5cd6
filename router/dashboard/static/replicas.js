// A small card for each replica: its batch, its cache, what it would take.
import { bar, h, keyed, text } from "./dom.js";
import { count, percent, short } from "./format.js";

const MOST = 64; // cards; a deployment with more is a table's business

export function replicaStrip() {
  const list = h("ul", { class: "strip" });
  const none = h("p", { class: "none" }, "No replica is alive.");
  const more = h("p", { class: "hint" });
  const element = h("section", { class: "card" }, h("h2", {}, "Replicas"), list, none, more);
  const update = (replicas) => {
    none.hidden = replicas.length > 0;
    text(more, replicas.length > MOST ? `and ${replicas.length - MOST} more` : "");
    more.hidden = replicas.length <= MOST;
    keyed(list, replicas.slice(0, MOST), (replica) => replica.name, one);
  };
  return { element, update };
}

function one() {
  const name = h("h3");
  const state = h("span", { class: "tag" });
  const batch = bar();
  const cache = bar();
  const [inBatch, inCache, rest] = [h("span"), h("span"), h("p", { class: "small" })];
  const element = h("li", {},
    h("div", { class: "row" }, name, state),
    h("p", { class: "row" }, h("span", {}, "batch"), inBatch), batch,
    h("p", { class: "row" }, h("span", {}, "KV cache"), inCache), cache,
    rest);
  element.update = ({ name: full, taking, running, credits, facts }) => {
    text(name, brief(full));
    name.title = full;
    text(state, taking ? "taking" : "draining");
    state.dataset.state = taking ? "good" : "wait";
    // What is granted beyond the slots waits in the replica, so that no slot is ever idle.
    const next = facts ? Math.max(0, running - facts.slots) : 0;
    text(inBatch, facts ? `${running - next} of ${facts.slots}${next ? `, ${next} next` : ""}` : String(running));
    batch.set(facts ? running / facts.slots : 0);
    text(inCache, facts && facts.kv_tokens ? `${percent(facts.kv_use, 0)} of ${short(facts.kv_tokens)} tokens` : "unknown");
    cache.set(facts?.kv_use ?? 0);
    text(rest, `${count(credits, "free credit")}` + (facts?.preemptions ? `, ${count(facts.preemptions, "preemption")}` : ""));
  };
  return element;
}

// What tells replicas of one deployment apart is at the end of their names.
export const brief = (name) => name.split("#").at(-1).split("-").at(-1).slice(-12) || name;
