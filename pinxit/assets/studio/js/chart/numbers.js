// Numbers as text: ticks, exact values, times. The same in every language of the browser.

export function withThousands(text) {
  const [whole, ...rest] = text.split(".");
  return [whole.replace(/\B(?=(\d{3})+(?!\d))/g, ","), ...rest].join(".");
}

// Returns a tick's text: as many decimals as the distance between ticks needs.
export function tickText(value, distance) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e7) return `${trimmed(value / 1e6, 4)}M`;
  if (size < 1e-3) return value.toExponential(1).replace(".0e", "e");
  const decimals = Math.min(6, Math.max(0, -Math.floor(Math.log10(distance) + 1e-9)));
  return withThousands(value.toFixed(decimals));
}

// Returns a value with the eight digits that single precision has; the rest is noise.
export function exactText(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return withThousands(String(value));
  const short = String(Number(value.toPrecision(8)));
  return short.includes("e") ? short : withThousands(short);
}

export function trimmed(value, digits) {
  return withThousands(String(Number(value.toPrecision(digits))));
}

// Returns a short time: "45 s", "3 min 20 s", "2 h 5 min".
export function timeText(seconds) {
  const whole = Math.round(seconds);
  if (seconds < 10 && whole !== seconds) return `${Number(seconds.toFixed(1))} s`;
  if (whole < 60) return `${whole} s`;
  const parts = [
    [Math.floor(whole / 86400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  const shown = parts.slice(first, first + 2).filter(([count]) => count > 0);
  return shown.map(([count, unit]) => `${count} ${unit}`).join(" ");
}
