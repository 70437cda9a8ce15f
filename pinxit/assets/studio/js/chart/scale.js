// Scales of an axis: linear or logarithmic, with round ticks.

const TIMES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200];
const DAY = 86400;

// Returns the smallest of 1, 2 and 5 times a power of ten that is at least `size`.
function roundStep(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  const part = size / power;
  const factor = [1, 2, 5, 10].find((one) => part <= one * (1 + 1e-9)) ?? 10;
  return factor * power;
}

export function ticksBetween(low, high, most, step = null) {
  if (!(high > low)) return { ticks: [low], step: Math.abs(low) || 1 };
  const distance = step ?? roundStep((high - low) / Math.max(1, most));
  const ticks = [];
  for (let i = Math.ceil(low / distance - 1e-9); i * distance <= high + distance * 1e-9; i += 1) {
    ticks.push(Number((i * distance).toPrecision(12)));
  }
  return { ticks, step: distance };
}

export function timeTicks(low, high, most) {
  const size = (high - low) / Math.max(1, most);
  if (size < 1) return ticksBetween(low, high, most);
  const step = TIMES.find((one) => one >= size) ?? roundStep(size / DAY) * DAY;
  return ticksBetween(low, high, most, step);
}

export function logTicks(low, high, most) {
  const first = Math.floor(Math.log10(low) + 1e-9);
  const last = Math.ceil(Math.log10(high) - 1e-9);
  const every = Math.max(1, Math.ceil((last - first) / most));
  const factors = last - first <= 2 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let power = first; power <= last; power += every) {
    for (const factor of factors) {
      const value = Number((factor * 10 ** power).toPrecision(12));
      if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)) ticks.push(value);
    }
  }
  return ticks.length >= 2 ? ticks : ticksBetween(low, high, most).ticks.filter((one) => one > 0);
}

// Returns a function from values to pixels, with its inverse.
export function scaleOf(low, high, from, to, log = false) {
  const at = log ? Math.log10 : (value) => value;
  const back = log ? (value) => 10 ** value : (value) => value;
  const [a, b] = [at(low), at(high)];
  const span = b - a || 1;
  const scale = (value) => from + ((at(value) - a) / span) * (to - from);
  scale.inverse = (pixel) => back(a + ((pixel - from) / (to - from)) * span);
  return scale;
}

// Returns the ends of the vertical axis, on round values.
export function verticalEnds(values, log) {
  const known = values.filter((value) => value !== null && (!log || value > 0));
  if (!known.length) return [log ? 0.1 : 0, 1];
  let low = Infinity;
  let high = -Infinity;
  for (const value of known) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (log) return low === high ? [low / 2, high * 2] : [low / 1.1, high * 1.1];
  if (low === high) {
    const room = Math.abs(low) * 0.1 || 1;
    return low >= 0 ? [Math.max(0, low - room), high + room] : [low - room, high + room];
  }
  const room = (high - low) * 0.06;
  const bottom = low >= 0 && low < (high - low) * 0.35 ? 0 : low - room;
  return [low >= 0 ? Math.max(0, bottom) : bottom, high + room];
}
