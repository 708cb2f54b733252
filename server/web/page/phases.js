// Durations of phases as one stacked bar, with every number beside it.
import { PHASES, phaseColour } from "./colours.js";
import { digits, milliseconds } from "./format.js";
import { html } from "./view.js";

/** A bar of `phases` (ms by name), as wide as their sum is of `longest`; its numbers below. */
export function PhaseBar({ phases, longest }) {
  const shown = PHASES.filter((name) => phases[name] !== undefined);
  const total = shown.reduce((sum, name) => sum + phases[name], 0);
  const words = shown.map((name) => `${name} ${milliseconds(phases[name])}`).join(", ");
  const width = longest > 0 ? (100 * total) / longest : 0;
  return html`<div class="phases">
    <div class="phase-track" role="img" aria-label=${`Milliseconds by phase: ${words}`}>
      <div class="phase-bar" style=${{ width: `${width}%` }}>
        ${shown.map(
          (name) => html`<span
            key=${name}
            title=${`${name}: ${milliseconds(phases[name])}`}
            style=${{ flexGrow: String(Math.max(phases[name], 0)), background: phaseColour(name) }}
          ></span>`,
        )}
      </div>
    </div>
    <dl class="phase-numbers">
      ${shown.map(
        (name) => html`<div key=${name}>
          <dt style=${{ borderColor: phaseColour(name) }}>${name}</dt>
          <dd>${digits(phases[name])}</dd>
        </div>`,
      )}
    </dl>
  </div>`;
}

/** Phases as the server writes them (`decode_us`, ...) in milliseconds, by their names. */
export function inMilliseconds(phases) {
  return Object.fromEntries(PHASES.map((name) => [name, phases[`${name}_us`] / 1000]));
}
