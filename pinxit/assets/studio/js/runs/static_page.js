// The page in a run's folder: shows the data that the file contains, without a server.

import { setUpTheme } from "../theme.js";
import { element, replace } from "../dom.js";
import { runPage } from "./run_page.js";

const root = document.getElementById("view");
const data = JSON.parse(document.getElementById("run-data").textContent);
const page = runPage({ address: (view, grid) => grid.src });
const written = element("p", { class: "hint" }, `Written ${data.written}. ${data.note}`);
replace(root, page.node, written);
page.update(data.runs);
setUpTheme(document.getElementById("theme"));
