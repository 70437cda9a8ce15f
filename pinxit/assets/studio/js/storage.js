// What the browser remembers for the page. One without storage forgets it.

/** Remembers for as long as the tab is open. */
export const TAB = "sessionStorage";
/** Remembers until the reader clears it. */
export const BROWSER = "localStorage";

/** Remembers a text, in place of the one before. */
export function remember(where, key, text) {
  try {
    window[where].setItem(key, text);
  } catch {
    // the browser has no storage, or no room in it
  }
}

/** Returns the text that is remembered, or null. */
export function remembered(where, key) {
  try {
    return window[where].getItem(key);
  } catch {
    return null;
  }
}

/** Returns the object that is remembered as JSON, or null. */
export function rememberedObject(where, key) {
  try {
    const value = JSON.parse(remembered(where, key));
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

/** Forgets what is remembered. */
export function forget(where, key) {
  try {
    window[where].removeItem(key);
  } catch {
    // the browser has no storage
  }
}
