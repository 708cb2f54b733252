// "Health": every model and backend, what it runs on, what the gate measured of it; and what is not served.
import { bytes, count, digits, percent, plural, tiny } from "./format.js";
import { html } from "./view.js";

const STATES = {
  ready: ["good", "●", "ready"],
  starting: ["warn", "◐", "starting"],
  stopped: ["faint", "○", "not running"],
  down: ["bad", "✕", "down"],
};

export function Health({ models, refused, unloaded, colour }) {
  return html`<section id="health" aria-labelledby="health-title">
    <h2 id="health-title">Health</h2>
    <p class="lead">
      Every backend has processes of its own. One that is not running starts when a row needs it; one that is down is
      started again after a pause. Parity, padding, label and accuracy are what let it be published: how far its answers
      are from its source's, and a row's in a batch from the same row's alone.
    </p>
    ${refused.map(
      (one) => html`<div class="notice bad" key=${one.name} data-refused=${one.name}>
        <strong>${one.name} was refused</strong>
        <p>${one.reason}</p>
      </div>`,
    )}
    ${unloaded.map(
      (one) => html`<div class="notice" key=${one.name} data-unloaded=${one.name}>
        <strong>${one.name} <span class="faint">version ${one.version}</span> is not served</strong>
        <p>${one.reason}</p>
      </div>`,
    )}
    ${models.map((one) => html`<${Model} key=${one.name} model=${one} colour=${colour} />`)}
  </section>`;
}

function Model({ model, colour }) {
  const [tone, sign] = model.ready ? STATES.ready : STATES.down;
  return html`<div class="card model" data-model=${model.name}>
    <h3>
      <span class=${`state ${tone}`} title=${model.ready ? "ready" : "not ready"}><span aria-hidden="true">${sign} </span></span>
      ${model.name} <span class="faint">version ${model.version}</span>
      ${!model.ready && html`<span class="bad"> not ready</span>`}
    </h3>
    <p class="faint">
      From ${model.framework}, ${model.layer}. Labels: ${model.labels.join(", ")}. Texts of up to
      ${" "}${plural(model.max_tokens, "token")}.
    </p>
    <table class="stacking">
      <caption class="hidden">Backends of ${model.name}</caption>
      <thead>
        <tr>
          <th scope="col">Backend</th>
          <th scope="col">State</th>
          <th scope="col" class="number">Workers</th>
          <th scope="col" class="number" title="workers started in place of lost ones">Restarts</th>
          <th scope="col" class="number" title="resident, of its workers">Memory</th>
          <th scope="col" class="number" title="of one core, of its workers">CPU</th>
          <th scope="col" class="number" title="largest difference of an output from the source's, on held-out text">Parity</th>
          <th scope="col" class="number" title="largest difference of a row in a batch from the row alone">Padding</th>
          <th scope="col" class="number" title="rows that got the source's label">Same label</th>
          <th scope="col" class="number" title="on labelled held-out text">Accuracy</th>
        </tr>
      </thead>
      <tbody>
        ${model.backends.map((one) => html`<${Backend} key=${one.name} one=${one} colour=${colour(one.name)} />`)}
      </tbody>
    </table>
    ${Object.entries(model.refused_artifacts).map(
      ([kind, reason]) => html`<p class="refused" key=${kind}>
        <strong class="warn">${kind} was not published:</strong> ${reason}
      </p>`,
    )}
  </div>`;
}

function Backend({ one, colour }) {
  const [tone, sign, word] = STATES[one.state];
  return html`<tr data-backend=${one.name}>
    <th scope="row">
      <i class="dot" style=${{ background: colour }}></i>${one.name}
      ${one.preferred && html`<span class="tag" title="rows that name no backend go here">preferred</span>`}
      ${!one.takes_free_rows && html`<span class="tag" title="about as its source, by bounds of its own; serves only rows that name it">variant</span>`}
    </th>
    <td data-title="State" class="block">
      <span class=${`state ${tone}`}><span aria-hidden="true">${sign} </span>${word}</span>
      ${one.reason && html`<span class="reason">${one.reason}</span>`}
    </td>
    <td data-title="Workers" class="number">${count(one.workers)} of ${count(one.instances)}, ${plural(one.threads, "thread")}</td>
    <td data-title="Restarts" class="number">${count(one.restarts)}</td>
    <td data-title="Memory" class="number">${one.workers ? bytes(one.resident_bytes) : "–"}</td>
    <td data-title="CPU" class="number">${one.cpu_share === null ? "–" : percent(one.cpu_share, 0)}</td>
    <td data-title="Parity" class="number">${tiny(one.parity.largest_difference)}</td>
    <td data-title="Padding" class="number">${tiny(one.parity.padding_invariance)}</td>
    <td data-title="Same label" class="number">${percent(one.parity.label_agreement)}</td>
    <td data-title="Accuracy" class="number">${percent(one.parity.accuracy)}</td>
  </tr>`;
}
