/**
 * Reads JSON that everyone reads alike.
 *
 * `JSON.parse` takes the last of two equal names, loses digits of large numbers, takes half of a surrogate pair, and has no
 * limit of depth. What is signed must say the same to everyone, so none of that is taken here.
 */
import { MalformedError } from './errors.js';

/** Limits of a document: nested objects and lists, and values in all. */
export const MAX_DEPTH = 64;
export const MAX_VALUES = 16384;

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const SPACE = /[ \t\n\r]*/y;
const PLAIN = /[^"\\\u0000-\u001f]*/y;
const ESCAPES = new Map([
  ['"', '"'], ['\\', '\\'], ['/', '/'], ['b', '\b'], ['f', '\f'], ['n', '\n'], ['r', '\r'], ['t', '\t'],
]);
const LONE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;

/** A number as it is written: how it is written decides whether it is an integer. */
export class JsonNumber {
  /** @param {string} text */
  constructor(text) {
    this.text = text;
  }

  /** Whether it is written without fraction and exponent. */
  get integer() {
    return /^-?[0-9]+$/.test(this.text);
  }
}

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
export function readJson(data) {
  let text;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(data);
  } catch (cause) {
    throw new MalformedError('it is not UTF-8', { cause });
  }
  return new Reader(text).document();
}

class Reader {
  /** @param {string} text */
  constructor(text) {
    this.text = text;
    this.place = 0;
    this.values = 0;
  }

  document() {
    const value = this.value(0);
    this.space();
    if (this.place !== this.text.length) this.fail('something follows it');
    return value;
  }

  /** @param {string} why @returns {never} */
  fail(why) {
    throw new MalformedError(`${why} (character ${this.place})`);
  }

  /** @param {RegExp} pattern sticky */
  match(pattern) {
    pattern.lastIndex = this.place;
    const found = pattern.exec(this.text);
    if (found === null) return null;
    this.place = pattern.lastIndex;
    return found[0];
  }

  space() {
    this.match(SPACE);
  }

  /** Takes one character, if it is the next after white space. @param {string} character */
  take(character) {
    this.space();
    if (this.text[this.place] !== character) return false;
    this.place += 1;
    return true;
  }

  /** @param {number} depth of what is around @returns {JsonValue} */
  value(depth) {
    this.values += 1;
    if (this.values > MAX_VALUES) this.fail(`it has more than ${MAX_VALUES} values`);
    this.space();
    const first = this.text[this.place];
    if (first === '{') return this.object(depth + 1);
    if (first === '[') return this.list(depth + 1);
    if (first === '"') return this.string();
    for (const [word, value] of /** @type {const} */ ([['true', true], ['false', false], ['null', null]])) {
      if (this.text.startsWith(word, this.place)) {
        this.place += word.length;
        return value;
      }
    }
    const number = this.match(NUMBER);
    if (number === null) this.fail('it is not JSON');
    return new JsonNumber(number);
  }

  /** @param {number} depth */
  open(depth) {
    if (depth > MAX_DEPTH) this.fail(`it has more than ${MAX_DEPTH} levels`);
    this.place += 1;
  }

  /** @param {number} depth @returns {JsonObject} */
  object(depth) {
    this.open(depth);
    /** @type {JsonObject} */
    const found = new Map();
    if (this.take('}')) return found;
    do {
      this.space();
      if (this.text[this.place] !== '"') this.fail('it is not JSON');
      const name = this.string();
      if (found.has(name)) this.fail('an object has a name twice');
      if (!this.take(':')) this.fail('it is not JSON');
      found.set(name, this.value(depth));
    } while (this.take(','));
    if (!this.take('}')) this.fail('it is not JSON');
    return found;
  }

  /** @param {number} depth @returns {JsonList} */
  list(depth) {
    this.open(depth);
    /** @type {JsonList} */
    const found = [];
    if (this.take(']')) return found;
    do found.push(this.value(depth));
    while (this.take(','));
    if (!this.take(']')) this.fail('it is not JSON');
    return found;
  }

  /** @returns {string} */
  string() {
    this.place += 1;
    const parts = [];
    for (;;) {
      parts.push(this.match(PLAIN) ?? '');
      const stop = this.text[this.place];
      if (stop === '"') break;
      if (stop !== '\\') this.fail('a text does not end, or has a character that must be an escape');
      parts.push(this.escape());
    }
    this.place += 1;
    const found = parts.join('');
    if (LONE.test(found)) this.fail('a text has half of a surrogate pair');
    return found;
  }

  escape() {
    const letter = this.text[this.place + 1] ?? '';
    if (letter === 'u') {
      const digits = this.text.slice(this.place + 2, this.place + 6);
      if (!/^[0-9a-fA-F]{4}$/.test(digits)) this.fail('JSON has no such escape');
      this.place += 6;
      return String.fromCharCode(parseInt(digits, 16));
    }
    const found = ESCAPES.get(letter);
    if (found === undefined) this.fail('JSON has no such escape');
    this.place += 2;
    return found;
  }
}
