// The server's calls. Owns timeouts and what a failure is called; knows no view.

const TIMEOUT_MS = 10_000;
const COMPARE_TIMEOUT_MS = 120_000; // backends that do not run are started first

/** A call that was not answered with a result: `kind` is the server's error, `Unreachable` where it gave none. */
export class CallFailed extends Error {
  constructor(kind, message, retryAfterS = null) {
    super(message);
    this.kind = kind;
    this.retryAfterS = retryAfterS;
  }
}

export const api = {
  models: () => call("api/models", {}, TIMEOUT_MS),
  live: (model) => call(`api/live?model=${encodeURIComponent(model)}`, {}, TIMEOUT_MS),
  compare: (model, text, truncate) =>
    call(
      "api/compare",
      {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ model, text, truncate }),
      },
      COMPARE_TIMEOUT_MS,
    ),
};

async function call(path, options, timeoutMs) {
  // From the page's own address, without the name and token that it may have been opened with.
  const base = location.origin + location.pathname;
  let response, body;
  try {
    response = await fetch(new URL(path, base), { ...options, signal: AbortSignal.timeout(timeoutMs) });
    body = await response.text();
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new CallFailed(
      "Unreachable",
      late ? `The server has not answered for ${timeoutMs / 1000} s.` : "The server does not answer: is it running?",
    );
  }
  let answer;
  try {
    answer = JSON.parse(body);
  } catch {
    answer = null;
  }
  if (response.ok && answer !== null) return answer;
  const retry = response.headers.get("Retry-After");
  throw new CallFailed(
    answer?.error?.kind ?? `HTTP ${response.status}`,
    answer?.error?.message ?? (body.trim().slice(0, 300) || response.statusText),
    retry === null ? null : Number(retry),
  );
}
