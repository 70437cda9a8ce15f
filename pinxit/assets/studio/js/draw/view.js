// The view Draw: the form, the pictures that are forming, and the gallery.

import { copy } from "../command_line.js";
import { element, replace } from "../dom.js";
import { gallery } from "../gallery/gallery.js";
import { lightbox } from "../gallery/lightbox.js";
import { generateCommand } from "./command.js";
import { keptPicture, takePictures } from "./dropped_pictures.js";
import { drawForm, storedForm } from "./form.js";
import { Jobs } from "./jobs.js";
import { restoredNotice } from "./restored.js";
import { storedFile } from "./source_image.js";
import { rememberPace } from "./speed.js";
import { stage } from "./stage.js";
import { newSeed, short } from "./words.js";

const CHANGES = 2500; // milliseconds between looks for pictures of other windows
const TYPING = 500; // milliseconds without typing before the prompt's length is checked

/** Shows the view. Returns the function that ends it. */
export function mount(root, { api, say }) {
  let defaults = { models: [], limits: {}, examples: [] };
  let state = null;
  let others = 0;
  let loaded = 0;
  let ended = false;
  let changesTimer = null;
  let textsTimer = null;

  const form = drawForm({ say, onDraw: draw, onTexts: checkSoon });
  const notice = restoredNotice({ api, say, form, onDraw: () => form.submit() });
  const box = lightbox({
    api, say,
    onAgain: async (recipe) => {
      await notice.restore(recipe, modelOf(recipe));
      form.submit();
    },
    onVary: async (recipe) => {
      await notice.restore({ ...recipe, seed: newSeed() }, modelOf(recipe));
      form.submit();
    },
    onSettings: async (recipe) => {
      await notice.restore(recipe, modelOf(recipe));
      form.prompt.focus();
    },
    onStart: async (entry) => {
      await form.source.setImage(await storedFile(api, entry));
      form.prompt.focus();
    },
    onCopy: (recipe) => copy(generateCommand(recipe, entryOf(modelOf(recipe))), say),
    onDeleted: (entry) => pictures.removed(entry),
  });
  const pictures = gallery({ api, say, onOpen: (entries, index, opener) => box.open(entries, index, opener, pictures) });
  const place = stage({
    onCancel: (job) => jobs.cancel(job),
    onAgain: draw,
    onExample: (text) => {
      form.write({ prompt: text });
      form.submit();
    },
    onOpen: (done, opener) => openFinished(done, opener),
  });
  const jobs = new Jobs(api, {
    added: (job) => (place.job ? showQueue() : place.begin(job)),
    changed: (job) => {
      if (jobs.followed === job && place.job !== job) place.begin(job);
      place.change(job);
      showQueue();
    },
    preview: place.preview,
    picture: (job, index, picture) => {
      picture.address = api.address(picture.url);
      place.picture(job, index, picture);
      lookForChanges();
    },
    ended: (job) => {
      rememberPace(job, place.job === job ? place.pace : null);
      place.end(job);
      showQueue();
      if (!defaults.models.every((model) => model.sampling)) loadDefaults();
      lookForChanges();
    },
    lost: place.lost,
    unreachable: (job, message) => place.unreachable(message),
    reachable: place.reachable,
  });

  function modelOf(recipe) {
    return defaults.models.find((model) => model.hash && model.hash === recipe.model_hash)?.id
      ?? defaults.models.find((model) => model.name === recipe.model)?.id ?? null;
  }

  function entryOf(id) {
    return defaults.models.find((model) => model.id === id) ?? null;
  }

  function showQueue() {
    place.showQueue(jobs.jobs.filter((job) => job !== place.job), others);
  }

  async function draw(request) {
    form.draw.disabled = true;
    notice.hide();
    try {
      await jobs.draw(request);
    } catch (error) {
      if (error.status >= 400 && error.status < 500) form.refuse(error);
      else place.note(`${error.message} What you asked for is still in the form.`, "bad");
    } finally {
      form.draw.disabled = false;
    }
  }

  function openFinished(done, opener) {
    const index = pictures.entries.findIndex((entry) => entry.name === done.stored);
    if (index >= 0) box.open(pictures.entries, index, opener, pictures);
    else box.open([{ name: done.stored ?? "picture.png", url: done.url, recipe: done.recipe, width: done.recipe.size[0], height: done.recipe.size[1] }], 0, opener, pictures);
  }

  function checkSoon() {
    clearTimeout(textsTimer);
    textsTimer = setTimeout(checkTexts, TYPING);
  }

  /** Says where the text encoder stops reading, if it does not read everything. */
  async function checkTexts() {
    const texts = form.texts();
    const entry = entryOf(texts.model) ?? defaults.models[0];
    if (!entry?.loaded || texts.prompt.length + texts.negative_prompt.length === 0) return replace(form.cut);
    let read;
    try {
      read = await api.post("/studio/prompt", texts);
    } catch {
      return replace(form.cut); // a job's warnings say the same later
    }
    const notes = [["prompt", "prompt"], ["negative_prompt", "negative prompt"]]
      .filter(([name]) => read[name] < texts[name].length)
      .map(([name, words]) => cutNote(texts[name], read[name], words, read.max_tokens));
    replace(form.cut, notes);
  }

  async function loadDefaults() {
    try {
      defaults = await api.get("/studio/defaults");
    } catch (error) {
      if (!ended) say(error.message, "error");
      return;
    }
    if (ended) return;
    form.offer(defaults);
    place.examples(defaults.examples);
    checkSoon();
  }

  /** Looks for pictures of other windows, and how many pictures they wait for. */
  async function lookForChanges() {
    clearTimeout(changesTimer);
    if (ended) return;
    if (!document.hidden) {
      try {
        const now = await api.get("/studio/changes");
        const mine = jobs.jobs.reduce((sum, job) => sum + job.pictures.filter((each) => !each.done).length, 0);
        others = Math.max(0, now.unfinished - mine);
        if (!form.model?.sampling && now.loaded !== loaded) await loadDefaults();
        loaded = now.loaded;
        showQueue();
        if (now.gallery !== state) {
          state = now.gallery;
          await pictures.refresh();
        }
      } catch {
        state = null; // the server does not answer; the next look tries again
      }
    }
    clearTimeout(changesTimer);
    if (!ended) changesTimer = setTimeout(lookForChanges, CHANGES);
  }

  replace(root,
    element("h1", { class: "visually-hidden" }, "Draw"),
    element("div", { class: "draw-layout" },
      element("div", { class: "draw-side stack" }, notice.node, form.node),
      element("div", { class: "draw-main stack" }, place.node, pictures.node)));
  const settings = storedForm();
  if (settings) form.write(settings);
  const stopTaking = takePictures(notice.take);
  const seen = () => {
    if (!document.hidden) lookForChanges();
  };
  document.addEventListener("visibilitychange", seen);
  loadDefaults();
  jobs.resume().catch((error) => say(error.message, "error"));
  lookForChanges();
  const kept = keptPicture();
  if (kept) notice.take(kept);
  return () => {
    ended = true;
    clearTimeout(changesTimer);
    clearTimeout(textsTimer);
    document.removeEventListener("visibilitychange", seen);
    stopTaking();
    jobs.end();
    box.end();
    pictures.end();
  };
}

/** Returns a sentence about a cut prompt, with the last words that are read and the first that are
 * not. */
function cutNote(text, length, words, most) {
  const before = text.slice(0, length).trim().split(/\s+/).slice(-5).join(" ");
  return element("p", { class: "note warn" },
    `The model reads ${most} tokens, and the ${words} is longer. It is cut behind `,
    element("strong", {}, `“… ${before}”`), "; this is ignored: ",
    element("s", {}, short(text.slice(length), 60)));
}
