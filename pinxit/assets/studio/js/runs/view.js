// The view of runs: their list, or one or several of them.

import { element, replace } from "../dom.js";
import { folded } from "./details.js";
import { follow } from "./live.js";
import { runList } from "./run_list.js";
import { runPage } from "./run_page.js";
import { startForm } from "./start_form.js";

/** Shows the view. Returns the function that ends it. */
export function mount(root, context, rest) {
  const names = rest.split("/").filter((name) => name);
  return names.length ? showRuns(root, context, [...new Set(names)]) : showList(root, context);
}

function showList(root, { api, navigate, say }) {
  const form = startForm({ api, say, started: (name) => navigate(`runs/${encodeURIComponent(name)}`) });
  const list = runList({ api, navigate, loaded: form.fill });
  replace(root, element("div", { class: "stack run-overview" }, element("h1", {}, "Runs"), list.node, form.node));
  return list.close;
}

function showRuns(root, { api, say }, names) {
  const followed = new Map();
  const details = new Map();
  let closed = false;
  let drawing = 0;
  let zoom = null;
  const lost = element("p", { class: "hint run-lost", role: "status", hidden: true }, "The connection to the studio is lost. It is tried again.");
  const log = element("div", { class: "stack" });
  const page = runPage({
    address: (view, grid) => api.address(`studio/runs/${encodeURIComponent(view.folder)}/samples/${grid.file}?size=${grid.bytes}-${grid.changed}`),
    actions,
    zoomed: (steps) => {
      zoom = steps;
      readDetails();
    },
  });
  const back = element("a", { href: "#/runs" }, "‹ All runs");
  const content = element("div", { class: "stack" }, element("p", { class: "empty" }, "Reading the run …"));
  replace(root, element("div", { class: "stack run-overview" }, back, lost, content));

  function draw() {
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(() => {
      const views = names.flatMap((name) => (followed.has(name) ? [shown(followed.get(name).view)] : []));
      if (!page.node.isConnected) replace(content, page.node, log);
      page.update(views);
      showLog(views);
    });
  }

  // Returns a run's data, with all values between the ends of the zoom.
  function shown(view) {
    const detail = zoom && details.get(view.folder);
    return detail ? { ...view, axis: detail.axis, curves: { ...view.curves, ...detail.curves } } : view;
  }

  async function readDetails() {
    const mine = zoom;
    details.clear();
    if (!mine) return draw();
    for (const { view } of followed.values()) {
      if (!view.thinned) continue;
      try {
        const path = `studio/runs/${encodeURIComponent(view.folder)}/curves?start=${mine[0]}&end=${mine[1]}`;
        const detail = await api.get(path);
        if (mine === zoom) details.set(view.folder, { ...detail, curves: { ...empty(view), ...detail.curves } });
      } catch (error) {
        say(error.message, "error");
      }
    }
    return draw();
  }

  function empty(view) {
    return Object.fromEntries(Object.keys(view.curves).map((name) => [name, { at: [], values: [] }]));
  }

  const logs = new Map();
  function showLog(views) {
    for (const view of views) {
      if (!view.log) continue;
      if (!logs.has(view.folder)) {
        const text = element("pre", { tabindex: 0, "aria-label": `Log of ${view.name}` });
        logs.set(view.folder, text);
        log.append(folded(names.length > 1 ? `Log of ${view.name}` : "Log", text, !view.axis.step.length || view.state === "failed"));
      }
      logs.get(view.folder).textContent = view.log;
    }
  }

  function actions(view) {
    if (view.state === "running" || view.state === "starting") return [action(view, "stop", "Stop")];
    if (["stopped", "interrupted", "failed"].includes(view.state)) return [action(view, "resume", "Resume")];
    return [];
  }

  function action(view, what, text) {
    const title = what === "stop" ? "Writes a checkpoint and ends; Resume goes on from there." : "Goes on from the newest checkpoint.";
    const button = element("button", { class: "button", type: "button", title }, text);
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await api.post(`studio/runs/${encodeURIComponent(view.folder)}/${what}`);
        say(what === "stop" ? `${view.name} writes a checkpoint and stops.` : `${view.name} goes on.`);
        followed.get(view.folder)?.read();
      } catch (error) {
        say(error.message, "error");
        button.disabled = false;
      }
    });
    return button;
  }

  for (const name of names) {
    follow(api, name, draw, (is) => (lost.hidden = !is)).then(
      (run) => {
        if (closed) return run.close();
        followed.set(name, run);
        return draw();
      },
      (error) => {
        if (closed) return;
        content.querySelector(".empty")?.remove();
        content.prepend(element("p", { class: "empty", role: "alert" }, error.message));
      },
    );
  }
  return () => {
    closed = true;
    cancelAnimationFrame(drawing);
    page.close();
    for (const run of followed.values()) run.close();
  };
}
