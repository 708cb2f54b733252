// "Live": how a model's backends do now, and how they did in the minutes that this tab has watched.
import { count, digits, milliseconds, percent, plural } from "./format.js";
import { PHASES, phaseColour } from "./colours.js";
import { PhaseBar } from "./phases.js";
import { Plot } from "./plot.js";
import { html } from "./view.js";

const LEAST_SPAN_S = 60;
const SIZES = [1, 2, 4, 8, 16, 32, 64, Infinity]; // upper bounds of the bars

/** `history` is that of `model`; `stale` says why its figures are old, where they are. */
export function Live({ models, model, history, colour, onModel, stale }) {
  return html`<section id="live" aria-labelledby="live-title">
    <h2 id="live-title">Live</h2>
    <p class="lead">
      How the backends do now, as the server measures it: over the last ten seconds or so, asked again every two.
    </p>
    <label class="field">
      <span>Model</span>
      <select value=${model} onChange=${(event) => onModel(event.target.value)}>
        ${models.map((one) => html`<option key=${one.name} value=${one.name}>${one.name}</option>`)}
      </select>
    </label>
    ${stale && html`<p class="notice bad">${stale}</p>`}
    ${history.samples.length === 0
      ? !stale && html`<p class="loading">Waiting for the first figures …</p>`
      : html`<${Figures} model=${model} history=${history} colour=${colour} />`}
  </section>`;
}

function Figures({ model, history, colour }) {
  const now = history.samples.at(-1);
  const seen = history.backends();
  const busy = now.backends.filter((one) => one.mean_ms !== null);
  const to = now.at_s;
  const from = Math.min(to - LEAST_SPAN_S, history.samples[0].at_s);
  const lines = (figure) =>
    seen.map((name) => ({ label: name, colour: colour(name), values: history.series(name, figure) }));
  const shared = { times: history.times(), from, to };
  const longest = Math.max(0, ...busy.map((one) => one.mean_ms));
  return html`
    ${history.silent() &&
    html`<p class="notice" id="no-traffic">
      No traffic yet. Compare a text above, or send some: <code>lockstep loadtest --model ${model}</code>
    </p>`}
    <div class="card">
      <table class="stacking pairs" id="now">
        <caption>The last ten seconds or so</caption>
        <thead>
          <tr>
            <th scope="col">Backend</th>
            <th scope="col" class="number">Rows/s</th>
            <th scope="col" class="number">p50</th>
            <th scope="col" class="number">p99</th>
            <th scope="col" class="number" title="mean rows of a batch">Batch</th>
            <th scope="col" class="number" title="padded tokens for each token: 1 is none">Padding</th>
            <th scope="col" class="number" title="of the workers while they execute">CPU a row</th>
            <th scope="col" class="number" title="of one core, while they execute">CPU</th>
          </tr>
        </thead>
        <tbody>
          ${now.backends.map(
            (one) => html`<tr key=${one.backend} data-backend=${one.backend}>
              <th scope="row"><i class="dot" style=${{ background: colour(one.backend) }}></i>${one.backend}</th>
              <td data-title="Rows/s" class="number">${digits(one.rows_per_s)}</td>
              <td data-title="p50" class="number">${milliseconds(one.p50_ms)}</td>
              <td data-title="p99" class="number">${milliseconds(one.p99_ms)}</td>
              <td data-title="Batch" class="number">${rows(one.mean_batch)}</td>
              <td data-title="Padding" class="number">${times(one.padding)}</td>
              <td data-title="CPU a row" class="number">${milliseconds(one.cpu_ms_per_row)}</td>
              <td data-title="CPU" class="number">${percent(one.cpu_share, 0)}</td>
            </tr>`,
          )}
          <tr class="sum">
            <th scope="row">Queue</th>
            <td colspan="7">
              <b id="queued">${count(now.queued_rows)}</b> ${now.queued_rows === 1 ? "row waits" : "rows wait"}
              ${now.expected_wait_us > 0 && `; a new one would wait about ${milliseconds(now.expected_wait_us / 1000)}`}
            </td>
          </tr>
        </tbody>
      </table>
    </div>
    <div class="plots">
      <${Plot} title="Latency, p50" note="half of the rows are faster" lines=${lines("p50_ms")} unit=" ms" log ...${shared} />
      <${Plot} title="Latency, p99" note="one row in a hundred is slower" lines=${lines("p99_ms")} unit=" ms" log ...${shared} />
      <${Plot} title="Throughput" note="rows a second" lines=${lines("rows_per_s")} unit="/s" least=${1} ...${shared} />
      <${Plot}
        title="Queue"
        note="rows that wait, of all backends"
        lines=${[{ label: "rows", colour: "var(--queue)", values: history.queue() }]}
        unit=""
        least=${4}
        ...${shared}
      />
      <${Plot} title="Padding" note="padded tokens for each token: 1 is none" lines=${lines("padding")} unit="×" least=${2} ...${shared} />
      <${Sizes} history=${history} colour=${colour} />
    </div>
    <div class="card">
      <h4>Where the time goes <span class="faint">a row's mean, ms: now, and over time</span></h4>
      ${busy.length === 0
        ? html`<p class="faint">No recent rows.</p>`
        : html`<dl class="breakdown">
            ${busy.map(
              (one) => html`<div key=${one.backend}>
                <dt><i class="dot" style=${{ background: colour(one.backend) }}></i>${one.backend} <b>${milliseconds(one.mean_ms)}</b></dt>
                <dd><${PhaseBar} phases=${one.phases_ms} longest=${longest} /></dd>
                <dd>
                  <${Plot}
                    title=${`Phases of ${one.backend} over time`}
                    lines=${PHASES.map((phase) => ({
                      label: phase,
                      colour: phaseColour(phase),
                      values: history.phase(one.backend, phase),
                    }))}
                    unit=" ms"
                    height=${110}
                    stacked
                    bare
                    ...${shared}
                  />
                </dd>
              </div>`,
            )}
          </dl>`}
    </div>
  `;
}

/** Batches by their number of rows, as bars; share of the batches of each backend. */
function Sizes({ history, colour }) {
  const backends = history.sizes();
  const bars = SIZES.map((top, index) => ({ from: (SIZES[index - 1] ?? 0) + 1, top }));
  return html`<figure class="plot">
    <figcaption><h4>Batch size</h4><p>share of batches by rows, since this tab watches</p></figcaption>
    ${backends.length === 0
      ? html`<p class="faint empty">No batch yet.</p>`
      : html`<div class="sizes">
          ${backends.map(({ backend, sizes }) => {
            const all = [...sizes.values()].reduce((sum, one) => sum + one, 0);
            const shares = bars.map(({ from, top }) => {
              let batches = 0;
              for (const [rows, number] of sizes) if (rows >= from && rows <= top) batches += number;
              return batches / all;
            });
            const most = Math.max(...shares);
            const words = bars.map((bar, index) => `${name(bar)}: ${percent(shares[index], 0)}`).join(", ");
            return html`<div class="size-row" key=${backend} role="img" aria-label=${`${backend}, ${plural(all, "batch", "batches")}. ${words}`}>
              <span class="size-name"><i class="dot" style=${{ background: colour(backend) }}></i>${backend} <span class="faint">${count(all)}</span></span>
              <span class="size-bars">
                ${shares.map(
                  (share, index) => html`<span key=${index} title=${`${name(bars[index])} rows: ${percent(share)}`}>
                    <i style=${{ height: `${(100 * share) / most}%`, background: colour(backend) }}></i>
                  </span>`,
                )}
              </span>
            </div>`;
          })}
          <div class="size-row" aria-hidden="true">
            <span class="size-name faint">rows</span>
            <span class="size-axis">${bars.map((bar) => html`<span key=${bar.top}>${name(bar)}</span>`)}</span>
          </div>
        </div>`}
  </figure>`;
}

function name({ from, top }) {
  if (top === Infinity) return `>${from - 1}`;
  return from === top ? String(top) : `≤${top}`;
}

function rows(value) {
  return value === null ? "–" : `${digits(value)} ${value === 1 ? "row" : "rows"}`;
}

function times(value) {
  return value === null || value === undefined ? "–" : `${value.toFixed(2)}×`;
}
