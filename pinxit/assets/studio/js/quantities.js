// Writes numbers as a reader expects them: grouped, rounded, with a unit.

const GROUPED = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** Returns a count: 12345 as "12,345". */
export function count(value) {
  return GROUPED.format(value);
}

/** Returns a share as a percentage. Small but real shares are not shown as 0. */
export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1\u00a0%";
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}\u00a0%`;
}

/** Returns a number of bytes with a decimal unit, as disks are sold. */
export function bytes(value) {
  const units = ["bytes", "kB", "MB", "GB", "TB", "PB"];
  let step = 0;
  let size = value;
  while (size >= 1000 && step < units.length - 1) {
    size /= 1000;
    step += 1;
  }
  return `${step === 0 ? count(size) : digits(size)}\u00a0${units[step]}`;
}

/** Returns a number of bytes in GiB or MiB, as memory is measured. */
export function memory(value) {
  const gib = value / 2 ** 30;
  return gib >= 0.1 ? `${digits(gib)}\u00a0GiB` : `${digits(value / 2 ** 20)}\u00a0MiB`;
}

/** Returns a number with about three digits. */
export function digits(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return count(value);
  if (size < 0.001) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

/** Returns a time in the unit that suits it. */
export function duration(seconds) {
  if (seconds < 1) return `${digits(1000 * seconds)}\u00a0ms`;
  if (seconds < 120) return `${digits(seconds)}\u00a0s`;
  if (seconds < 7200) return `${digits(seconds / 60)}\u00a0min`;
  if (seconds < 2 * 86400) return `${digits(seconds / 3600)}\u00a0h`;
  return `${digits(seconds / 86400)}\u00a0days`;
}

/** Returns how long ago a time was, in seconds since 1970. */
export function ago(time) {
  const seconds = Math.max(0, Math.round(Date.now() / 1000 - time));
  if (seconds < 2) return "just now";
  const [size, unit] = seconds < 120 ? [1, "s"] : seconds < 7200 ? [60, "min"] : seconds < 2 * 86400 ? [3600, "h"] : [86400, "days"];
  return `${count(seconds / size)}\u00a0${unit} ago`;
}

/** Returns a count with its noun: "1 row", "2 rows". */
export function plural(value, noun) {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}
