// The page by keyboard, and what the keys are.

import { merge, remove, rename } from "./changes.js";
import { $, h } from "./dom.js";
import { state } from "./store.js";
import { switchTheme } from "./theme.js";

const SECTIONS = ["live", "matches", "timeline", "identities", "charts"];
const HELP = [
  ["1 to 5", "Live, matches, timeline, identities, charts"],
  ["J, K or ↓, ↑", "Next or previous entry of a list"],
  ["Enter", "All sightings of an identity"],
  ["R", "Rename the chosen identity"],
  ["M", "Merge it into another"],
  ["Delete", "Delete it"],
  ["/", "Filter identities"],
  ["T", "Light or dark"],
  ["?", "This list"],
  ["Esc", "Close"],
];

export function startKeys() {
  $("help-keys").replaceChildren(...HELP.flatMap(([key, words]) => [h("dt", {}, key), h("dd", {}, words)]));
  $("keys").addEventListener("click", help);
  $("help-close").addEventListener("click", () => $("help-dialog").close());
  for (const link of document.querySelectorAll(".bar nav a")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      go(link.hash.slice(1));
    });
  }
  document.addEventListener("keydown", press);
}

const help = () => $("help-dialog").showModal();

function go(section) {
  $(section).focus({ preventScroll: true });
  $(section).scrollIntoView({ block: "start" });
}

function press(event) {
  const typing = event.target.matches("input:not([type=radio]), select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (typing) return event.key === "Escape" && event.target.blur();
  const act = actionOf(event.key);
  if (act) {
    event.preventDefault();
    act();
  }
}

function actionOf(key) {
  if (/^[1-5]$/.test(key)) return () => go(SECTIONS[key - 1]);
  const change = { r: rename, m: merge, Delete: remove }[key];
  if (change) {
    const row = document.activeElement.closest("[data-identity]");
    const identity = row && state.identities.get(row.dataset.identity);
    return identity && (() => change(identity));
  }
  const inList = document.activeElement.closest("[data-item]");
  return {
    "?": help,
    t: switchTheme,
    "/": () => $("filter").focus(),
    j: () => step(1),
    k: () => step(-1),
    ArrowDown: inList && (() => step(1)),
    ArrowUp: inList && (() => step(-1)),
  }[key];
}

/** Move to the next entry of the section that has the focus, or of the matches. */
function step(by) {
  const section = document.activeElement.closest("section") ?? $("matches");
  const items = [...section.querySelectorAll("[data-item]")];
  const at = items.indexOf(document.activeElement.closest("[data-item]") ?? document.activeElement.closest("tr")?.querySelector("[data-item]"));
  const next = items[at < 0 ? 0 : Math.min(items.length - 1, Math.max(0, at + by))];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}
