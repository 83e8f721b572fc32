// Who is known, the last seen first.

import { actions, fillFace } from "./changes.js";
import { $, h, reconcile, say } from "./dom.js";
import { count, identityColour, moment, rigColour } from "./format.js";
import { nameOf, on, state } from "./store.js";
import { openWho } from "./who.js";

const SHOWN = 100;

export function startIdentities() {
  on("identities", draw);
  on("events", draw);
  $("filter").addEventListener("input", draw);
}

function draw() {
  const wanted = $("filter").value.trim().toLowerCase();
  const all = [...state.identities.values()].sort((a, b) => b.last_seen - a.last_seen);
  const found = all.filter((i) => !wanted || [i.id, i.name ?? "", i.subject, ...i.rigs].some((text) => text.toLowerCase().includes(wanted)));
  reconcile($("identity-rows"), found.slice(0, SHOWN), (i) => i.id, makeRow, renewRow);
  $("identity-table").hidden = !found.length;
  $("no-identities").hidden = found.length > 0;
  say($("no-identities"), all.length ? `Nobody matches "${$("filter").value}".` : "The gallery is empty. Whoever is seen for the first time appears here.");
  const more = found.length > SHOWN ? `, ${SHOWN} shown` : "";
  const kinds = ["person", "vehicle"].map((s) => [all.filter((i) => i.subject === s).length, s]).filter(([n]) => n);
  say($("identity-facts"), kinds.map(([n, s]) => count(n, s)).join(", ") + more);
}

function makeRow(identity) {
  return h("tr", { "data-identity": identity.id },
    h("th", { scope: "row" }, h("button", { class: "who-button", "data-item": true, onclick: () => openWho(identity.id) },
      h("span", { class: "face" }), h("span", { class: "dot" }), h("span", {}, h("b", { class: "who" }), h("small", { class: "faint" })))),
    h("td", { class: "where" }), h("td", { class: "number" }), h("td", { class: "number" }), h("td", { class: "number" }),
    h("td", { class: "row-actions" }, actions(identity)));
}

function renewRow(row, identity) {
  const [, where, templates, first, last, acts] = row.children;
  fillFace(row.querySelector(".face"), identity.id);
  row.querySelector(".dot").style.background = identityColour(identity.id);
  say(row.querySelector(".who"), nameOf(identity.id));
  say(row.querySelector("small"), identity.name ? identity.id : identity.subject);
  reconcile(where, identity.rigs, (rig) => rig, (rig) => h("span", { class: "tag" }, h("span", { class: "dot" }), rig),
    (tag, rig) => (tag.firstChild.style.background = rigColour(rig)));
  say(templates, String(identity.templates));
  say(first, moment(identity.first_seen));
  say(last, moment(identity.last_seen));
  for (const button of acts.children) button.setAttribute("aria-label", `${button.textContent} ${nameOf(identity.id)}`);
}
