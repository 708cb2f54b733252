// The page: what is known of the server, asked again while the tab is seen; and the three sections that show it.
import { CallFailed, api } from "./api.js";
import { backendColours } from "./colours.js";
import { plural } from "./format.js";
import { Health } from "./health.js";
import { History } from "./history.js";
import { Live } from "./live.js";
import { TryIt } from "./try.js";
import { Component, html, render } from "./view.js";

const LIVE_EVERY_MS = 2_000;
const MODELS_EVERY = 2; // every second round asks for the models too

class Page extends Component {
  state = { models: null, refused: [], unloaded: [], ready: false, limits: null, model: null, failure: null, failedAt: null };
  histories = new Map();
  rounds = 0;

  componentDidMount() {
    document.addEventListener("visibilitychange", () => this.wake());
    this.round();
  }

  /** Ask now, where the tab is seen; as soon as the open question is answered, where there is one. */
  wake() {
    if (document.hidden) return;
    this.again = this.asking;
    if (this.asking) return;
    clearTimeout(this.timer);
    this.round();
  }

  async round() {
    this.asking = true;
    try {
      if (this.rounds % MODELS_EVERY === 0 || this.state.failure) this.know(await api.models());
      if (this.state.model !== null) {
        const model = this.state.model;
        this.history(model).add(await api.live(model), Date.now() / 1000);
      }
      this.rounds += 1;
      this.setState({ failure: null, failedAt: null });
    } catch (failure) {
      if (!(failure instanceof CallFailed)) throw failure;
      this.rounds = 0;
      this.setState({ failure, failedAt: this.state.failedAt ?? new Date() });
    } finally {
      this.asking = false;
    }
    if (!document.hidden) this.timer = setTimeout(() => this.round(), this.again ? 0 : LIVE_EVERY_MS);
    this.again = false;
  }

  know(answer) {
    const { models, refused, unloaded, ready, limits } = answer;
    const before = this.state.models ?? [];
    for (const model of models) {
      const earlier = before.find((one) => one.name === model.name);
      for (const backend of model.backends) {
        const one = earlier?.backends.find((other) => other.name === backend.name);
        const spent_us = one ? backend.worker_cpu_us - one.worker_cpu_us : -1; // less where a worker ended
        backend.cpu_share = spent_us >= 0 ? spent_us / 1e6 / (answer.time_s - this.knownAt) : null;
      }
    }
    this.knownAt = answer.time_s;
    const model = models.some((one) => one.name === this.state.model) ? this.state.model : (models[0]?.name ?? null);
    this.setState({ models, refused, unloaded, ready, limits, model });
  }

  history(model) {
    if (!this.histories.has(model)) this.histories.set(model, new History());
    return this.histories.get(model);
  }

  render(_, { models, refused, unloaded, ready, limits, model, failure, failedAt }) {
    const choose = (name) => {
      this.setState({ model: name });
      this.wake();
    };
    if (models === null) {
      return html`<${Top} failure=${failure} />
        <main>
          ${failure
            ? html`<div class="notice bad" role="alert"><strong>${failure.kind}</strong><p>${failure.message}</p><p>Asking again every two seconds.</p></div>`
            : html`<p class="loading">Asking the server what it serves …</p>`}
        </main>`;
    }
    const colour = backendColours(models.flatMap((one) => one.backends.map((backend) => backend.name)));
    const stale = failure && `${failure.message} What is shown is from ${failedAt.toLocaleTimeString("en-GB")}; asking again every two seconds.`;
    return html`<${Top} models=${models} refused=${refused} unloaded=${unloaded} ready=${ready} failure=${failure} sections />
      <main>
        ${models.length === 0
          ? html`<p class="notice">No model is served.</p>`
          : html`<${TryIt} models=${models} model=${model} limits=${limits} colour=${colour} onModel=${choose} onTraffic=${() => this.wake()} />
              <${Live} models=${models} model=${model} history=${this.history(model)} colour=${colour} onModel=${choose} stale=${stale} />`}
        <${Health} models=${models} refused=${refused} unloaded=${unloaded} colour=${colour} />
      </main>
      <footer>
        <a href="metrics">Metrics for Prometheus</a> · <a href="readyz">What is ready</a> · Latencies are the server's own:
        from a call's arrival to its answer.
      </footer>`;
  }
}

function Top({ models, refused, unloaded, ready, failure, sections }) {
  return html`<header>
    <a class="brand" href="#try"><img src="icon.svg" alt="" width="24" height="24" />Lockstep</a>
    ${sections &&
    html`<nav aria-label="Sections">
      <a href="#try">Try it</a><a href="#live">Live</a><a href="#health">Health</a>
    </nav>`}
    <p id="status" role="status" class="state">${status(models, refused, unloaded, ready, failure)}</p>
  </header>`;
}

function status(models, refused, unloaded, ready, failure) {
  if (failure) return html`<span class="bad"><span aria-hidden="true">✕ </span>${failure.kind === "Unreachable" ? "no answer" : failure.kind}</span>`;
  if (!models) return html`<span class="faint">connecting …</span>`;
  const few = [
    unloaded.length ? html`, ${unloaded.length} unloaded` : "",
    refused.length ? html`, <span class="warn">${refused.length} refused</span>` : "",
  ];
  if (!ready) return html`<span class="warn"><span aria-hidden="true">◐ </span>not ready</span>${few}`;
  return html`<span class="good"><span aria-hidden="true">● </span>ready</span>, ${plural(models.length, "model")}${few}`;
}

const place = document.getElementById("page");
place.replaceChildren();
render(html`<${Page} />`, place);
