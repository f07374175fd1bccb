// The page: load once, then follow the events, and compare with the whole now and then.

import { get, getInstances, repeat } from "./api.js";
import { showAttention } from "./attention.js";
import { find, make, setText } from "./dom.js";
import { absolute, count, plural, refresh } from "./format.js";
import { hosts, setHosts } from "./hosts.js";
import { instances, mergeInstances, nameOfInstance, setInstances } from "./instances.js";
import { migrations, setMigrations } from "./migrations.js";
import { follow } from "./stream.js";
import { addEvent, startTimeline } from "./timeline.js";

const LINK_WORDS = { live: "live", waiting: "reconnecting", broken: "disconnected" };

let failure = "";

const failed = (error) => {
  failure = error.message;
  showWhole();
};

const load = (work) => async () => {
  await work();
  failure = "";
  showWhole();
};

// A few instances are asked for one by one; a whole fleet's reboot is one reading of the list.
const ONE_BY_ONE = 10;
const changed = new Set();

async function updateInstances() {
  const uuids = [...changed];
  changed.clear();
  if (uuids.length > ONE_BY_ONE) return setInstances(await getInstances());
  const found = uuids.map((uuid) => get(`/v1/instances/${encodeURIComponent(uuid)}`));
  return mergeInstances((await Promise.allSettled(found)).flatMap(({ value }) => value ?? []));
}

const loops = {
  changes: repeat(load(updateInstances), 3600, failed),
  instances: repeat(load(async () => setInstances(await getInstances())), 30, failed),
  hosts: repeat(load(async () => setHosts((await get("/v1/hosts")).hosts)), 5, failed),
  migrations: repeat(
    load(async () => setMigrations((await get("/v1/migrations", { limit: 20 })).migrations)),
    10,
    failed,
  ),
};

function showWhole() {
  showAttention({ hosts: hosts(), instances: instances(), migrations: migrations(), failure });
  const up = hosts().filter((host) => host.state === "up").length;
  const states = new Map();
  for (const { state } of instances()) states.set(state, (states.get(state) ?? 0) + 1);
  const parts = [`${count(up)}/${count(hosts().length)} hosts up`, plural(instances().length, "instance")];
  for (const [state, number] of [...states].sort()) parts.push(`${count(number)} ${state}`);
  const nodes = parts.flatMap((part, index) => {
    const [number, ...words] = part.split(" ");
    return [index ? "  ·  " : "", make("b", { text: number }), ` ${words.join(" ")}`];
  });
  find("summary").replaceChildren(...nodes);
}

function showLink(state) {
  const link = find("link");
  const wasAway = link.dataset.state !== "live";
  link.dataset.state = state;
  setText(link, LINK_WORDS[state]);
  if (state === "live" && wasAway) for (const loop of Object.values(loops)) loop.ask();
}

function takeEvent(position, event) {
  addEvent(position, event);
  if (event.subject && event.type.startsWith("vnet.instance.")) {
    changed.add(event.subject);
    loops.changes.ask();
  }
  if (event.type.startsWith("vnet.instance.migration.")) loops.migrations.ask();
  if (event.type.startsWith("vnet.agent.")) loops.hosts.ask();
}

function tick() {
  const now = Date.now();
  setText(find("clock"), absolute(now, now));
  find("clock").dateTime = new Date(now).toISOString();
  for (const node of document.querySelectorAll("time[data-ms]")) refresh(node, now);
}

async function start() {
  tick();
  setInterval(tick, 1000);
  await Promise.all(Object.values(loops).map((loop) => loop.start()));
  try {
    follow(await startTimeline(nameOfInstance), takeEvent, showLink);
  } catch (error) {
    failed(error);
    setTimeout(() => window.location.reload(), 5000);
  }
}

start();
