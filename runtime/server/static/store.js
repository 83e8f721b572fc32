// What the page knows. Parts listen to a topic and draw themselves anew from here.

import { get } from "./api.js";

const MOST_EVENTS = 3000;
const DAY_S = 86400;

export const state = {
  connected: false,
  run: null, // the newest "state" message of /api/live
  events: [], // the newest first
  identities: new Map(), // by permanent name
  owners: new Map(), // who bears a name that was merged away
  samples: [],
};

const listeners = new Map();

/** Call `draw` when something of `topic` changes: run, event, events, identities, samples. */
export function on(topic, draw) {
  listeners.set(topic, [...(listeners.get(topic) ?? []), draw]);
}

function changed(topic, what) {
  for (const draw of listeners.get(topic) ?? []) draw(what);
}

/** Who an event's identity is now: those that were merged into others are these. */
export const current = (id) => state.owners.get(id) ?? id;

/** What to call an identity. */
export function nameOf(id) {
  const now = current(id);
  return state.identities.get(now)?.name || now;
}

/** Now, by the server's clock. */
export const now = () => state.run?.time_s ?? Date.now() / 1000;

export function setConnected(connected) {
  state.connected = connected;
  changed("run");
  if (connected) catchUp();
}

export function take(kind, data) {
  if (kind === "hello") {
    state.samples = data.history;
    changed("samples");
  } else if (kind === "state") {
    state.run = data;
    changed("run");
  } else if (kind === "sample") {
    state.samples = [...state.samples, data].slice(-360);
    changed("samples");
  } else if (kind === "event") {
    takeEvent(data.event);
  }
}

function takeEvent(event) {
  if (state.events.some((known) => known.id === event.id)) return;
  state.events.unshift(event);
  state.events.length = Math.min(state.events.length, MOST_EVENTS);
  changed("event", event);
  if (event.event === "sighting" || event.event === "track_end") loadIdentitiesSoon();
}

/** Read what was told before this page was open, or while it was not connected. */
async function catchUp() {
  await Promise.allSettled([loadIdentities(), loadEvents()]);
}

async function loadEvents() {
  const since = Date.now() / 1000 - DAY_S;
  const found = await Promise.all(
    ["sighting", "track_end"].map((kind) => get(`/api/events?kind=${kind}&since=${since.toFixed(0)}&limit=1000`)),
  );
  const known = new Map([...found.flat(), ...state.events].map((event) => [event.id, event]));
  state.events = [...known.values()].sort((a, b) => (a.id < b.id ? 1 : -1)).slice(0, MOST_EVENTS);
  changed("events");
}

export async function loadIdentities() {
  const found = await get("/api/identities?limit=1000");
  state.identities = new Map(found.map((identity) => [identity.id, identity]));
  state.owners = new Map(found.flatMap((i) => (i.aliases ?? []).map((alias) => [alias, i.id])));
  changed("identities");
}

let soon = null;
function loadIdentitiesSoon() {
  soon ??= setTimeout(() => {
    soon = null;
    loadIdentities().catch(() => {});
  }, 500);
}

/** Forget whoever was deleted, and what was told of them. */
export function forget(ids) {
  const gone = new Set(ids);
  for (const id of ids) state.identities.delete(id);
  state.events = state.events.filter((event) => !gone.has(event.identity));
  changed("events");
  changed("identities");
}
