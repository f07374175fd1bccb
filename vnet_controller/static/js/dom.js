// Everything that comes from outside becomes text here, never markup.

export const find = (id) => document.getElementById(id);

// Characters that one does not see but that move or hide others: a name must not pose as another.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\u2028\u2029]/gu;

/** A name fit to be read, with what is invisible made visible. */
export const legible = (text) => text.replace(UNSEEN, "\ufffd");

/** A new element; `options.text` is its text, other options are attributes; null ones are left out. */
export function make(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") node.textContent = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Put `nodes` into `parent` in this order, touching the page only when that differs. */
export function arrange(parent, nodes) {
  const now = parent.children;
  const same = now.length === nodes.length && nodes.every((node, index) => now[index] === node);
  if (same) return;
  const focused = document.activeElement;
  parent.replaceChildren(...nodes);
  if (focused && focused !== document.activeElement && parent.contains(focused)) focused.focus();
}

export function state(word, level) {
  return make("span", { class: "state", "data-level": level, text: word });
}
