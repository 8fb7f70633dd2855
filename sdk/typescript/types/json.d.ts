/** @typedef {null | boolean | string | JsonNumber | JsonList | JsonObject} JsonValue */
/** @typedef {JsonValue[]} JsonList */
/** @typedef {Map<string, JsonValue>} JsonObject */
/**
 * Reads one document.
 *
 * @param {Uint8Array} data from anyone; the caller has bounded its size
 * @returns {JsonValue}
 * @throws {MalformedError}
 */
export function readJson(data: Uint8Array): JsonValue;
/** Limits of a document: nested objects and lists, and values in all. */
export const MAX_DEPTH: 64;
export const MAX_VALUES: 16384;
/** A number as it is written: how it is written decides whether it is an integer. */
export class JsonNumber {
    /** @param {string} text */
    constructor(text: string);
    text: string;
    /** Whether it is written without fraction and exponent. */
    get integer(): boolean;
}
export type JsonValue = null | boolean | string | JsonNumber | JsonList | JsonObject;
export type JsonList = JsonValue[];
export type JsonObject = Map<string, JsonValue>;
