// Answers without an end, read by fetch so that the token goes in a header.

import { request } from "./api.js";

const AGAIN_MS = 1000;
const SILENT_MS = 5000; // the server tells how it is twice a second
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Read `path` again and again until `signal` aborts; silence for `most_ms` means that it is dead. */
async function follow(path, signal, makeParser, most_ms, onState = () => {}) {
  while (!signal.aborted) {
    try {
      const answer = await request(path, { signal });
      const parse = makeParser();
      onState(true);
      await drain(answer.body.getReader(), parse, most_ms);
    } catch (error) {
      if (signal.aborted) return;
      console.debug(path, error);
    }
    onState(false);
    await pause(AGAIN_MS);
  }
}

async function drain(reader, parse, most_ms) {
  for (;;) {
    const timer = most_ms && setTimeout(() => reader.cancel(), most_ms);
    const { done, value } = await reader.read().finally(() => clearTimeout(timer));
    if (done) return;
    parse(value);
  }
}

/** Server-sent events: `on(kind, data)` for each. */
export function followEvents(path, signal, on, onState) {
  const makeParser = () => {
    const decoder = new TextDecoder();
    let rest = "";
    return (chunk) => {
      const messages = (rest + decoder.decode(chunk, { stream: true })).split("\n\n");
      rest = messages.pop();
      for (const message of messages) {
        const fields = Object.fromEntries(message.split("\n").map((line) => line.split(/: (.*)/s, 2)));
        on(fields.event, JSON.parse(fields.data));
      }
    };
  };
  return follow(path, signal, makeParser, SILENT_MS, onState);
}

/** Pictures in parts: `on(rig, time_s, blob)` for each. */
export function followPictures(path, signal, on) {
  const makeParser = () => {
    let rest = new Uint8Array();
    return (chunk) => {
      rest = joined(rest, chunk);
      for (let part; (part = firstPart(rest)); rest = rest.subarray(part.end)) {
        const { head, body } = part;
        on(decodeURIComponent(head["x-rig"]), Number(head["x-time"]), new Blob([body], { type: head["content-type"] }));
      }
    };
  };
  return follow(path, signal, makeParser, null); // cameras may be away for long
}

function firstPart(bytes) {
  const end = endOfHead(bytes);
  if (end < 0) return null;
  const lines = new TextDecoder().decode(bytes.subarray(0, end)).trim().split("\r\n").slice(1);
  const head = Object.fromEntries(lines.map((line) => line.split(/: (.*)/s, 2)).map(([k, v]) => [k.toLowerCase(), v]));
  const body = bytes.subarray(end + 4, end + 4 + Number(head["content-length"]));
  const after = end + 4 + Number(head["content-length"]) + 2;
  return bytes.length < after ? null : { head, body, end: after };
}

function endOfHead(bytes) {
  for (let i = 0; i + 3 < bytes.length; i++) {
    if (bytes[i] === 13 && bytes[i + 1] === 10 && bytes[i + 2] === 13 && bytes[i + 3] === 10) return i;
  }
  return -1;
}

function joined(a, b) {
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}
