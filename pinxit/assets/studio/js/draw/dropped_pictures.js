// Pictures that are dropped or pasted anywhere on a view.

import { element } from "../dom.js";

let waiting = null;

/** Keeps a picture for the view Draw, which takes it when it opens. */
export function keepForDraw(file) {
  waiting = file;
}

/** Returns the picture that another view kept, once. */
export function keptPicture() {
  const file = waiting;
  waiting = null;
  return file;
}

function pictureIn(transfer) {
  const files = [...(transfer?.files ?? [])];
  return files.find((file) => file.type.startsWith("image/")) ?? files[0] ?? null;
}

function hasFiles(event) {
  return [...(event.dataTransfer?.types ?? [])].includes("Files");
}

/** Calls `take(file)` for each picture. Returns the function that stops this. */
export function takePictures(take) {
  const curtain = element("div", { class: "curtain", hidden: true },
    element("p", {}, "Drop the picture: its settings are restored, or drawing starts from it."));
  document.body.append(curtain);
  let depth = 0;
  const listeners = {
    dragenter(event) {
      if (!hasFiles(event)) return;
      depth += 1;
      curtain.hidden = false;
    },
    dragleave(event) {
      if (!hasFiles(event)) return;
      depth = Math.max(0, depth - 1);
      curtain.hidden = depth === 0;
    },
    dragover(event) {
      if (hasFiles(event)) event.preventDefault();
    },
    drop(event) {
      if (!hasFiles(event)) return;
      event.preventDefault();
      depth = 0;
      curtain.hidden = true;
      const file = pictureIn(event.dataTransfer);
      if (file) take(file);
    },
    paste(event) {
      const file = pictureIn(event.clipboardData);
      if (!file) return;
      event.preventDefault();
      take(file);
    },
  };
  for (const [name, listener] of Object.entries(listeners)) addEventListener(name, listener);
  return () => {
    for (const [name, listener] of Object.entries(listeners)) removeEventListener(name, listener);
    curtain.remove();
  };
}
