// Times and numbers as people read them.

import { make, setText } from "./dom.js";

const two = (number) => String(number).padStart(2, "0");

/** "14:03:07", with the date before it when that is not today's; the reader's own time zone. */
export function absolute(ms, now = Date.now()) {
  const at = new Date(ms);
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  if (at.toDateString() === new Date(now).toDateString()) return clock;
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock}`;
}

/** "now", "42 s ago", "3 min ago", "5 h ago", "12 d ago"; "in 3 s" when a clock runs ahead. */
export function relative(ms, now = Date.now()) {
  const seconds = Math.round((now - ms) / 1000);
  const size = Math.abs(seconds);
  if (size < 1) return "now";
  const steps = [[86400 * 2, 86400, "d"], [5400, 3600, "h"], [90, 60, "min"], [0, 1, "s"]];
  const [, unit, word] = steps.find(([from]) => size >= from);
  const amount = `${Math.round(size / unit)} ${word}`;
  return seconds > 0 ? `${amount} ago` : `in ${amount}`;
}

/** A <time> that shows both and stays true, since `refresh` goes over it. */
export function time(ms) {
  const node = make("time", { datetime: new Date(ms).toISOString(), "data-ms": ms });
  node.title = node.dateTime;
  node.append(make("span", { class: "at" }), " ", make("span", { class: "ago" }));
  refresh(node);
  return node;
}

export function refresh(node, now = Date.now()) {
  const ms = Number(node.dataset.ms);
  setText(node.children[0], absolute(ms, now));
  setText(node.children[1], relative(ms, now));
}

/** A whole number with thin spaces between thousands; a dash where nothing was measured. */
export function count(value) {
  if (value === null || value === undefined) return "–";
  return Math.round(value).toLocaleString("en").replaceAll(",", "\u202f");
}

export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  return `${value >= 100 ? Math.round(value) : Number(value).toFixed(1)} ms`;
}

export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;
