// The library that draws: Preact, with htm for templates. Text in a template is always text, never markup.
import { Component, createRef, h, render } from "./vendor/preact-11.2.0.mjs";
import htm from "./vendor/htm-3.1.1.mjs";

export const html = htm.bind(h);
export { Component, createRef, render };
