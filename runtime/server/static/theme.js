// Light or dark: the system's, until somebody chooses.

import { $ } from "./dom.js";

const KEY = "mambapro-theme";

export function startTheme() {
  show(localStorage.getItem(KEY));
  $("theme").addEventListener("click", switchTheme);
}

export function switchTheme() {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  localStorage.setItem(KEY, dark ? "light" : "dark");
  show(dark ? "light" : "dark");
}

function show(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}
