/**
 * Checks a value, and gives it as plain values: fields that are not known are left out, those that may be absent have
 * their defaults.
 *
 * @param {Schema} schema the document
 * @param {import('./json.js').JsonValue} value
 * @returns {any}
 * @throws {MalformedError} it is of another shape; says where
 */
export function take(schema: Schema, value: import("./json.js").JsonValue): any;
export type Schema = {
    [keyword: string]: any;
};
