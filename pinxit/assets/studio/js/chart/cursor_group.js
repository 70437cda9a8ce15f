// The cursor and the zoom that several charts share. Positions are values of the horizontal axis.

export function cursorGroup() {
  const listeners = new Set();
  const group = {
    cursor: null,
    zoom: null,
    join(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    moveTo(position) {
      if (position === group.cursor) return;
      group.cursor = position;
      for (const listener of listeners) listener("cursor");
    },
    zoomTo(ends) {
      group.zoom = ends && ends[1] > ends[0] ? ends : null;
      for (const listener of listeners) listener("zoom");
    },
  };
  return group;
}

// Returns the index of the value of a sorted list that is nearest to a position.
export function nearest(sorted, position) {
  let low = 0;
  let high = sorted.length - 1;
  if (high < 0) return -1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= position) low = middle;
    else high = middle;
  }
  return position - sorted[low] < sorted[high] - position ? low : high;
}
