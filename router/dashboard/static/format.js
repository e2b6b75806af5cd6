// Numbers as people read them.
const NONE = "–";

export function short(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return NONE;
  const size = Math.abs(value);
  for (const [unit, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= unit) return `${Number((value / (name === "k" ? 1e3 : unit)).toPrecision(digits))}${name}`;
  }
  return size >= 100 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(digits)));
}

export function percent(part, digits = 1) {
  if (part === null || part === undefined || Number.isNaN(part)) return NONE;
  return `${(100 * part).toFixed(Math.abs(part) >= 0.1 ? Math.min(digits, 1) : digits)} %`;
}

export function duration(ms) {
  if (ms === null || ms === undefined) return NONE;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const two = (size, name, small, unit) => {
    const [many, rest] = [Math.floor(seconds / size), Math.round((seconds % size) / small)];
    return `${many} ${name}${rest ? ` ${rest} ${unit}` : ""}`;
  };
  return seconds < 3600 ? two(60, "min", 1, "s") : two(3600, "h", 60, "min");
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

// A priority class is an outermost group of that name: ["interactive", "acme/ml"].
export function inClass(path) {
  if (!path.startsWith("class:")) return ["", path];
  const [outermost, ...within] = path.slice("class:".length).split("/");
  return [outermost, within.join("/")];
}

export function groupName(path) {
  const [priority, within] = inClass(path);
  return [within, priority && `class ${priority}`].filter(Boolean).join(", ");
}

export function moment(text) {
  return text ? new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : NONE;
}

export function clock(ms, seconds = false) {
  return new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...(seconds ? { second: "2-digit" } : {}) });
}
