// A line plot over the last minutes, one line for each backend. Wraps uPlot (a global: it ships as a plain script).
import { resolved } from "./colours.js";
import { digits } from "./format.js";
import { Component, createRef, html } from "./view.js";

const HEIGHT = 160;
const DARK = window.matchMedia("(prefers-color-scheme: dark)");

/**
 * Draws `lines` ([{ label, colour, values }]) over `times` (s since the epoch), from `from` to `to`; their latest values
 * stand below, or those under the pointer, which all plots share. `unit` follows every number; `log` makes the scale
 * logarithmic; `least` is the least top of the scale.
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
    else this.fill();
  }

  componentWillUnmount() {
    this.observer.disconnect();
    DARK.removeEventListener("change", this.recolour);
    this.plot?.destroy();
  }

  resize() {
    const width = this.box.current?.clientWidth;
    if (width && this.plot && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }

  fill() {
    this.plot.setData([this.props.times, ...this.props.lines.map((line) => line.values)]);
  }

  draw() {
    this.plot?.destroy();
    const { lines, unit, log, least } = this.props;
    const ink = resolved("var(--faint-ink)");
    const grid = { stroke: resolved("var(--grid)"), width: 1 };
    const axis = { stroke: ink, grid, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    this.plot = new uPlot(
      {
        width: this.box.current.clientWidth || 300,
        height: HEIGHT,
        padding: [10, 8, 0, 0],
        cursor: { sync: { key: "live" }, drag: { x: false, y: false } },
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
            values: (_, ticks) => ticks.map((tick) => (tick === null ? null : `${Number(tick.toPrecision(3))}${unit}`)),
          },
        ],
        series: [
          {},
          ...lines.map((line) => ({
            label: line.label,
            stroke: resolved(line.colour),
            width: 2,
            points: { size: 4 },
          })),
        ],
      },
      [this.props.times, ...lines.map((line) => line.values)],
      this.box.current,
    );
  }

  render({ title, note, lines, unit, times }, { under }) {
    const shown = lines.map(({ label, colour, values }) => {
      const value = under === null ? values.at(-1) : values[under];
      return { label, colour, words: value === null || value === undefined ? "–" : `${digits(value)}${unit}` };
    });
    const words = shown.map((one) => `${one.label}: ${one.words}`).join("; ");
    return html`<figure class="plot">
      <figcaption><h4>${title}</h4><p>${note}</p></figcaption>
      <div ref=${this.box} role="img" aria-label=${`${title}. Latest: ${words}`}></div>
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

/** Whole decades round the values, one at least. */
function logRange(low, high) {
  if (!(low > 0)) return [1, 10];
  const bottom = Math.floor(Math.log10(low));
  return [10 ** bottom, 10 ** Math.max(bottom + 1, Math.ceil(Math.log10(high)))];
}
