// The jobs of this window: what it asked for, how far each is, and where it stands in the queue.

import { TAB, remember, rememberedObject } from "../storage.js";

const KEY = "pinxit-jobs";
const AGAIN = 3000; // milliseconds between attempts to reach the server
const LOOK = 1500; // milliseconds between looks at the queue

/** Follows jobs. One connection is open at a time, for the job that is being drawn.
 *
 * `show` receives events: added(job), changed(job), preview(job, index, source), picture(job, index,
 * picture), ended(job), lost(job, message), unreachable(message), reachable(). */
export class Jobs {
  constructor(api, show) {
    this.api = api;
    this.show = show;
    this.jobs = [];
    this.close = () => {};
    this.followed = null;
    this.timer = null;
    this.ended = false;
  }

  /** Shows the jobs again that this window had before a reload. */
  async resume() {
    const before = stored();
    if (before.length === 0) return;
    const answer = await this.api.get("/v1/jobs");
    for (const each of answer.data) {
      const mine = before.find(({ id }) => id === each.id);
      if (mine && ["queued", "drawing"].includes(each.state)) this.add(each, mine.request);
    }
    this.store();
  }

  /** Sends a request. Raises the server's error. */
  async draw(request) {
    const answer = await this.api.post("/v1/jobs", { ...request, previews: -1, keep: true });
    return this.add({ ...answer, n: answer.n ?? request.n }, request);
  }

  add(answer, request) {
    const job = {
      id: answer.id, state: answer.state ?? "queued", position: answer.position ?? 0,
      warnings: answer.warnings ?? [], request,
      pictures: Array.from({ length: answer.n ?? request.n ?? 1 }, () => ({ step: 0, steps: 0, done: false })),
    };
    this.jobs.push(job);
    this.store();
    this.show.added(job);
    this.follow();
    this.look();
    return job;
  }

  /** Opens the events of the first job, unless they are open. */
  follow() {
    if (this.ended || this.followed || this.jobs.length === 0) return;
    const job = this.jobs[0];
    this.followed = job;
    const handlers = {
      queued: ({ position }) => this.change(job, { state: position > 0 ? "queued" : "drawing", position }),
      step: ({ picture, step, steps }) => {
        Object.assign(job.pictures[picture], { step, steps });
        this.change(job, { state: "drawing", position: 0 });
      },
      preview: ({ picture, step, steps, b64_json, output_format }) => {
        Object.assign(job.pictures[picture], { step, steps });
        this.show.preview(job, picture, `data:image/${output_format ?? "png"};base64,${b64_json}`);
        this.change(job, { state: "drawing", position: 0 });
      },
      picture: (event) => {
        const picture = job.pictures[event.picture];
        Object.assign(picture, { done: true, ...event, step: picture.steps });
        this.show.picture(job, event.picture, picture);
      },
      ended: ({ state, error }) => {
        this.forget(job);
        Object.assign(job, { state, error: error?.message ?? error ?? null });
        this.show.ended(job);
        this.follow();
      },
    };
    this.close = this.api.events(`/v1/jobs/${encodeURIComponent(job.id)}/events`, handlers, () => this.broken(job));
  }

  change(job, values) {
    Object.assign(job, values);
    this.show.changed(job);
  }

  /** Looks for a job whose connection broke: it goes on, or it was lost. */
  async broken(job) {
    this.close();
    if (this.ended || !this.jobs.includes(job)) return;
    try {
      await this.api.get(`/v1/jobs/${encodeURIComponent(job.id)}`);
    } catch (error) {
      if (error.status === 404) {
        this.forget(job);
        this.show.lost(job, "The server was started again and no longer knows this drawing.");
        this.follow();
        return;
      }
      this.show.unreachable(job, error.message);
      clearTimeout(this.again);
      this.again = setTimeout(() => this.broken(job), AGAIN);
      return;
    }
    this.show.reachable();
    this.followed = null;
    this.follow();
  }

  async cancel(job) {
    try {
      await this.api.remove(`/v1/jobs/${encodeURIComponent(job.id)}`);
    } catch {
      // the server no longer knows the job, or does not answer: the page gives it up
      clearTimeout(this.again);
      this.drop(job);
      return;
    }
    if (job !== this.followed) this.drop(job);
  }

  drop(job) {
    if (!this.jobs.includes(job)) return;
    this.forget(job);
    this.show.ended(Object.assign(job, { state: "cancelled" }));
    this.follow();
  }

  forget(job) {
    this.jobs = this.jobs.filter((each) => each !== job);
    if (this.followed === job) {
      this.close();
      this.followed = null;
    }
    this.store();
  }

  /** Looks at the queue while jobs of this window wait. */
  async look() {
    clearTimeout(this.timer);
    if (this.ended || this.jobs.length === 0) return;
    if (this.jobs.some((job) => job.state === "queued")) await this.readQueue();
    if (!this.ended) this.timer = setTimeout(() => this.look(), LOOK);
  }

  async readQueue() {
    let all;
    try {
      all = (await this.api.get("/v1/jobs")).data;
    } catch {
      return; // the followed job's connection says so
    }
    for (const job of this.jobs) {
      const now = all.find((each) => each.id === job.id);
      if (now && job.state === "queued") this.change(job, { position: now.position });
    }
  }

  store() {
    const jobs = this.jobs.map(({ id, request }) => ({ id, request: { ...request, image: undefined, mask: undefined } }));
    remember(TAB, KEY, JSON.stringify(jobs));
  }

  end() {
    this.ended = true;
    clearTimeout(this.timer);
    clearTimeout(this.again);
    this.close();
  }
}

function stored() {
  const jobs = rememberedObject(TAB, KEY);
  return Array.isArray(jobs) ? jobs.filter((job) => job?.id && job.request) : [];
}
