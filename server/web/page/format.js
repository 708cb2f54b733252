// Numbers for people: three digits that matter, with their unit. Knows no data.

const MISSING = "–";

/** A duration in milliseconds, with as many digits as tell something. */
export function milliseconds(ms) {
  return ms === null || ms === undefined ? MISSING : `${digits(ms)} ms`;
}

/** A plain number, three significant digits, thousands set apart. */
export function digits(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return MISSING;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 0.01) return value.toFixed(3);
  if (size < 1) return value.toFixed(2);
  if (size < 10) return value.toFixed(2);
  if (size < 100) return value.toFixed(1);
  return Math.round(value).toLocaleString("en");
}

/** A whole number, thousands set apart. */
export function count(value) {
  return value === null || value === undefined ? MISSING : Math.round(value).toLocaleString("en");
}

/** A number near zero, as a power of ten: differences between backends. */
export function tiny(value) {
  if (value === null || value === undefined) return MISSING;
  if (value === 0) return "0";
  if (value >= 0.001) return value.toPrecision(2);
  const [mantissa, exponent] = value.toExponential(1).split("e");
  return `${mantissa} × 10${superscript(exponent)}`;
}

/** A share as a percentage. */
export function percent(share, places = 1) {
  if (share === null || share === undefined) return MISSING;
  return `${(100 * share).toFixed(places)} %`;
}

/** A size in memory. */
export function bytes(size) {
  if (size === null || size === undefined) return MISSING;
  for (const [unit, one] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (size >= one) return `${digits(size / one)} ${unit}`;
  }
  return `${size} bytes`;
}

/** `one`, or `several` with its number. */
export function plural(number, one, several = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : several}`;
}

function superscript(exponent) {
  const raised = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
  return [...exponent].map((one) => raised[one] ?? "").join("");
}
