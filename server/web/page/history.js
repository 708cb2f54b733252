// The samples of one model that this tab has taken, for a few minutes. The server keeps none of this.

const KEPT_S = 300;

/** Figures of a model over time. `add` each answer of `api.live` as it comes. */
export class History {
  samples = [];
  windowS = 10;
  #first = new Map(); // backend -> the batch sizes counted when it was first seen

  /** Keep an answer, taken at `at_s` (s since the epoch), and forget those that are too old. */
  add(answer, at_s) {
    this.windowS = answer.window_s;
    const before = this.samples.at(-1);
    const seconds = before ? answer.time_s - before.time_s : null;
    const backends = answer.backends.map((one) => {
      const earlier = before?.backends.find((other) => other.backend === one.backend);
      // a server that was started again counts from zero: no share for that one sample
      const spent = earlier ? one.cpu_s - earlier.cpu_s : -1;
      return { ...one, cpu_share: seconds > 0 && spent >= 0 ? spent / seconds : null };
    });
    this.samples.push({ ...answer, backends, at_s });
    this.samples = this.samples.filter((one) => one.at_s >= at_s - KEPT_S);
    for (const { backend, batch_sizes } of backends) {
      const base = this.#first.get(backend);
      if (!base || shrunk(base, batch_sizes)) this.#first.set(backend, batch_sizes);
    }
  }

  /** The instants of the samples, s since the epoch. */
  times() {
    return this.samples.map((one) => one.at_s);
  }

  /** The names of the backends of the newest sample. */
  backends() {
    return this.samples.at(-1)?.backends.map((one) => one.backend) ?? [];
  }

  /** One figure of one backend at every instant; null where there was none. */
  series(backend, figure) {
    return this.samples.map((one) => one.backends.find((other) => other.backend === backend)?.[figure] ?? null);
  }

  /** The mean of one phase of one backend at every instant, ms; null where there was none. */
  phase(backend, name) {
    return this.series(backend, "phases_ms").map((phases) => phases?.[name] ?? null);
  }

  /** Rows that waited at every instant. */
  queue() {
    return this.samples.map((one) => one.queued_rows);
  }

  /** Whether no row was seen at any instant. */
  silent() {
    return this.samples.every((one) => one.queued_rows === 0 && one.backends.every((other) => other.rows === 0));
  }

  /** Batches by their number of rows since this history began: [{ backend, sizes: Map(rows -> batches) }]. */
  sizes() {
    const found = [];
    for (const { backend, batch_sizes } of this.samples.at(-1)?.backends ?? []) {
      const base = this.#first.get(backend);
      const sizes = new Map();
      for (const [rows, batches] of Object.entries(batch_sizes)) {
        const more = batches - (base[rows] ?? 0);
        if (more > 0) sizes.set(Number(rows), more);
      }
      if (sizes.size > 0) found.push({ backend, sizes });
    }
    return found;
  }
}

function shrunk(base, counts) {
  return Object.entries(base).some(([rows, batches]) => (counts[rows] ?? 0) < batches);
}
