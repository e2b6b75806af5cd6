// Begins: who is logged in, which pool, which page.
import { admin, leave, logOut, session } from "./api.js";
import { h, text } from "./dom.js";
import { client } from "./client.js";
import { clients } from "./clients.js";
import { groups } from "./groups.js";
import { Live } from "./live.js";
import { overview } from "./overview.js";
import { whatIf } from "./what_if.js";

const view = document.getElementById("view");
const pulse = document.getElementById("pulse");
const PULSE = { live: "live", stale: "no news", wait: "connecting" };

let live = null;
let page = null;

function pageOf(hash) {
  const [where, query = ""] = hash.replace(/^#?\/?/, "").split("?");
  const [first, ...rest] = where.split("/");
  const name = decodeURIComponent(rest.join("/"));
  const given = { live, query: new URLSearchParams(query), name };
  if (first === "clients" && name) return [name, client(given)];
  if (first === "clients") return ["Clients", clients(given)];
  if (first === "groups") return ["Groups", groups(given)];
  if (first === "what-if") return ["What if", whatIf(given)];
  return ["Overview", overview(given)];
}

function show(moved = true) {
  page?.close();
  const [title, made] = pageOf(location.hash);
  page = made;
  document.title = `${title} · Fairlane`;
  const top = `#/${location.hash.replace(/^#?\/?/, "").split(/[/?]/)[0]}`;
  for (const link of document.querySelectorAll("nav[aria-label=Pages] a")) {
    if (link.getAttribute("href") === top) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  view.replaceChildren(page.element);
  page.update();
  if (moved) {
    scrollTo(0, 0);
    view.focus({ preventScroll: true });
  }
}

async function open(pool) {
  live?.stop();
  live = new Live(pool, "15m");
  live.addEventListener("seen", () => page?.update());
  live.addEventListener("pulse", beat);
  live.addEventListener("seen", beat);
  await live.start();
}

function beat() {
  pulse.dataset.state = live.state;
  text(document.getElementById("pulse-text"), PULSE[live.state]);
}

async function start() {
  await session();
  const pools = Object.keys(await admin("/live"));
  const select = document.getElementById("pool");
  select.append(...pools.map((pool) => h("option", { value: pool }, pool)));
  select.parentElement.hidden = pools.length < 2;
  select.addEventListener("change", async () => { await open(select.value); show(); });
  document.getElementById("logout").addEventListener("click", async () => {
    live?.stop();
    await logOut().catch(() => {});
    leave();
  });
  if (!pools.length) return view.replaceChildren(h("p", { class: "none" }, "This deployment serves no model."));
  addEventListener("hashchange", () => show());
  await open(pools[0]);
  show(false);
}

start().catch((error) => {
  if (error.status !== 401) view.replaceChildren(h("p", { class: "none", role: "alert" }, `${error.message}. Reload to try again.`));
});
