// The last migrations: numbers on the line; below, a timeline and both sides' steps.

import { arrange, find, legible, make, setText, state } from "./dom.js";
import { count, milliseconds, time } from "./format.js";

const LEVELS = { done: "good", active: "good", drain: "good", aborted: "bad" };
const FINAL = ["done", "aborted"];

const NUMBERS = [
  ["connections_moved", "Connections moved", count],
  ["refused", "Connections refused", count],
  ["precopy_rounds", "Pre-copy rounds", count],
  ["final_delta_ms", "Final delta", milliseconds],
  ["vcpu_pause_ms", "vCPU pause", milliseconds],
  ["network_gap_ms", "Network gap", milliseconds],
  ["frames_replayed", "Frames replayed", count],
  ["frames_lost", "Frames lost", count],
  ["frames_duplicated", "Frames doubled", count],
];

const list = find("migrations");
const drawn = new Map();
let known = [];

export const migrations = () => known;

export const isUnderWay = (migration) => !FINAL.includes(migration.phase);

export const startOf = (migration) => (migration.steps[0]?.time_ns ?? 0) / 1e6;

/** Take the list, newest first; what did not change is not drawn again and stays open. */
export function setMigrations(newest) {
  known = newest;
  const nodes = newest.map((migration) => {
    const text = JSON.stringify(migration);
    const before = drawn.get(migration.id);
    if (before?.text === text) return before.node;
    const node = before?.node ?? make("details", { "data-id": migration.id });
    const hadFocus = node.contains(document.activeElement);
    node.replaceChildren(makeLine(migration), makeReport(migration));
    if (hadFocus) node.firstChild.focus();
    drawn.set(migration.id, { text, node });
    return node;
  });
  const ids = new Set(newest.map((migration) => migration.id));
  for (const id of drawn.keys()) if (!ids.has(id)) drawn.delete(id);
  arrange(list, nodes);
  find("migrations-note").hidden = nodes.length > 0;
  const moving = newest.filter(isUnderWay).length;
  setText(find("migrations-count"), moving ? `${moving} under way` : "");
}

const refusedIn = ({ connections_refused: reasons }) =>
  Object.values(reasons ?? {}).reduce((sum, number) => sum + number, 0);

function numbersOf(migration) {
  const measured = migration.connections_moved !== null;
  return { ...migration, refused: measured ? refusedIn(migration) : null };
}

function makeLine(migration) {
  const numbers = numbersOf(migration);
  const figures = make("span", { class: "figures" });
  const add = (text, word, isBad) =>
    figures.append(
      make("span", { class: isBad ? "bad" : null }, make("b", { text }), ` ${word}`),
      "  ",
    );
  add(count(numbers.connections_moved), "moved");
  add(count(numbers.refused), "refused", numbers.refused > 0);
  if (numbers.vcpu_pause_ms !== null) add(milliseconds(numbers.vcpu_pause_ms), "vCPU pause");
  if (numbers.network_gap_ms !== null) add(milliseconds(numbers.network_gap_ms), "network gap");
  if (numbers.frames_lost !== null) {
    add(count(numbers.frames_lost), "frames lost", numbers.frames_lost > 0);
  }
  return make(
    "summary",
    {},
    make("span", { class: "name", text: legible(migration.instance_name) || migration.instance }),
    make("span", { text: `${migration.source} → ${migration.destination}` }),
    state(migration.phase, LEVELS[migration.phase] ?? "warn"),
    startOf(migration) ? time(startOf(migration)) : null,
    figures,
  );
}

function makeReport(migration) {
  const numbers = numbersOf(migration);
  const table = make("dl");
  const add = (term, text) =>
    table.append(make("div", {}, make("dt", { text: term }), make("dd", { text })));
  for (const [field, term, format] of NUMBERS) add(term, format(numbers[field]));
  for (const [reason, number] of Object.entries(migration.connections_refused ?? {})) {
    add(`refused: ${reason}`, count(number));
  }
  add("Generation", String(migration.generation));
  const error = migration.error ? make("p", { class: "error", text: legible(migration.error) }) : null;
  return make("div", { class: "report" }, error, makeTimeline(migration), table, makeSteps(migration));
}

/** When each phase began, by one side's clock: the destination's where it has told of it. */
function phasesOf(migration) {
  const side = migration.steps.some((step) => step.side === "destination") ? "destination" : "source";
  const begins = new Map();
  for (const step of migration.steps) {
    if (step.side === side && !begins.has(step.phase)) begins.set(step.phase, step.time_ns / 1e6);
  }
  return [...begins].map(([phase, begin], index, all) => ({
    phase,
    length: index + 1 < all.length ? all[index + 1][1] - begin : null,
  }));
}

/** The phases in proportion, and below them how long the guest stood still and heard nothing. */
function makeTimeline(migration) {
  const phases = phasesOf(migration).filter(({ length }) => length !== null);
  const bar = (kind, length, label) => {
    const node = make("span", { class: `span ${kind}`, title: label, text: label });
    node.style.flexGrow = String(Math.max(length, 0));
    return node;
  };
  const row = (...spans) => make("div", { class: "row" }, ...spans);
  const rows = [
    row(...phases.map(({ phase, length }) => bar(phase, length, `${phase} ${milliseconds(length)}`))),
  ];
  const silences = [
    ["pause", "vCPU pause", migration.vcpu_pause_ms],
    ["gap", "network gap", migration.network_gap_ms],
  ].filter(([, , length]) => length !== null);
  const longest = Math.max(...silences.map(([, , length]) => length));
  for (const [kind, word, length] of silences) {
    const rest = make("span", { class: "rest" });
    rest.style.flexGrow = String(longest - length);
    rows.push(row(bar(kind, length, `${word} ${milliseconds(length)}`), rest));
  }
  return make("div", { class: "timeline" }, ...rows);
}

function makeSteps(migration) {
  const start = migration.steps[0]?.time_ns ?? 0;
  const rows = migration.steps.map((step) =>
    make(
      "li",
      {},
      make("span", { class: "offset", text: `+${((step.time_ns - start) / 1e6).toFixed(1)} ms` }),
      make("span", { class: "dim", text: step.side }),
      make("span", { text: step.phase }),
      make("span", { class: "detail dim", text: legible(step.detail) }),
    ),
  );
  return make("ol", { class: "steps" }, ...rows);
}
