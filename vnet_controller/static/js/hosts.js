// Hosts and their heartbeats.

import { arrange, find, make, setText, state } from "./dom.js";
import { count, time } from "./format.js";

const body = find("hosts");
let known = [];

export const hosts = () => known;

/** Take the whole list; hosts that are down come first. */
export function setHosts(list) {
  known = list;
  const order = [...list].sort(
    (a, b) =>
      a.state.localeCompare(b.state) || a.name.localeCompare(b.name, "en", { numeric: true }),
  );
  arrange(body, order.map(makeRow));
  const down = list.filter((host) => host.state !== "up").length;
  setText(find("hosts-count"), down ? `${down} of ${count(list.length)} down` : count(list.length));
  find("hosts-note").hidden = list.length > 0;
}

function makeRow(host) {
  const datapath = host.datapath.driver ?? host.datapath.name;
  const agent = [host.version, typeof datapath === "string" ? datapath : ""].filter(Boolean);
  return make(
    "tr",
    { "data-host": host.name },
    make("td", {}, make("span", { class: "name", text: host.name })),
    make("td", {}, state(host.state, host.state === "up" ? "good" : "bad")),
    make("td", {}, time(host.seen_us / 1000)),
    make("td", { class: "number", text: count(host.instances) }),
    make("td", { class: "number", text: count(host.ports) }),
    make("td", { class: "dim", text: agent.join(" · "), title: `started ${host.started}` }),
  );
}
