// One colour for each backend, the same everywhere on the page, told apart by colour-blind eyes (after Okabe and Ito).
// The colours are custom properties of style.css, which has them for light and for dark.

const OF_RUNTIME = { onnxruntime: 0, tensorflow: 1, torch: 2 };
const SPARE = [3, 4, 5, 6, 7];

/** The phases of a row's life, in order. */
export const PHASES = ["decode", "tokenize", "queue", "pad", "transfer", "execute", "respond"];

/** Returns a function from a backend's name to its CSS colour: a runtime has its own, variants take the others. */
export function backendColours(names) {
  const taken = new Map();
  const others = [...new Set(names)].filter((name) => !(name in OF_RUNTIME)).sort();
  others.forEach((name, index) => taken.set(name, SPARE[index % SPARE.length]));
  return (name) => `var(--backend-${OF_RUNTIME[name] ?? taken.get(name) ?? SPARE[0]})`;
}

/** The CSS colour of a phase. */
export function phaseColour(phase) {
  return `var(--phase-${phase})`;
}

/** What a CSS colour is now, light or dark: canvases know no custom properties. */
export function resolved(colour) {
  const name = /^var\((.*)\)$/.exec(colour);
  return name ? getComputedStyle(document.documentElement).getPropertyValue(name[1]).trim() : colour;
}
