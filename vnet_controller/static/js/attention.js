// What somebody who was just woken should look at first.

import { arrange, find, legible, make, setText } from "./dom.js";
import { absolute, plural, relative } from "./format.js";
import { startOf } from "./migrations.js";

const RECENT_MS = 3600_000;
const MOST_NAMES = 5;

const box = find("attention");
let shown = "";

export function showAttention({ hosts, instances, migrations, failure }) {
  const lines = [];
  if (failure) lines.push(["bad", `The controller does not answer: ${failure}`]);
  const down = hosts.filter((host) => host.state !== "up");
  const downNames = new Set(down.map((host) => host.name));
  const stranded = instances.filter(
    (instance) => downNames.has(instance.host) && instance.state !== "stopped",
  );
  for (const host of down.slice(0, MOST_NAMES)) {
    const lost = stranded.filter((instance) => instance.host === host.name).length;
    const ago = relative(host.seen_us / 1000);
    lines.push(["bad", `Host ${host.name} is down: last heard ${ago}, ${plural(lost, "instance")} there`]);
  }
  if (down.length > MOST_NAMES) lines.push(["bad", `and ${down.length - MOST_NAMES} more hosts`]);
  const crashed = instances.filter((instance) => instance.state === "crashed");
  if (crashed.length) lines.push(["bad", `Crashed: ${names(crashed.map((i) => i.name || i.uuid))}`]);
  const recent = Date.now() - RECENT_MS;
  const aborted = migrations.filter((m) => m.phase === "aborted" && startOf(m) > recent);
  for (const migration of aborted.slice(0, MOST_NAMES)) {
    const name = migration.instance_name || migration.instance;
    const way = `${migration.source} → ${migration.destination}`;
    lines.push(["warn", `Migration of ${name} (${way}) was aborted at ${absolute(startOf(migration))}`]);
  }
  const suspended = instances.filter((instance) => instance.state === "suspended");
  if (suspended.length) {
    lines.push(["warn", `Suspended: ${names(suspended.map((i) => i.name || i.uuid))}`]);
  }
  draw(lines);
}

const names = (list) =>
  list.slice(0, MOST_NAMES).join(", ") +
  (list.length > MOST_NAMES ? ` and ${list.length - MOST_NAMES} more` : "");

function draw(lines) {
  const text = JSON.stringify(lines);
  if (text === shown) return;
  shown = text;
  const levels = lines.map(([level]) => level);
  box.dataset.level = levels.includes("bad") ? "bad" : levels.includes("warn") ? "warn" : "quiet";
  const items = lines.map(([, line]) => make("li", { text: legible(line) }));
  arrange(find("attention-list"), items.length ? items : [make("li", { text: "All quiet." })]);
  setText(find("attention-title"), lines.length ? "Attention" : "State");
}
