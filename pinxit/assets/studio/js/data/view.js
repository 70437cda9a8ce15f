// The view data: the list of prepared datasets, or one of them.

import { mountDataset } from "./dataset.js";
import { mountList } from "./list.js";
import { TABS } from "./tab_names.js";

/** Shows the view. Returns the function that ends it. */
export function mount(root, context, rest = "") {
  if (!rest) return mountList(root, context);
  const cut = rest.lastIndexOf("/");
  const tab = cut > 0 ? rest.slice(cut + 1) : "";
  const name = tab in TABS ? rest.slice(0, cut) : rest;
  return mountDataset(root, context, name, tab in TABS ? tab : "overview");
}
