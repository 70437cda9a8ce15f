// Settings that are rarely changed, behind "More settings".

import { element, field } from "../dom.js";
import { checkbox, numberInput, numberOf } from "./fields.js";

/** Returns the settings with `read`, `write` and `offer`. Empty ones keep the model's default. */
export function moreSettings() {
  const shift = numberInput("shift", { min: 0.01, max: 100, step: "any", mode: "decimal" });
  const low = numberInput("interval_low", { min: 0, max: 1, step: "any", mode: "decimal" });
  const high = numberInput("interval_high", { min: 0, max: 1, step: "any", mode: "decimal" });
  const zeroInit = numberInput("zero_init", { min: 0, max: 1, step: "any", mode: "decimal" });
  const spacing = element("select", { name: "spacing" },
    element("option", { value: "even" }, "Even"),
    element("option", { value: "diffusers" }, "As diffusers spaces them"));
  const zeroStar = checkbox("cfg_zero_star", "CFG-Zero*", "Scales the unguided prediction so that it fits the guided one.");
  const interval = element("fieldset", { class: "interval" },
    element("legend", {}, "Guidance interval"),
    element("div", { class: "row" }, field("From", low), field("to", high)),
    element("span", { class: "hint" }, "Times at which guidance is applied: 0 is the picture, 1 is noise."));
  const node = element("details", { class: "more" },
    element("summary", {}, "More settings"),
    element("div", { class: "stack" },
      element("div", { class: "pair" },
        field("Shift", shift, "Above 1, more of the steps are near the noise."),
        field("Spacing of the steps", spacing, "Before the shift.")),
      interval, zeroStar.node,
      field("Zero init", zeroInit, "CFG-Zero*: the share of the steps, at the noisy end, that are skipped.")));
  let defaults = null;

  function offer(model) {
    const filled = defaults === null ? read() : {};
    const untouched = defaults !== null && JSON.stringify(read()) === JSON.stringify(clean(defaults));
    defaults = model?.sampling ?? null;
    if (defaults && (untouched || Object.keys(filled).length === 0)) write(defaults);
  }

  function clean(settings) {
    const { shift, spacing, guidance_interval, cfg_zero_star, zero_init } = settings;
    return { shift, spacing, guidance_interval, cfg_zero_star, zero_init };
  }

  function read() {
    const values = {};
    if (shift.value) values.shift = numberOf(shift);
    if (defaults || spacing.value !== "even") values.spacing = spacing.value;
    if (low.value || high.value) values.guidance_interval = [Number(low.value || 0), Number(high.value || 1)];
    if (defaults || zeroStar.box.checked) values.cfg_zero_star = zeroStar.box.checked;
    if (zeroInit.value) values.zero_init = numberOf(zeroInit);
    return values;
  }

  function write(settings) {
    if (settings.shift !== undefined) shift.value = settings.shift;
    if (settings.spacing !== undefined) spacing.value = settings.spacing;
    if (settings.guidance_interval) [low.value, high.value] = settings.guidance_interval;
    if (settings.cfg_zero_star !== undefined) zeroStar.box.checked = settings.cfg_zero_star;
    if (settings.zero_init !== undefined) zeroInit.value = settings.zero_init;
    const unusual = defaults && JSON.stringify(read()) !== JSON.stringify(clean(defaults));
    if (unusual) node.open = true;
  }

  const controls = {
    shift, spacing, guidance_interval: low, cfg_zero_star: zeroStar.box, zero_init: zeroInit,
  };
  return { node, read, write, offer, controls };
}
