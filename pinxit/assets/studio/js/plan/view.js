// The view plan: a form, and the plans for the chosen machines.

import { element, replace } from "../dom.js";
import { comparison } from "./comparison.js";
import { planForm } from "./form.js";
import { followJob } from "./job.js";
import { problem, progressOf, resultOf } from "./result.js";

const TYPING = 400; // milliseconds after a change before the cache is asked

/** Shows the view. Returns the function that ends it. */
export function mount(root, context) {
  const { api, say } = context;
  const intro = "Whether a training run fits a machine, how long it takes, and what it costs. "
    + "The machine's own compiler says so; the machine itself need not be here.";
  const body = element("div", { class: "plan-both" }, element("p", { class: "hint" }, "Reading the recipes …"));
  replace(root, element("div", { class: "stack" },
    element("div", {}, element("h1", {}, "Plan"), element("p", { class: "hint" }, intro)), body));
  let end = () => {};
  let ended = false;
  Promise.all([api.get("/studio/plans/choices"), api.get("/studio/plans")]).then(([choices, { plans }]) => {
    if (!ended) end = planner(body, { api, say, choices, plans });
  }).catch((error) => {
    if (!ended) replace(body, element("p", { class: "card error", role: "alert" }, error.message));
  });
  return () => {
    ended = true;
    end();
  };
}

/** Connects the form with the answers. */
function planner(body, { api, say, choices, plans }) {
  const out = element("div", { class: "stack plan-out" });
  const status = element("p", { class: "visually-hidden", role: "status" });
  const answers = new Map(); // by target
  let chosen = null;
  let turn = 0;
  let timer = null;
  const stops = new Set();

  const active = plans.filter((each) => ["waiting", "computing"].includes(each.state));
  const form = planForm(choices, { onChange: changed, onSubmit: compute }, active);
  replace(body, form.node, element("div", { class: "stack" }, status, out));

  function changed() {
    clearTimeout(timer);
    timer = setTimeout(() => ask(false), TYPING);
  }

  function compute() {
    clearTimeout(timer);
    ask(true);
  }

  async function ask(computes) {
    const mine = (turn += 1);
    for (const stop of stops) stop();
    stops.clear();
    const bodies = form.requests();
    form.clearErrors();
    for (const target of [...answers.keys()]) if (!bodies.some((each) => each.target === target)) answers.delete(target);
    if (!bodies.some((each) => each.target === chosen)) chosen = bodies[0].target;
    await Promise.all(bodies.map(async (request) => {
      try {
        const answer = await api.post("/studio/plans", { ...request, compute: computes });
        if (mine === turn) accept(request, answer);
      } catch (error) {
        if (mine !== turn) return;
        answers.set(request.target, { state: "refused", error: { message: error.message } });
        form.showError(error.param, error.message);
      }
    }));
    if (mine === turn) show();
  }

  function accept(request, answer) {
    answers.set(request.target, answer);
    if (!["waiting", "computing"].includes(answer.state)) return;
    const mine = turn;
    stops.add(followJob(api, answer.id, (fresh) => {
      if (mine !== turn) return;
      const before = answers.get(request.target);
      answers.set(request.target, { ...before, ...fresh });
      if (fresh.state !== before.state) announce(request.target, fresh);
      show();
    }));
  }

  function announce(target, answer) {
    const words = { computing: "is being computed", done: "is ready", failed: "could not be made", cancelled: "was cancelled" };
    status.textContent = `The plan for ${target} ${words[answer.state] ?? "waits"}.`;
  }

  async function cancel(answer) {
    try {
      await api.remove(`/studio/plans/${answer.id}`);
    } catch (error) {
      say(error.message, "error");
    }
  }

  function show() {
    const targets = form.requests().map((each) => each.target);
    const answer = answers.get(chosen);
    const table = targets.length > 1 ? comparison(targets.map((target) => [target, answers.get(target)]), chosen, (target) => {
      chosen = target;
      show();
      out.querySelector(`[data-target="${CSS.escape(target)}"]`)?.focus();
    }) : null;
    const focus = document.activeElement;
    const key = out.contains(focus) ? focus.dataset.keep : null;
    const open = [...out.querySelectorAll("details[open]")].map((each) => each.dataset.key);
    replace(out, table, panelOf(answer, chosen));
    for (const each of out.querySelectorAll("details")) each.open = open.includes(each.dataset.key);
    if (key) out.querySelector(`[data-keep="${key}"]`)?.focus();
  }

  function panelOf(answer, target) {
    if (!answer) return null;
    if (answer.state === "done") return resultOf(answer.result, choices);
    if (answer.state === "absent") return notYet(target);
    if (answer.state === "refused") {
      return element("div", { class: "card stack tight" }, element("h2", {}, "These settings do not fit together"),
        element("p", { class: "plan-wrap" }, answer.error.message), element("p", { class: "hint" }, "Correct the setting in the form."));
    }
    if (answer.state === "failed") return problem(answer);
    if (answer.state === "cancelled") return notYet(target, "The plan was cancelled.");
    return progressOf(answer, () => cancel(answer));
  }

  function notYet(target, first = "This plan has not been computed yet.") {
    const where = target === "here" ? "this machine's compiler" : `the compiler of ${target}`;
    return element("div", { class: "card stack tight" },
      element("h2", {}, first),
      element("p", {}, `Computing it runs ${where} in a process of its own, which takes from seconds to a few minutes. The result is kept.`),
      element("div", { class: "row" }, element("button", { class: "button primary", type: "button", dataset: { keep: "compute" }, onClick: compute }, "Compute it now")));
  }

  ask(active.length > 0);
  return () => {
    turn += 1;
    clearTimeout(timer);
    for (const stop of stops) stop();
  };
}
