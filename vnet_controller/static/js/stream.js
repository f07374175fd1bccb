// The live events. The browser reconnects and says how far it was; here only what it gives up on.

const RETRY_MS = 3000;

/** Calls `onEvent(position, event)` for each event after `cursor`, and `onState(word)`. */
export function follow(cursor, onEvent, onState) {
  let last = cursor;
  let source = null;

  function open() {
    source = new EventSource(`/v1/events/stream?after=${last}`);
    source.onopen = () => onState("live");
    source.onmessage = (message) => {
      last = Number(message.lastEventId);
      onEvent(last, JSON.parse(message.data));
    };
    source.onerror = () => {
      const gone = source.readyState === EventSource.CLOSED;
      onState(gone ? "broken" : "waiting");
      if (gone) setTimeout(open, RETRY_MS);
    };
  }

  open();
}
