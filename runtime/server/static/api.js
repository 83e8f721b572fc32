// Every request, with the token in a header: no cookie, so no other page can act in its name.

import { $ } from "./dom.js";

const KEY = "mambapro-token";
let asking = null;

/** fetch with the token; asks for it when the server wants one. Throws Error with words for people. */
export async function request(path, options = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
    const answer = await fetch(path, { ...options, headers, cache: "no-store" });
    if (answer.status === 401) await askForToken(token);
    else if (answer.ok) return answer;
    else throw new Error(await reason(answer));
  }
}

export const get = async (path) => (await request(path)).json();

export async function send(method, path, body) {
  const options = { method };
  if (body !== undefined) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  const answer = await request(path, options);
  return answer.status === 204 ? null : answer.json();
}

export const pathOf = (identity) =>
  `/api/identities/${identity.subject}/${encodeURIComponent(identity.id)}`;

const pictures = new Map();
const MOST_PICTURES = 400;

/** The object URL of a snapshot, or null when it is gone; each is fetched once. */
export function snapshot(name) {
  if (!pictures.has(name)) {
    const path = `/api/snapshots/${name.split("/").map(encodeURIComponent).join("/")}`;
    pictures.set(name, request(path).then((answer) => answer.blob()).then(URL.createObjectURL, () => null));
    if (pictures.size > MOST_PICTURES) {
      const [oldest, url] = pictures.entries().next().value;
      pictures.delete(oldest);
      url.then((gone) => gone && URL.revokeObjectURL(gone));
    }
  }
  return pictures.get(name);
}

async function reason(answer) {
  try {
    const { detail } = await answer.json();
    if (typeof detail === "string") return detail;
  } catch {
    // no JSON: the status says it
  }
  return `the server answered ${answer.status}`;
}

/** Ask once, however many requests were refused; `refused` is the token that was wrong. */
function askForToken(refused) {
  if (sessionStorage.getItem(KEY) !== refused) return Promise.resolve(); // given meanwhile
  asking ??= new Promise((resolve) => {
    const dialog = $("token-dialog");
    $("token-wrong").textContent = refused ? "That is not the token." : "";
    $("token").value = "";
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(KEY, $("token").value.trim());
      $("token").value = "";
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}
