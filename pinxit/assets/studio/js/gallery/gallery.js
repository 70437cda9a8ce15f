// The gallery: the stored pictures, newest first. More are loaded when they are needed.

import { element } from "../dom.js";
import { short } from "../draw/words.js";

const PAGE = 48;

/** Returns the gallery. `onOpen(entries, index, opener)` opens a picture. */
export function gallery({ api, say, onOpen }) {
  const list = element("ul", { class: "pictures" });
  const more = element("button", { type: "button", class: "button more-pictures", hidden: true }, "Show more");
  const title = element("h2", { id: "gallery-title" }, "Gallery");
  const folder = element("span", { class: "hint" });
  const node = element("section", { class: "stack gallery", "aria-labelledby": title.id, hidden: true },
    element("div", { class: "row apart" }, title, folder), list, more);
  const entries = [];
  let loading = null;
  let hasMore = false;

  function item(entry) {
    const [width, height] = [entry.width || 64, entry.height || 64];
    const image = element("img", {
      src: api.address(entry.thumbnail), alt: describe(entry), width, height, loading: "lazy", decoding: "async",
      class: Math.max(width, height) < 200 ? "pixels" : "",
    });
    const button = element("button", { type: "button", class: "thumbnail" }, image,
      entry.grid ? element("span", { class: "badge over" }, "comparison") : null);
    button.addEventListener("click", () => onOpen(entries, entries.indexOf(entry), button));
    entry.item = element("li", {}, button);
    return entry.item;
  }

  function show() {
    node.hidden = entries.length === 0;
    more.hidden = !hasMore;
  }

  function page(before) {
    const behind = before ? `&before=${encodeURIComponent(before)}` : "";
    return api.get(`/studio/gallery?limit=${PAGE}${behind}`);
  }

  /** Loads the first page and shows what is new. Pictures that are gone are removed. */
  async function refresh() {
    if (loading) await loading.catch(() => {});
    loading = (async () => {
      const first = await page(null);
      folder.textContent = first.folder ? `in ${first.folder}` : "";
      const known = new Map(entries.map((entry) => [key(entry), entry]));
      const fresh = first.pictures.map((entry) => known.get(key(entry)) ?? entry);
      const last = fresh.at(-1);
      const rest = first.more && last ? entries.slice(entries.findIndex((entry) => key(entry) === key(last)) + 1) : [];
      const overlaps = last && entries.some((entry) => key(entry) === key(last));
      const all = [...fresh, ...(overlaps ? rest : [])];
      hasMore = first.more && !(overlaps && rest.length > 0 && !hasMore);
      entries.splice(0, entries.length, ...all);
      arrange();
      show();
    })();
    try {
      await loading;
    } finally {
      loading = null;
    }
  }

  /** Puts the items in the order of the entries, without touching those that stay. */
  function arrange() {
    const items = entries.map((entry) => entry.item ?? item(entry));
    const staying = new Set(items);
    for (const old of [...list.children]) if (!staying.has(old)) old.remove();
    items.forEach((each, i) => {
      if (list.children[i] !== each) list.insertBefore(each, list.children[i] ?? null);
    });
  }

  async function loadMore() {
    if (loading || !hasMore) return;
    const last = entries.at(-1);
    loading = page(last?.name);
    try {
      const next = await loading;
      hasMore = next.more;
      const known = new Set(entries.map(key));
      entries.push(...next.pictures.filter((entry) => !known.has(key(entry))));
      arrange();
    } catch (error) {
      if (error.status === 404) {
        loading = null;
        return refresh();
      }
      say(error.message, "error");
      hasMore = false;
    } finally {
      loading = null;
      show();
    }
  }

  /** Forgets a picture that was deleted. */
  function removed(entry) {
    const index = entries.findIndex((each) => each.name === entry.name);
    if (index < 0) return;
    entries[index].item?.remove();
    entries.splice(index, 1);
    show();
  }

  more.addEventListener("click", async () => {
    const count = entries.length;
    await loadMore();
    entries[count]?.item?.querySelector("button").focus();
  });
  const watcher = new IntersectionObserver((seen) => {
    if (seen.some((each) => each.isIntersecting)) loadMore();
  }, { rootMargin: "600px" });
  watcher.observe(more);
  return {
    node, entries, refresh, loadMore, removed,
    end: () => watcher.disconnect(),
    focus: (entry) => entries.find((each) => each.name === entry?.name)?.item?.querySelector("button").focus(),
  };
}

function key(entry) {
  return `${entry.name} ${entry.version}`;
}

/** Returns the text for those who cannot see the picture. */
export function describe(entry) {
  if (entry.recipe) return short(entry.recipe.prompt, 200) || "A picture without a prompt";
  if (entry.grid) return `A comparison: ${short(entry.grid.prompt ?? "several prompts", 180)}`;
  return entry.name;
}
