// Puts what the dashboard ships of other projects into ../static/vendor, as it is, and notes
// versions and hashes in manifest.json. `npm ci --ignore-scripts && npm run build`; with `--check`
// it writes nothing and fails where a file is not what the package of the lock file has.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const vendor = join(here, "..", "static", "vendor");
const SHIPPED = {
  uplot: {
    "dist/uPlot.iife.min.js": "uplot.js",
    "dist/uPlot.min.css": "uplot.css",
    LICENSE: "uplot.LICENSE",
  },
};

const lock = JSON.parse(readFileSync(join(here, "package-lock.json"), "utf8")).packages;
const manifest = {};
const wrong = [];
mkdirSync(vendor, { recursive: true });
for (const [name, files] of Object.entries(SHIPPED)) {
  const folder = join(here, "node_modules", name);
  const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const { integrity, version: locked } = lock[`node_modules/${name}`];
  if (version !== locked) throw new Error(`${name} is ${version}, not ${locked}: run npm ci`);
  for (const [source, target] of Object.entries(files)) {
    const content = readFileSync(join(folder, source));
    const sha256 = createHash("sha256").update(content).digest("hex");
    manifest[target] = { package: name, version, integrity, source, sha256 };
    if (!process.argv.includes("--check")) writeFileSync(join(vendor, target), content);
    else if (!readFileSync(join(vendor, target)).equals(content)) wrong.push(target);
  }
}
const text = JSON.stringify(manifest, null, 2) + "\n";
const path = join(vendor, "manifest.json");
if (!process.argv.includes("--check")) writeFileSync(path, text);
else if (readFileSync(path, "utf8") !== text) wrong.push("manifest.json");
if (wrong.length) throw new Error(`not as built: ${wrong.join(", ")}; run npm run build`);
