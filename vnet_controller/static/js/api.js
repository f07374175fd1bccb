// Asking the controller.

/** The decoded answer; an Error with the problem's detail else. */
export async function get(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  const response = await fetch(query.size ? `${path}?${query}` : path);
  const body = await response.json().catch(() => ({}));
  if (!response.ok) {
    const error = new Error(body.detail ?? `${path} answered ${response.status}`);
    error.status = response.status;
    throw error;
  }
  return body;
}

const MOST_PAGES = 20;

/** All instances, page by page. */
export async function getInstances() {
  const all = [];
  let after = "";
  for (let page = 0; page < MOST_PAGES; page += 1) {
    const answer = await get("/v1/instances", { after });
    all.push(...answer.instances);
    if (!answer.next) break;
    after = answer.next;
  }
  return all;
}

/** Run `work` now and again: soon after `ask()`, but never twice at a time. */
export function repeat(work, seconds, failed) {
  let running = false;
  let again = false;
  let timer = 0;
  async function run() {
    if (running) {
      again = true;
      return;
    }
    clearTimeout(timer);
    running = true;
    again = false;
    try {
      await work();
    } catch (error) {
      failed(error);
    }
    running = false;
    timer = setTimeout(run, again ? 200 : seconds * 1000);
  }
  let asked = 0;
  return {
    start: run,
    ask() {
      asked ||= setTimeout(() => {
        asked = 0;
        run();
      }, 80);
    },
  };
}
