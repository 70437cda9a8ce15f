// The text of a path of SVG.

// Returns the text of a path through points; a null starts a new piece.
export function pathThrough(points) {
  let text = "";
  let pen = "M";
  for (const point of points) {
    if (point === null) {
      pen = "M";
      continue;
    }
    text += `${pen}${point[0].toFixed(1)},${point[1].toFixed(1)}`;
    pen = "L";
  }
  return text;
}
