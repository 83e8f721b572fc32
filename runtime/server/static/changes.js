// Rename, merge, delete: asked for once more, done, said.

import { pathOf, send, snapshot } from "./api.js";
import { $, h } from "./dom.js";
import { MODALITIES, count, moment } from "./format.js";
import { current, forget, loadIdentities, nameOf, state } from "./store.js";

const TOAST_MS = 4000;
const DARK = 30; // mean of 0 to 255

export function startChanges() {
  $("ask-no").addEventListener("click", () => $("ask-dialog").close());
}

/** The buttons of an identity. */
export function actions(identity) {
  const who = nameOf(identity.id);
  const button = (text, act, kind = "") =>
    h("button", { class: `small ${kind}`, "aria-label": `${text} ${who}`, onclick: () => act(state.identities.get(identity.id) ?? identity) }, text);
  return [button("Rename", rename), button("Merge", merge), button("Delete", remove, "danger")];
}

export function rename(identity) {
  const field = h("input", { id: "new-name", maxlength: 100, value: identity.name ?? "", autocomplete: "off" });
  ask({
    title: `Rename ${nameOf(identity.id)}`,
    body: [h("label", { for: "new-name" }, "Name; empty takes it away"), field],
    yes: "Rename",
    act: async () => {
      await send("PATCH", pathOf(identity), { name: field.value.trim() || null });
      await loadIdentities();
      toast(field.value.trim() ? `${identity.id} is called ${field.value.trim()}` : `${identity.id} has no name now`);
    },
  });
  field.select();
}

export function merge(identity) {
  const others = [...state.identities.values()].filter((i) => i.subject === identity.subject && i.id !== identity.id);
  if (!others.length) return toast(`There is no other ${identity.subject} to merge ${nameOf(identity.id)} into`);
  const choice = h("select", { id: "into" }, others.map((i) => h("option", { value: i.id }, `${nameOf(i.id)}, last seen ${moment(i.last_seen)}`)));
  const target = h("div", { class: "faces" });
  const look = () => target.replaceChildren(face(identity.id), h("span", { class: "arrow", "aria-hidden": "true" }, "→"), face(choice.value));
  choice.addEventListener("change", look);
  look();
  ask({
    title: `Merge ${nameOf(identity.id)} into`,
    body: [h("label", { for: "into" }, "Who they are the same as"), choice, target,
      h("p", { class: "faint" }, `${nameOf(identity.id)} becomes a part of whom you choose. Only splitting undoes this.`)],
    yes: "Merge",
    act: async () => {
      const into = choice.value;
      const gone = nameOf(identity.id);
      await send("POST", `${pathOf(identity)}/merge`, { into });
      await loadIdentities();
      toast(`${gone} is ${nameOf(into)} now`);
    },
  });
}

export function remove(identity) {
  const name = nameOf(identity.id);
  const called = name === identity.id ? name : `${name} (${identity.id})`;
  ask({
    title: `Delete ${name}?`,
    body: [h("div", { class: "faces" }, face(identity.id)),
      h("p", {}, `${called}, ${count(identity.templates, "sighting")}, all events and pictures are deleted for good.`)],
    yes: "Delete",
    danger: true,
    act: async () => {
      await send("DELETE", pathOf(identity));
      forget([identity.id, ...(identity.aliases ?? [])]);
      toast(`${called} is deleted`);
    },
  });
}

/** A small picture of the newest sighting, with the name. */
export function face(id) {
  const frame = h("span", { class: "face" });
  fillFace(frame, id);
  return h("span", { class: "faced" }, frame, nameOf(id));
}

/** Put the newest picture of `id` into `frame`, unless it is there already. */
export function fillFace(frame, id) {
  const seen = state.events.find((e) => e.event === "sighting" && e.snapshots && current(e.identity) === id);
  if (!seen || frame.dataset.event === seen.id) return;
  frame.dataset.event = seen.id;
  clearest(seen.snapshots).then((image) => image && frame.dataset.event === seen.id && frame.replaceChildren(image));
}

/** The first crop that is not black: colour by day, near infrared by night. */
async function clearest(snapshots) {
  let image = null;
  for (const path of MODALITIES.map((m) => snapshots[m]).filter(Boolean)) {
    const url = await snapshot(path);
    if (!url) continue;
    image = h("img", { src: url, alt: "" });
    await image.decode();
    if (brightness(image) > DARK) break;
  }
  return image;
}

function brightness(image) {
  const canvas = new OffscreenCanvas(4, 8);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, 4, 8);
  const { data } = context.getImageData(0, 0, 4, 8);
  return data.reduce((sum, value, i) => sum + (i % 4 === 3 ? 0 : value), 0) / (0.75 * data.length);
}

function ask({ title, body, yes, danger = false, act }) {
  const dialog = $("ask-dialog");
  const button = $("ask-yes");
  $("ask-title").textContent = title;
  $("ask-body").replaceChildren(...body);
  $("ask-wrong").textContent = "";
  button.textContent = yes;
  button.classList.toggle("danger", danger);
  dialog.querySelector("form").onsubmit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await act();
      dialog.close();
    } catch (error) {
      $("ask-wrong").textContent = error.message;
    } finally {
      button.disabled = false;
    }
  };
  dialog.showModal();
  if (danger) $("ask-no").focus();
}

let hiding = null;
export function toast(words) {
  clearTimeout(hiding);
  $("toast").textContent = words;
  $("toast").hidden = false;
  hiding = setTimeout(() => ($("toast").hidden = true), TOAST_MS);
}
