// What each type of event is called here, and how much it matters.

const LEVELS = {
  "vnet.instance.started": "good",
  "vnet.instance.stopped": "idle",
  "vnet.instance.rebooted": "warn",
  "vnet.instance.crashed": "bad",
  "vnet.instance.suspended": "warn",
  "vnet.instance.resumed": "good",
  "vnet.instance.migration.started": "idle",
  "vnet.instance.migration.completed": "good",
  "vnet.instance.migration.failed": "bad",
  "vnet.port.tagged": "idle",
  "vnet.port.untagged": "idle",
  "vnet.port.quota": "warn",
  "vnet.agent.started": "idle",
  "vnet.agent.resynced": "idle",
  "vnet.trigger.fired": "warn",
};

export const TYPES = Object.keys(LEVELS);

export const levelOf = (type) => LEVELS[type] ?? "idle";

/** "migration completed" for vnet.instance.migration.completed. */
export const nameOf = (type) => type.replace(/^vnet\.(instance\.)?/, "").replaceAll(".", " ");

export const hostOf = (event) => event.source.replace("/hosts/", "");

/** What an event's data adds to its line. */
export function noteOf(event) {
  const data = event.data ?? {};
  const notes = [];
  if (event.type.startsWith("vnet.instance.migration.")) {
    if (data.source && data.destination) notes.push(`${data.source} → ${data.destination}`);
    if (data.error) notes.push(String(data.error));
  }
  if (event.type.startsWith("vnet.port.") && data.tap) notes.push(String(data.tap));
  if (event.cause && event.cause !== "unknown") notes.push(`by ${event.cause}`);
  if (event.inferred) notes.push("inferred");
  return notes.join(" · ");
}
