// A plot over the last minutes: lines, or layers that are stacked. Wraps uPlot (a global: it ships as a plain script).
import { resolved } from "./colours.js";
import { digits } from "./format.js";
import { Component, createRef, html } from "./view.js";

const DARK = window.matchMedia("(prefers-color-scheme: dark)");

/**
 * Draws `lines` ([{ label, colour, values }]) over `times` (s since the epoch), from `from` to `to`; their latest values
 * stand below, or those under the pointer, which all plots share. `unit` follows every number; `log` makes the scale
 * logarithmic; `least` is the least top of the scale; `stacked` lays each line on the one before, and fills between.
 */
export class Plot extends Component {
  box = createRef();
  state = { under: null }; // the index of the instant under the pointer

  componentDidMount() {
    this.draw();
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.box.current);
    this.recolour = () => this.draw();
    DARK.addEventListener("change", this.recolour);
  }

  componentDidUpdate(before) {
    const same = (lines) => lines.map((line) => `${line.label} ${line.colour}`).join();
    if (same(before.lines) !== same(this.props.lines)) this.draw();
    else if (before.times !== this.props.times) this.plot.setData(this.data());
  }

  componentWillUnmount() {
    this.observer.disconnect();
    DARK.removeEventListener("change", this.recolour);
    this.plot?.destroy();
  }

  resize() {
    const width = this.box.current?.clientWidth;
    if (width && this.plot && width !== this.plot.width) this.plot.setSize({ width, height: this.plot.height });
  }

  data() {
    const { times, lines, stacked } = this.props;
    return [times, ...(stacked ? layers(lines) : lines.map((line) => line.values))];
  }

  draw() {
    this.plot?.destroy();
    const { lines, unit, log, least, stacked, height = 160 } = this.props;
    const grid = { stroke: resolved("var(--grid)"), width: 1 };
    const axis = {
      stroke: resolved("var(--faint-ink)"),
      grid,
      ticks: { show: false },
      font: "12px system-ui, sans-serif",
    };
    const series = lines.map((line) => {
      const colour = resolved(line.colour);
      return stacked
        ? { stroke: colour, width: 1, points: { show: false } }
        : { stroke: colour, width: 2, points: { size: 4 } };
    });
    if (stacked && series.length > 0) series[0].fill = resolved(lines[0].colour);
    this.plot = new uPlot(
      {
        width: this.box.current.clientWidth || 300,
        height,
        padding: [10, 28, 0, 0],
        cursor: { sync: { key: "live" }, drag: { x: false, y: false }, points: { show: !stacked } },
        legend: { show: false },
        hooks: { setCursor: [(plot) => this.setState({ under: plot.cursor.idx ?? null })] },
        scales: {
          x: { range: () => [this.props.from, this.props.to] },
          y: log
            ? { distr: 3, range: (_, low, high) => logRange(low, high) }
            : { range: (_, low, high) => [0, Math.max((high ?? 0) * 1.1, least ?? 0)] },
        },
        axes: [
          { ...axis, space: 70, size: 30, values: (_, ticks) => ticks.map(clock) },
          {
            ...axis,
            size: 62,
            space: 26,
            values: (_, ticks) =>
              ticks.map((tick) => (tick === null ? null : short(tick, unit))),
          },
        ],
        series: [{}, ...series],
        bands: stacked
          ? lines.slice(1).map((line, index) => ({ series: [index + 2, index + 1], fill: resolved(line.colour) }))
          : [],
      },
      this.data(),
      this.box.current,
    );
  }

  render({ title, note, lines, unit, times, bare }, { under }) {
    const shown = lines.map(({ label, colour, values }) => {
      const value = under === null ? values.at(-1) : values[under];
      return { label, colour, words: value === null || value === undefined ? "–" : `${digits(value)}${unit}` };
    });
    const words = shown.map((one) => `${one.label}: ${one.words}`).join("; ");
    const canvas = html`<div ref=${this.box} role="img" aria-label=${`${title}. Latest: ${words}`}></div>`;
    if (bare) return canvas;
    return html`<figure class="plot">
      <figcaption><h4>${title}</h4><p>${note}</p></figcaption>
      ${canvas}
      <dl class="legend" aria-hidden="true">
        ${shown.map(
          (one) => html`<div key=${one.label}>
            <dt><i class="dot" style=${{ background: one.colour }}></i>${one.label}</dt>
            <dd>${one.words}</dd>
          </div>`,
        )}
        ${under !== null && html`<div class="faint">at ${clock(times[under])}</div>`}
      </dl>
    </figure>`;
  }
}

function clock(seconds) {
  return new Date(1000 * seconds).toLocaleTimeString("en-GB");
}

/** A number of an axis, where there is little room. */
function short(tick, unit) {
  if (unit === " ms" && tick >= 1000) return `${Number((tick / 1000).toPrecision(3))} s`;
  return `${Number(tick.toPrecision(3))}${unit}`;
}

/** Whole decades round the values, one at least. */
function logRange(low, high) {
  if (!(low > 0)) return [1, 10];
  const bottom = Math.floor(Math.log10(low));
  return [10 ** bottom, 10 ** Math.max(bottom + 1, Math.ceil(Math.log10(high)))];
}

/** Each line's values on top of those before it; an instant that has none of the first has no layers. */
function layers(lines) {
  const found = [];
  for (const { values } of lines) {
    const below = found.at(-1);
    found.push(
      values.map((value, index) => (value === null || (below && below[index] === null) ? null : value + (below?.[index] ?? 0))),
    );
  }
  return found;
}
