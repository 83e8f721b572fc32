// The page of a live run. Data flows one way: streams -> store -> parts that draw themselves.

import { startChanges } from "./changes.js";
import { startCharts } from "./charts.js";
import { startHealth } from "./health.js";
import { startIdentities } from "./identities.js";
import { startKeys } from "./keys.js";
import { startMatches } from "./matches.js";
import { showPicture, startRigs } from "./rigs.js";
import { setConnected, take } from "./store.js";
import { followEvents, followPictures } from "./streams.js";
import { startTheme } from "./theme.js";
import { startTimeline } from "./timeline.js";
import { startWho } from "./who.js";

for (const start of [startTheme, startHealth, startRigs, startMatches, startTimeline, startIdentities, startCharts, startChanges, startWho, startKeys]) start();

followEvents("/api/live", new AbortController().signal, take, setConnected);

let watching = null;

/** Ask for pictures only while somebody can see them. */
function watch() {
  watching?.abort();
  watching = null;
  if (document.visibilityState === "visible") {
    watching = new AbortController();
    followPictures("/api/mosaic", watching.signal, (rig, time_s, blob) => showPicture(rig, time_s, blob));
  }
}

document.addEventListener("visibilitychange", watch);
watch();
