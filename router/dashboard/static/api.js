// What the server is asked, and what becomes of its refusals.
let csrf = "";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(method, path, body) {
  const headers = { Accept: "application/json" };
  if (method !== "GET") headers["X-Fairlane-CSRF"] = csrf;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), credentials: "same-origin" });
  } catch {
    throw new Refused(0, "the server can't be reached");
  }
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  if (answer.status === 401) leave();
  throw new Refused(answer.status, content.error?.message ?? `the server answered ${answer.status}`);
}

export function leave() {
  location.replace("/dashboard/login");
}

export async function session() {
  const mine = await ask("GET", "/dashboard/session");
  csrf = mine.csrf;
  return mine;
}

export const logIn = (key) => ask("POST", "/dashboard/session", { key });
export const logOut = () => ask("DELETE", "/dashboard/session");

// The admin API, as this session may use it.
export function admin(path, query = {}) {
  return ask("GET", `/dashboard/admin${path}${written(query)}`);
}

export const change = (method, path, body) => ask(method, `/dashboard/admin${path}`, body);

export const path = (name) => name.split("/").map(encodeURIComponent).join("/");

export function written(query) {
  const pairs = Object.entries(query).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).filter((one) => one !== undefined && one !== "").map((one) => [name, one]),
  );
  return pairs.length ? `?${new URLSearchParams(pairs)}` : "";
}
