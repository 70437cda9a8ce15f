// Follows the computation of a plan.

const AGAIN = 600; // milliseconds between two looks

/** Calls `onChange` with the job until it has ended. Returns the function that stops looking. */
export function followJob(api, id, onChange) {
  let stopped = false;
  let timer = null;
  let failures = 0;
  const look = async () => {
    try {
      const job = await api.get(`/studio/plans/${encodeURIComponent(id)}`);
      if (stopped) return;
      failures = 0;
      onChange(job);
      if (!["waiting", "computing"].includes(job.state)) return;
    } catch (error) {
      if (stopped) return;
      failures += 1;
      if (error.status === 404 || failures > 5) {
        onChange({ state: "failed", error: { message: error.message } });
        return;
      }
    }
    timer = setTimeout(look, AGAIN);
  };
  timer = setTimeout(look, AGAIN);
  return () => {
    stopped = true;
    clearTimeout(timer);
  };
}
