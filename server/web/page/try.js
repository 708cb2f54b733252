// "Try it": one text through every backend of a model, side by side.
import { CallFailed, api } from "./api.js";
import { bytes, digits, milliseconds, percent, plural, tiny } from "./format.js";
import { PhaseBar, inMilliseconds } from "./phases.js";
import { Component, html } from "./view.js";

const EXAMPLES = [
  "A film to remember.",
  "Two hours that I will never get back.",
  "The plot is thin, but what a cast!",
];
const SHOWN_CHARACTERS = 280;

export class TryIt extends Component {
  state = { text: EXAMPLES[0], truncate: false, asking: false, answer: null, failure: null };

  async compare() {
    const { text, truncate, asking } = this.state;
    if (asking || !text || this.tooLarge()) return;
    const model = this.props.model;
    this.setState({ asking: true });
    try {
      const answer = await api.compare(model, text, truncate);
      this.setState({ asking: false, answer: { ...answer, text }, failure: null });
    } catch (error) {
      if (!(error instanceof CallFailed)) throw error;
      this.setState({ asking: false, answer: null, failure: error });
    }
    this.props.onTraffic();
  }

  size() {
    return new TextEncoder().encode(this.state.text).length;
  }

  tooLarge() {
    return this.size() > this.props.limits.text_bytes;
  }

  render({ models, model, limits, colour, onModel }, { text, truncate, asking, answer, failure }) {
    const size = this.size();
    const keys = (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        this.compare();
      }
    };
    const submit = (event) => {
      event.preventDefault();
      this.compare();
    };
    return html`<section id="try" aria-labelledby="try-title">
      <h2 id="try-title">Try it</h2>
      <p class="lead">The same text through every backend of a model: what each answers, and what it takes.</p>
      <form class="card ask" onSubmit=${submit}>
        <label for="text">Text</label>
        <textarea
          id="text"
          rows="3"
          spellcheck="false"
          value=${text}
          aria-describedby="text-size"
          onInput=${(event) => this.setState({ text: event.target.value })}
          onKeyDown=${keys}
        ></textarea>
        <div class="under-text">
          <span class="examples">
            ${EXAMPLES.map(
              (one) => html`<button key=${one} type="button" class="quiet" onClick=${() => this.setState({ text: one })}>
                ${one}
              </button>`,
            )}
          </span>
          <span id="text-size" class=${this.tooLarge() ? "bad" : "faint"} aria-live="polite">
            ${this.tooLarge()
              ? `${bytes(size)} of text: this server takes ${bytes(limits.text_bytes)} at most. Shorten it.`
              : bytes(size)}
          </span>
        </div>
        <div class="controls">
          <label class="field">
            <span>Model</span>
            <select value=${model} onChange=${(event) => onModel(event.target.value)}>
              ${models.map((one) => html`<option key=${one.name} value=${one.name}>${one.name}</option>`)}
            </select>
          </label>
          <label class="check">
            <input
              type="checkbox"
              checked=${truncate}
              onChange=${(event) => this.setState({ truncate: event.target.checked })}
            />
            Cut a text that is too long for the model
          </label>
          <button type="submit" class="main" disabled=${!text || this.tooLarge()} aria-disabled=${asking}>
            ${asking ? "Asking …" : "Compare"}
          </button>
          <span class="faint shortcut"><kbd>Ctrl</kbd> <kbd>Enter</kbd></span>
        </div>
      </form>
      <div class="results" aria-live="polite" aria-busy=${asking}>
        ${asking && html`<p class="waiting">Asking every backend. One that does not run yet is started first.</p>`}
        ${failure && html`<${Failure} failure=${failure} />`}
        ${answer && html`<${Answers} answer=${answer} colour=${colour} />`}
      </div>
    </section>`;
  }
}

function Failure({ failure }) {
  return html`<div class="notice bad" role="alert">
    <strong>${failure.kind}</strong>
    <p>${failure.message}</p>
    ${failure.retryAfterS !== null && html`<p>Try again in ${digits(failure.retryAfterS)} s.</p>`}
  </div>`;
}

function Answers({ answer, colour }) {
  const rows = answer.backends.map(row);
  const longest = Math.max(0, ...rows.filter((one) => !one.error).map((one) => total(one.phases)));
  const shown = answer.text.length > SHOWN_CHARACTERS ? `${answer.text.slice(0, SHOWN_CHARACTERS)} …` : answer.text;
  return html`<div class="card answers">
    <blockquote>${shown}</blockquote>
    <${Verdict} agreement=${answer.agreement} rows=${rows} />
    <table class="stacking">
      <caption class="hidden">What each backend of ${answer.model} answered</caption>
      <thead>
        <tr>
          <th scope="col">Backend</th>
          <th scope="col">Answer</th>
          <th scope="col" class="number" title="the largest between two probabilities of one label">Difference</th>
          <th scope="col" class="number">Total</th>
          <th scope="col" class="wide">By phase, ms</th>
          <th scope="col">Batch</th>
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          (one) => html`<tr key=${one.backend} data-backend=${one.backend}>
            <th scope="row"><i class="dot" style=${{ background: colour(one.backend) }}></i>${one.backend}</th>
            ${one.error
              ? html`<td colspan="5" class="bad block"><strong>${one.error.kind}</strong> ${one.error.message}</td>`
              : html`<td data-title="Answer" class="block">
                    <${Score} one=${one} labels=${answer.labels} colour=${colour(one.backend)} />
                  </td>
                  <td data-title="Difference" class="number">
                    ${one.backend === answer.reference
                      ? html`<span class="faint" title="the others are measured from it">reference</span>`
                      : tiny(one.difference)}
                  </td>
                  <td data-title="Total" class="number">${milliseconds(total(one.phases))}</td>
                  <td data-title="By phase, ms" class="block"><${PhaseBar} phases=${one.phases} longest=${longest} /></td>
                  <td data-title="Batch">${batch(one)}</td>`}
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

/** A row of the table: what one backend made of the one text. */
function row({ backend, held_to_float32, results, error, agreement }) {
  const failed = error ?? results[0].error;
  if (failed) return { backend, held: held_to_float32, error: failed };
  const found = results[0].prediction;
  return {
    ...found,
    backend,
    held: held_to_float32,
    error: null,
    phases: inMilliseconds(found.phases),
    difference: agreement.largest_difference,
  };
}

function Score({ one, labels, colour }) {
  const share = Math.max(...one.probabilities);
  const all = labels.map((label, index) => `${label} ${percent(one.probabilities[index], 2)}`).join(", ");
  return html`<div class="score" title=${all}>
    <strong>${one.label}</strong><span>${percent(share, 2)}</span>
    <div class="score-track"><div style=${{ width: `${100 * share}%`, background: colour }}></div></div>
  </div>`;
}

function Verdict({ agreement, rows }) {
  const answered = rows.filter((one) => !one.error);
  if (answered.length === 0) return html`<p class="verdict bad">No backend answered.</p>`;
  const failed = rows.length - answered.length;
  const silent = failed ? html` <span class="bad">${plural(failed, "backend")} gave no answer.</span>` : "";
  const cut = answered.some((one) => one.truncated)
    ? html` <span class="warn">The text was cut to ${plural(answered[0].tokens, "token")}.</span>`
    : "";
  if (answered.length === 1) {
    const who = failed ? `Only ${answered[0].backend} answered` : `${answered[0].backend} is the only backend`;
    return html`<p class="verdict">${who}: <strong>${answered[0].label}</strong>.${silent}${cut}</p>`;
  }
  const held = answered.filter((one) => one.held).length;
  const difference =
    held < 2
      ? ""
      : html`<span class="faint">
          Largest difference between any two probabilities${held < answered.length ? ", variants aside" : ""}:${" "}
          <b>${tiny(agreement.largest_difference)}</b>.
        </span>`;
  const labels = [...new Set(answered.map((one) => one.label))];
  if (labels.length === 1) {
    const all = answered.length === 2 ? "Both backends" : `All ${answered.length} backends`;
    const who = failed ? `${all} that answered` : all;
    return html`<p class="verdict good">
      <span aria-hidden="true">✓ </span>${who} agree: <strong>${labels[0]}</strong>. ${difference}${silent}${cut}
    </p>`;
  }
  const sides = answered.map((one) => `${one.backend} says ${one.label}`).join(", ");
  return html`<p class="verdict bad">
    <span aria-hidden="true">✗ </span>They disagree: ${sides}. ${difference}${silent}${cut}
  </p>`;
}

function batch(one) {
  const tokens = plural(one.tokens, "token");
  if (one.batch_rows === 1) return `alone, ${tokens}`;
  return `with ${plural(one.batch_rows - 1, "other row")}, ${tokens} padded to ${one.batch_tokens}`;
}

function total(phases) {
  return Object.values(phases).reduce((sum, ms) => sum + ms, 0);
}
