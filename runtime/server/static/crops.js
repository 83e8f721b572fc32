// Crops of a sighting: one picture a modality, from the snapshots that events name.

import { snapshot } from "./api.js";
import { h } from "./dom.js";
import { MODALITIES } from "./format.js";

/** A figure of three crops; `paths` by modality, or null when none were kept. */
export function crops(paths, subject, caption, label) {
  return h("figure", { class: `crops ${subject}` },
    h("div", {}, MODALITIES.map((m) => crop(m, paths?.[m], `${label}, ${m.toUpperCase()}`))),
    h("figcaption", {}, caption));
}

function crop(modality, path, label) {
  const frame = h("span", { class: "crop" }, h("small", {}, modality.toUpperCase()));
  if (!path) return frame;
  snapshot(path).then((url) => {
    if (url) frame.replaceChildren(h("img", { src: url, alt: label }), h("small", { "aria-hidden": "true" }, modality.toUpperCase()));
  });
  return frame;
}
