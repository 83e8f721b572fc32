// One identity: all that was seen of it, and what can be done.

import { get } from "./api.js";
import { actions } from "./changes.js";
import { crops } from "./crops.js";
import { $, h, say } from "./dom.js";
import { count, moment, score } from "./format.js";
import { current, nameOf, on, state } from "./store.js";

let shown = null;

export function startWho() {
  const dialog = $("who-dialog");
  $("who-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => (shown = null));
  on("identities", title);
}

export async function openWho(id) {
  shown = current(id);
  title();
  $("who-body").replaceChildren(h("p", { class: "empty" }, "Loading"));
  if (!$("who-dialog").open) $("who-dialog").showModal();
  const asked = shown;
  try {
    const found = await get(`/api/events?kind=sighting&limit=60&identity=${encodeURIComponent(asked)}`);
    if (shown === asked) list(found);
  } catch (error) {
    $("who-body").replaceChildren(h("p", { class: "empty" }, error.message));
  }
}

function title() {
  if (!shown) return;
  const known = state.identities.get(shown);
  if (!known && state.identities.size && $("who-dialog").open) return $("who-dialog").close();
  say($("who-title"), nameOf(shown));
  say($("who-facts"), [known?.name && shown, known && count(known.templates, "sighting kept", "sightings kept")].filter(Boolean).join(", "));
}

function list(events) {
  const known = state.identities.get(shown);
  const sightings = events.map((event) => h("li", { class: "sighting" },
    crops(event.snapshots, event.subject, `${event.rig}, ${moment(event.time_s)}`, `Seen at ${event.rig}`),
    h("p", { class: "faint" }, event.known ? `${score(event.score)} of ${score(event.threshold)}` : "first seen")));
  $("who-body").replaceChildren(
    known ? h("div", { class: "actions left" }, actions(known)) : "",
    sightings.length ? h("ul", { class: "sightings" }, sightings) : h("p", { class: "empty" }, "No sighting is on disk any more."));
}
