// Who was seen again: query and gallery side by side, and how far above the threshold.

import { crops } from "./crops.js";
import { $, h, reconcile, say } from "./dom.js";
import { count, identityColour, inOrder, moment, score, span } from "./format.js";
import { current, nameOf, on, state } from "./store.js";
import { openWho } from "./who.js";

const SHOWN = 40;

export function startMatches() {
  for (const topic of ["event", "events", "identities"]) on(topic, draw);
  $("kinds").addEventListener("change", draw);
}

function draw() {
  const all = document.querySelector("#kinds input:checked").value === "all";
  const sightings = state.events.filter((event) => event.event === "sighting");
  const shown = sightings.filter((event) => all || event.known).slice(0, SHOWN);
  reconcile($("match-list"), shown, (event) => event.id, makeMatch, renewMatch);
  $("no-matches").hidden = shown.length > 0;
  say($("no-matches"), all ? "Nobody has been seen yet." : "Nobody has been seen twice yet.");
  $("no-pictures").hidden = !sightings.length || sightings.some((event) => event.snapshots);
}

function makeMatch(event) {
  const pictures = event.snapshots || event.seen_snapshots;
  return h("li", { class: "card match", "data-event": event.id },
    h("button", { class: "match-head", "data-item": true, onclick: () => openWho(event.identity) },
      h("span", { class: "dot" }), h("b", { class: "who" }), h("span", { class: "faint" }, event.subject),
      h("time", { datetime: event.time }, moment(event.time_s))),
    pictures && h("div", { class: "pair" },
      crops(event.snapshots, event.subject, event.rig, `Seen at ${event.rig}`),
      event.known && h("span", { class: "arrow", "aria-hidden": "true" }, "≈"),
      event.known && crops(event.seen_snapshots, event.subject, before(event), `Seen before at ${event.seen_at}`)),
    !pictures && h("p", { class: "route" }, event.known ? `${event.rig}, before at ${before(event)}` : `${event.rig}, for the first time`),
    scale(event));
}

const before = (event) => `${event.seen_at}, ${span(event.time_s - event.seen_s)} before`;

function renewMatch(element, event) {
  element.querySelector(".dot").style.background = identityColour(current(event.identity));
  say(element.querySelector(".who"), nameOf(event.identity));
}

/** Score against threshold. Cosines below 0 say no more than 0. */
function scale(event) {
  const percent = (value) => `${(100 * Math.min(1, Math.max(0, value))).toFixed(1)}%`;
  const bar = h("span", { class: "bar", "aria-hidden": "true" }, h("span", { class: "fill" }), h("span", { class: "tick" }));
  bar.firstChild.style.width = percent(event.score ?? 0);
  bar.lastChild.style.left = percent(event.threshold);
  const seen = count(event.crops, "crop");
  const by = inOrder(event.modalities).map((m) => m.toUpperCase()).join(" ");
  return h("div", { class: `scale ${event.known ? "known" : "new"}` }, bar,
    h("span", { class: "numbers" }, h("b", {}, event.known ? score(event.score) : `new ${score(event.score)}`), ` of ${score(event.threshold)}`),
    h("span", { class: "faint seen-by" }, `${seen} ${by}`));
}
