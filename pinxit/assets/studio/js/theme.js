// The theme: that of the system, or the one that the reader chose.

const KEY = "pinxit-theme";
const NEXT = { auto: "light", light: "dark", dark: "auto" };
const TEXT = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };

/** Applies the chosen theme, and lets the button change it. */
export function setUpTheme(button) {
  apply(chosen(), button);
  button.addEventListener("click", () => {
    const next = NEXT[chosen()];
    try {
      localStorage.setItem(KEY, next);
    } catch {
      // a browser without storage forgets the choice
    }
    apply(next, button);
  });
}

function chosen() {
  try {
    const stored = localStorage.getItem(KEY);
    return stored in NEXT ? stored : "auto";
  } catch {
    return "auto";
  }
}

function apply(theme, button) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  button.textContent = TEXT[theme];
}
