// The events, newest first; as many as fit a reader, never more than MOST.

import { get } from "./api.js";
import { find, legible, make, setText, state } from "./dom.js";
import { TYPES, hostOf, levelOf, nameOf, noteOf } from "./events.js";
import { time } from "./format.js";

const MOST = 300;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

const list = find("timeline");
const note = find("timeline-note");
const pauseButton = find("pause");
const typeFilter = find("filter-type");
const textFilter = find("filter-text");

let cursor = 0;
let held = null;
let loads = 0;
let nameOfInstance = () => "";

/** Load the newest events; returns the cursor from which the stream goes on. */
export async function startTimeline(lookUpName) {
  nameOfInstance = lookUpName;
  for (const type of TYPES) typeFilter.append(make("option", { value: type, text: nameOf(type) }));
  pauseButton.addEventListener("click", () => setPaused(held === null));
  typeFilter.addEventListener("change", reload);
  let soon = 0;
  textFilter.addEventListener("input", () => {
    clearTimeout(soon);
    soon = setTimeout(reload, 200);
  });
  await load();
  return cursor;
}

/** Show only one instance's events. */
export function filterInstance(uuid) {
  textFilter.value = uuid;
  reload();
  textFilter.focus();
}

/** Take one live event; what is on the page already, or filtered out, changes nothing. */
export function addEvent(position, event) {
  if (position <= cursor) return;
  cursor = position;
  if (!matches(event)) return;
  if (held !== null) {
    held.push(event);
    if (held.length > MOST) held.shift();
    showHeld();
    return;
  }
  insert(event, true);
}

function reload() {
  load().catch((error) => {
    setText(note, error.message);
    note.hidden = false;
  });
}

async function load() {
  const text = textFilter.value.trim();
  const subject = UUID.test(text) ? text.toLowerCase() : "";
  loads += 1;
  const mine = loads;
  const answer = await get("/v1/events", { last: MOST, type: typeFilter.value, subject });
  if (mine !== loads) return;
  const rows = answer.events.filter(matches).map((event) => makeRow(event));
  list.replaceChildren(...rows.reverse());
  cursor = answer.cursor;
  if (held !== null) held = [];
  showHeld();
  showNote();
}

function matches(event) {
  const text = textFilter.value.trim().toLowerCase();
  if (typeFilter.value && event.type !== typeFilter.value) return false;
  if (!text) return true;
  const fields = [event.subject, event.source, nameOfEvent(event)];
  return fields.some((field) => (field ?? "").toLowerCase().includes(text));
}

const nameOfEvent = (event) => {
  const told = event.data?.name ?? event.data?.instance_name;
  return typeof told === "string" && told ? told : nameOfInstance(event.subject);
};

function insert(event, isNew) {
  const row = makeRow(event);
  row.classList.toggle("new", isNew);
  list.prepend(row);
  while (list.children.length > MOST) list.lastChild.remove();
  showNote();
}

function makeRow(event) {
  const title = nameOfEvent(event) || event.subject;
  const details = make(
    "details",
    {},
    make(
      "summary",
      {},
      time(Date.parse(event.time)),
      state(nameOf(event.type), levelOf(event.type)),
      make(
        "span",
        { class: "where" },
        title ? make("span", { class: "name", title, text: legible(title) }) : null,
        make("span", { class: "dim", text: `on ${hostOf(event)}` }),
        make("span", { class: "dim", text: legible(noteOf(event)) }),
      ),
    ),
  );
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) {
      details.append(make("pre", { text: JSON.stringify(event, null, 2) }));
    }
  });
  return make("li", { "data-id": event.id }, details);
}

function setPaused(paused) {
  if (!paused) for (const event of held ?? []) insert(event, true);
  held = paused ? [] : null;
  pauseButton.setAttribute("aria-pressed", String(paused));
  showHeld();
}

function showHeld() {
  if (held === null) setText(pauseButton, "Pause");
  else setText(pauseButton, held.length ? `Resume (${held.length} new)` : "Resume");
}

function showNote() {
  note.hidden = list.children.length > 0;
  setText(note, typeFilter.value || textFilter.value ? "No events match." : "No events yet.");
}
