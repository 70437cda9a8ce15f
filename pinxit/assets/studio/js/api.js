// The server's API, which other programs use as well.

/** An error that the server answered, or status 0 if it could not be reached. */
class ApiError extends Error {
  constructor(status, message, param = null) {
    super(message);
    this.status = status;
    this.param = param;
  }
}

const UNREACHABLE = "The studio's server does not answer. Is it still running?";

async function answer(path, options) {
  let response;
  try {
    response = await fetch(address(path), { credentials: "same-origin", ...options });
  } catch {
    throw new ApiError(0, UNREACHABLE);
  }
  const type = response.headers.get("content-type") ?? "";
  const body = type.includes("json") ? await response.json().catch(() => null) : null;
  if (!response.ok) {
    const error = body?.error ?? {};
    const message = error.message ?? body?.detail ?? `The server answered ${response.status}.`;
    throw new ApiError(response.status, String(message), error.param ?? null);
  }
  return body;
}

/** Returns the address of a path of the server, which a proxy may serve below another path. */
export function address(path) {
  return new URL(path.replace(/^\//, ""), document.baseURI.replace(/[#?].*$/, "")).href;
}

/** Returns the JSON of a path. */
export function get(path) {
  return answer(path);
}

/** Sends JSON and returns the answer's. */
export function post(path, body = {}) {
  const headers = { "content-type": "application/json" };
  return answer(path, { method: "POST", headers, body: JSON.stringify(body) });
}

/** Deletes a thing of the server. */
export function remove(path) {
  return answer(path, { method: "DELETE" });
}

/** Sends a form with files and returns the answer's JSON. */
export function upload(path, form) {
  return answer(path, { method: "POST", body: form });
}

/** Follows server-sent events: `handlers` by event name receive the parsed data. `onError` is
 * called when the connection fails; the browser tries again by itself unless `close` is called.
 * Returns the function that closes. */
export function events(path, handlers, onError) {
  const source = new EventSource(address(path), { withCredentials: true });
  for (const [name, handle] of Object.entries(handlers)) {
    source.addEventListener(name, (event) => handle(JSON.parse(event.data)));
  }
  source.addEventListener("error", (event) => {
    if (!(event instanceof MessageEvent)) onError();
  });
  return () => source.close();
}
