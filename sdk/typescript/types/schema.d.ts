/** @type {import('./shape.js').Schema} */
export const STATEMENT: import("./shape.js").Schema;
