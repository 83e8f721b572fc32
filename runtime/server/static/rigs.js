// The rigs: their pictures, how each camera is, who is in view.

import { $, h, reconcile, say } from "./dom.js";
import { MODALITIES, count, identityColour, rigColour, score, span } from "./format.js";
import { nameOf, now, on, state } from "./store.js";
import { openWho } from "./who.js";

const OLD_S = 3;
const cards = new Map();
let before = null;

export function startRigs() {
  on("run", draw);
  on("identities", draw);
}

/** Show a new picture of a rig; returns when it is on screen. */
export async function showPicture(rig, time_s, blob) {
  const picture = await createImageBitmap(blob);
  const canvas = cards.get(rig)?.querySelector("canvas");
  if (!canvas) return;
  if (canvas.width !== picture.width || canvas.height !== picture.height) {
    canvas.width = picture.width;
    canvas.height = picture.height;
  }
  canvas.getContext("2d").drawImage(picture, 0, 0);
  canvas.dataset.time = time_s;
  canvas.dataset.shown = 1 + Number(canvas.dataset.shown ?? 0);
  picture.close();
}

function draw() {
  const rigs = state.run?.rigs ?? [];
  for (const rig of rigs) rigColour(rig.name);
  reconcile($("rigs"), rigs, (rig) => rig.name, makeCard, renewCard);
  for (const name of cards.keys()) if (!rigs.some((rig) => rig.name === name)) cards.delete(name);
  $("no-rigs").hidden = !state.run || rigs.length > 0;
  if (state.run) before = { time_s: state.run.time_s, rates: before?.rates ?? new Map(), run: state.run };
}

function makeCard(rig) {
  const card = h("article", { class: "card rig", "aria-label": `Rig ${rig.name}` },
    h("div", { class: "rig-head" }, h("h3", {}, rig.name), h("ul", { class: "cameras", "aria-label": "Cameras" })),
    h("div", { class: "screen" }, h("canvas", { role: "img", width: 960, height: 180 }), h("p", { class: "veil", hidden: true })),
    h("ul", { class: "tracks", "aria-label": "In view" }));
  cards.set(rig.name, card);
  return card;
}

function renewCard(card, rig) {
  const cameras = MODALITIES.filter((m) => rig.cameras[m]).map((m) => ({ modality: m, ...rig.cameras[m] }));
  reconcile(card.querySelector(".cameras"), cameras, (c) => c.modality, makeCamera, (e, c) => renewCamera(e, c, rig));
  reconcile(card.querySelector(".tracks"), rig.tracks.length ? rig.tracks : [null],
    (t) => (t ? t.track : "nobody"), makeTrack, renewTrack);
  renewScreen(card, rig, cameras);
}

function renewScreen(card, rig, cameras) {
  const live = cameras.filter((c) => c.state === "live");
  const age_s = rig.picture_s == null ? null : now() - rig.picture_s;
  const veil = card.querySelector(".veil");
  let words = "";
  if (!rig.begun) words = rig.waits_for;
  else if (!live.length) words = `No camera gives pictures${age_s == null ? "" : `; the last is ${span(age_s)} old`}`;
  else if (age_s > OLD_S) words = `The picture is ${span(age_s)} old`;
  veil.hidden = !words;
  say(veil, words);
  card.classList.toggle("dead", !live.length);
  const seen = count(rig.tracks.length, "track");
  card.querySelector("canvas").setAttribute("aria-label", `${rig.name}, ${live.map((c) => c.modality.toUpperCase()).join(", ")}: ${seen}`);
}

const makeCamera = (camera) =>
  h("li", { class: "camera" }, h("span", { class: "dot" }), h("b", {}, camera.modality.toUpperCase()), h("span", { class: "value" }));

function renewCamera(element, camera, rig) {
  element.dataset.state = camera.state;
  element.title = camera.reason;
  const rate = rateOf(rig.name, camera);
  const away = `${camera.state} ${span(now() - camera.since_s)}`;
  say(element.querySelector(".value"), camera.state === "live" ? (rate == null ? "live" : `${rate.toFixed(1)} fps`) : away);
  element.setAttribute("aria-label", `${camera.modality.toUpperCase()} ${camera.state}${camera.reason ? `, ${camera.reason}` : ""}`);
}

/** Frames a second since the state before, smoothed. */
function rateOf(rig, camera) {
  if (!before || before.run === state.run) return before?.rates.get(`${rig} ${camera.modality}`);
  const key = `${rig} ${camera.modality}`;
  const then = before.run.rigs.find((r) => r.name === rig)?.cameras[camera.modality];
  if (!then) return null;
  const fresh = (camera.frames - then.frames) / Math.max(state.run.time_s - before.time_s, 0.1);
  const old = before.rates.get(key);
  const rate = old == null ? fresh : 0.8 * old + 0.2 * fresh;
  before.rates.set(key, rate);
  return rate;
}

function makeTrack(track) {
  if (!track) return h("li", { class: "nobody" }, "Nobody in view");
  return h("li", {}, h("button", { class: "track", onclick: (e) => e.currentTarget.dataset.identity && openWho(e.currentTarget.dataset.identity) },
    h("span", { class: "dot" }), h("span", { class: "who" }), h("span", { class: "value" })));
}

function renewTrack(element, track) {
  if (!track) return;
  const button = element.firstElementChild;
  button.disabled = !track.identity;
  button.dataset.identity = track.identity ?? "";
  button.querySelector(".dot").style.background = track.identity ? identityColour(track.identity) : "";
  say(button.querySelector(".who"), track.identity ? nameOf(track.identity) : `#${track.track}`);
  const told = { match: score(track.score), new: "new", waiting: "looking", unidentified: "" };
  say(button.querySelector(".value"), told[track.state]);
}
