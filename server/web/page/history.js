// The samples of one model that this tab has taken, for a few minutes. The server keeps none of this.

const KEPT_S = 300;

/** Figures of a model over time. `add` each answer of `api.live` as it comes. */
export class History {
  samples = [];
  #first = new Map(); // backend -> the batch sizes counted when it was first seen

  /** Keep an answer, taken at `at_s` (s since the epoch), and forget those that are too old. */
  add(answer, at_s) {
    const { latency, queued_rows, expected_wait_us, batch_sizes } = answer;
    const backends = latency.backends.map((one) => figures(one, latency.window_s));
    this.samples.push({ at_s, queued_rows, expected_wait_us, backends, batch_sizes });
    this.samples = this.samples.filter((one) => one.at_s >= at_s - KEPT_S);
    for (const [backend, sizes] of Object.entries(batch_sizes)) {
      const base = this.#first.get(backend);
      // a server that was started again counts from zero
      if (!base || shrunk(base, sizes)) this.#first.set(backend, sizes);
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
    const newest = this.samples.at(-1)?.batch_sizes ?? {};
    for (const backend of this.backends()) {
      const base = this.#first.get(backend) ?? {};
      const sizes = new Map();
      for (const [rows, batches] of Object.entries(newest[backend] ?? {})) {
        const more = batches - (base[rows] ?? 0);
        if (more > 0) sizes.set(Number(rows), more);
      }
      if (sizes.size > 0) found.push({ backend, sizes });
    }
    return found;
  }
}

/** What the page shows of a backend's report: null where nothing was executed. */
function figures(report, window_s) {
  const busy = report.rows > 0;
  const of = Object.fromEntries(report.phases.filter((one) => one.count > 0).map((one) => [one.phase, one]));
  const phases = Object.fromEntries(Object.entries(of).map(([name, one]) => [name, one.mean_us / 1000]));
  const { request: mean_ms = null, ...phases_ms } = phases;
  return {
    backend: report.backend,
    rows: report.rows,
    rows_per_s: report.rows_per_s,
    mean_batch: busy ? report.mean_batch_rows : null,
    padding: busy ? report.padding_ratio : null,
    cpu_share: report.execute_cpu_us / 1e6 / window_s,
    cpu_ms_per_row: busy ? report.cpu_us_per_row / 1000 : null,
    resident_bytes: report.resident_bytes,
    mean_ms,
    phases_ms,
    p50_ms: of.request ? of.request.p50_us / 1000 : null,
    p99_ms: of.request ? of.request.p99_us / 1000 : null,
  };
}

function shrunk(base, counts) {
  return Object.entries(base).some(([rows, batches]) => (counts[rows] ?? 0) < batches);
}
