// Words and figures that several parts of the drawing views show.

/** Returns a duration in words: "less than a second", "7 s", "1 min 5 s", "2 h 10 min". */
export function duration(seconds) {
  if (seconds < 1) return "less than a second";
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** Returns a text of at most `length` characters on one line. */
export function short(text, length = 80) {
  const line = String(text).replace(/\s+/g, " ").trim();
  return line.length <= length ? line : `${line.slice(0, length - 1)}…`;
}

/** Returns a number without needless digits. */
export function figure(value) {
  if (Number.isInteger(value)) return String(value);
  return Number.isFinite(value) ? String(Number(value.toPrecision(6))) : String(value);
}

/** Returns a seed that a dice gave. */
export function newSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

/** Returns what the page says about a time: "14:05", or "3 May, 14:05" for another day. */
export function moment(seconds) {
  const date = new Date(seconds * 1000);
  const time = date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  if (date.toDateString() === new Date().toDateString()) return `today at ${time}`;
  const other = { day: "numeric", month: "long", year: "numeric" };
  return `${date.toLocaleDateString("en-GB", other)}, ${time}`;
}

/** Estimates the time left from the steps that were seen. */
export class Pace {
  constructor() {
    this.first = null;
    this.last = null;
  }

  /** Notes that `done` steps are complete now. */
  note(done, now = performance.now() / 1000) {
    if (this.first === null) this.first = { done, now };
    this.last = { done, now };
  }

  /** Returns the seconds of a step, or null before the second one. */
  get secondsPerStep() {
    const steps = this.first === null ? 0 : this.last.done - this.first.done;
    return steps > 0 ? (this.last.now - this.first.now) / steps : null;
  }

  /** Returns the seconds left until `total` steps are done, or null. */
  left(total) {
    const each = this.secondsPerStep;
    return each === null ? null : each * (total - this.last.done);
  }
}
