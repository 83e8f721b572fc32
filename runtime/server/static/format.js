// Times, numbers and colours as people read them.

const CLOCK = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const MINUTE = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", hour12: false });
const DAY = new Intl.DateTimeFormat([], { month: "short", day: "numeric" });

export const MODALITIES = ["rgb", "nir", "tir"];
const IDENTITY = ["#5cc8ff", "#ff8a80", "#aeea78", "#ffd54f", "#ba93ff", "#ff91d6", "#4de1cd", "#ffab5e", "#90a4ff", "#dcdc82"];
const RIGS = ["#3b82f6", "#f59e0b", "#10b981", "#a855f7", "#ef4444", "#14b8a6", "#ec4899", "#84cc16"];

export const clock = (time_s) => CLOCK.format(time_s * 1000);
export const minute = (time_s) => MINUTE.format(time_s * 1000);

/** The time of day, with the day when it is not today's. */
export function moment(time_s) {
  const then = new Date(time_s * 1000);
  const today = then.toDateString() === new Date().toDateString();
  return today ? clock(time_s) : `${DAY.format(then)} ${minute(time_s)}`;
}

/** A duration in one unit: 8 s, 3 min, 2 h, 4 d. */
export function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 129600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

export const score = (value) => (value == null ? "–" : value.toFixed(2));
export const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
export const inOrder = (modalities) => MODALITIES.filter((m) => modalities.includes(m));

/** The colour of an identity, the same as in the mosaic (runtime/picture/drawing.py). */
export function identityColour(identity) {
  const [, kind, number] = /([PV])(\d+)$/.exec(identity) ?? [, "P", 0];
  return IDENTITY[(Number(number) + (kind === "V" ? 5 : 0)) % IDENTITY.length];
}

const places = new Map();

/** A colour that stays with a rig while the page is open. */
export function rigColour(rig) {
  if (!places.has(rig)) places.set(rig, places.size);
  return RIGS[places.get(rig) % RIGS.length];
}
