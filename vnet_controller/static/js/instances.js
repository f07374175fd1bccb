// Instances, and where they run.

import { arrange, find, legible, make, setText, state } from "./dom.js";
import { count, refresh, time } from "./format.js";
import { filterInstance } from "./timeline.js";

const MOST_ROWS = 500;
const LEVELS = { running: "good", active: "good", suspended: "warn", crashed: "bad" };
const FIRST = { crashed: 0, suspended: 1 };

const body = find("instances");
const search = find("instances-find");
const note = find("instances-note");

let known = new Map();
const rows = new Map();

search.addEventListener("input", show);

export const instances = () => [...known.values()];

export const nameOfInstance = (uuid) => known.get(uuid)?.name ?? "";

/** Take the whole list. */
export function setInstances(list) {
  known = new Map(list.map((instance) => [instance.uuid, instance]));
  for (const uuid of rows.keys()) if (!known.has(uuid)) rows.delete(uuid);
  show();
}

/** Take some that may be new or changed. */
export function mergeInstances(list) {
  for (const instance of list) known.set(instance.uuid, instance);
  if (list.length) show();
}

function show() {
  const words = search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const matching = instances().filter((instance) => {
    const text = `${instance.name} ${instance.uuid} ${instance.host} ${instance.state}`;
    return words.every((word) => text.toLowerCase().includes(word));
  });
  matching.sort(
    (a, b) =>
      (FIRST[a.state] ?? 2) - (FIRST[b.state] ?? 2) ||
      a.name.localeCompare(b.name, "en", { numeric: true }) ||
      (a.uuid < b.uuid ? -1 : 1),
  );
  arrange(body, matching.slice(0, MOST_ROWS).map(rowOf));
  const shown = Math.min(matching.length, MOST_ROWS);
  const all = shown === known.size;
  setText(find("instances-count"), all ? count(shown) : `${count(shown)} of ${count(known.size)}`);
  note.hidden = shown > 0;
  setText(note, known.size ? "No instance matches." : "No instance has been seen yet.");
}

function rowOf(instance) {
  let row = rows.get(instance.uuid);
  if (!row) {
    row = makeRow(instance.uuid);
    rows.set(instance.uuid, row);
  }
  const { cells, node } = row;
  const name = legible(instance.name) || "unnamed";
  setText(cells.name, name);
  cells.name.title = `${name}: show its events`;
  setText(cells.host, instance.host);
  setText(cells.state, instance.state);
  cells.state.dataset.level = LEVELS[instance.state] ?? "idle";
  const ms = Date.parse(instance.since);
  if (Number(cells.since.dataset.ms) !== ms) {
    cells.since.dataset.ms = ms;
    cells.since.title = instance.since;
    refresh(cells.since);
  }
  return node;
}

function makeRow(uuid) {
  const cells = {
    name: make("button", { type: "button", class: "name" }),
    host: make("span", { class: "name" }),
    state: state("", "idle"),
    since: time(0),
  };
  cells.name.addEventListener("click", () => filterInstance(uuid));
  const node = make(
    "tr",
    { "data-uuid": uuid },
    make("td", {}, cells.name, make("span", { class: "uuid", text: uuid })),
    make("td", {}, cells.host),
    make("td", {}, cells.state),
    make("td", {}, cells.since),
  );
  return { node, cells };
}
