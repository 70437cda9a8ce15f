// Keeps the data of a run up to date with the server's events.

/** Follows a run. `changed(view)` hears every change, `broken(is)` whether the connection is lost.
 * Returns {view, close(), zoom(steps)}. */
export async function follow(api, name, changed, broken) {
  const path = `studio/runs/${encodeURIComponent(name)}`;
  let view = await api.get(path);
  let close = () => {};
  let ended = false;
  let reading = null;

  // Reads everything again: for another file of rows, new curves, or the results of the end.
  function read() {
    reading ??= api.get(path).then(
      (next) => {
        reading = null;
        if (ended) return;
        view = next;
        connect();
        changed(view);
      },
      () => {
        reading = null;
        broken(true);
      },
    );
    return reading;
  }

  function connect() {
    close();
    if (ended) return;
    close = api.events(
      `${path}/events?after=${encodeURIComponent(view.position)}`,
      {
        reset: read,
        rows: (data) => (added(view, data) ? tell() : read()),
        samples: ({ samples }) => {
          if (JSON.stringify(samples) === JSON.stringify(view.samples)) return;
          view = { ...view, samples };
          tell();
        },
        state: (state) => {
          const over = state.has_results && !view.summary;
          const other = state.state !== view.state;
          view = { ...view, ...state };
          if (over || other) read();
          tell();
        },
      },
      () => broken(true),
    );
  }

  function tell() {
    broken(false);
    changed(view);
  }

  connect();
  return {
    get view() {
      return view;
    },
    read,
    close() {
      ended = true;
      close();
    },
  };
}

/** Adds new rows to a run's data. Returns whether everything must be read again, as false. */
export function added(view, { generation, start, rows }) {
  const [known, count] = view.position.split(":");
  if (generation !== known || start > Number(count)) return false;
  const fresh = rows.slice(Number(count) - start);
  if (fresh.some((row) => Object.keys(row.values).some((name) => !(name in view.curves)))) return false;
  for (const row of fresh) {
    const at = view.axis.step.length;
    for (const key of ["step", "seconds", "images"]) view.axis[key].push(row[key]);
    for (const [name, value] of Object.entries(row.values)) {
      view.curves[name].at.push(at);
      view.curves[name].values.push(value);
    }
    const profile = profileOf(row.values);
    if (profile.length) view.profiles = [...view.profiles.slice(0, 4), { step: row.step, values: profile }];
    const warnings = (row.warnings ?? []).map((one) => ({ kind: "warning", step: row.step, text: one.text, advice: one.advice ?? "" }));
    if (warnings.length) view.events = [...view.events, ...warnings];
    view.step = Math.max(view.step, row.step);
    view.seconds = row.seconds;
  }
  view.position = `${known}:${Number(count) + fresh.length}`;
  return true;
}

function profileOf(values) {
  const profile = [];
  while (`loss_by_t/${profile.length}` in values) profile.push(values[`loss_by_t/${profile.length}`]);
  return profile;
}
