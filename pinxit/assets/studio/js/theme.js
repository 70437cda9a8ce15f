// The theme: that of the system, or the one that the reader chose.

import { BROWSER, remember, remembered } from "./storage.js";

const KEY = "pinxit-theme";
const NEXT = { auto: "light", light: "dark", dark: "auto" };
const TEXT = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };

/** Applies the chosen theme, and lets the button change it. */
export function setUpTheme(button) {
  apply(chosen(), button);
  button.addEventListener("click", () => {
    const next = NEXT[chosen()];
    remember(BROWSER, KEY, next);
    apply(next, button);
  });
}

function chosen() {
  const stored = remembered(BROWSER, KEY);
  return stored in NEXT ? stored : "auto";
}

function apply(theme, button) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  button.textContent = TEXT[theme];
}
