// One line that says whether all is well.

import { $, say } from "./dom.js";
import { count } from "./format.js";
import { on, state } from "./store.js";

export function startHealth() {
  on("run", draw);
}

function draw() {
  const [level, words, why] = judged();
  const element = $("health");
  element.dataset.level = level;
  element.title = why;
  say(element.lastElementChild, words);
  document.title = level === "ok" ? "MambaPro" : `${words} · MambaPro`;
  const run = state.run;
  if (run) say($("live-facts"), `${count(run.rigs.length, "rig")}, ${count(cameras(run).length, "camera")}${run.load ? `, load ${run.load} of 3` : ""}`);
}

const cameras = (run) => run.rigs.flatMap((rig) => Object.values(rig.cameras));

function judged() {
  const { run, connected } = state;
  if (!run) return ["wait", "Connecting", ""];
  if (!connected) return ["bad", "Connection lost", "The server does not answer; this page tries again every second."];
  const away = cameras(run).filter((camera) => camera.state !== "live").length;
  const why = run.problems.join("\n");
  if (away) return ["bad", `${count(away, "camera")} away`, why];
  if (run.problems.length) return ["warn", run.problems.length === 1 ? run.problems[0] : count(run.problems.length, "problem"), why];
  return ["ok", "All cameras live", ""];
}
