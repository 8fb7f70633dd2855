/** What is to be run: everything about a job but the bytes. */
import { sha256 } from './crypto.js';
import { UsageError } from './errors.js';
import { JsonNumber, readJson } from './json.js';
import { STATEMENT } from './schema.js';
import { take } from './shape.js';

/**
 * Limits of a job; what is not given is the node's default.
 *
 * @typedef {Partial<import('../types/statement.d.ts').Limits>} Limits
 */
/**
 * @typedef {object} About
 * @property {readonly string[]} [args] arguments, without the program's name
 * @property {Readonly<Record<string, string>>} [env] the whole environment
 * @property {Limits} [limits]
 * @property {boolean} [deterministic] whether every node must come to the same output
 * @property {'x86_64' | 'arm64'} [arch] what the node must be; any when left out
 * @property {string} [runtime]
 */

/** Hash, arguments, environment and limits of a job. */
export class Manifest {
  /** @param {string} module SHA-256 of the module, hex @param {About} [about] */
  constructor(module, about = {}) {
    if (!/^[0-9a-f]{64}$/.test(module)) throw new UsageError('a module is named by 64 hex digits');
    this.module = module;
    this.args = Object.freeze([...(about.args ?? [])]);
    /** @type {Readonly<Record<string, string>>} */
    this.env = Object.freeze(Object.assign(Object.create(null), about.env));
    for (const text of [...this.args, ...Object.keys(this.env), ...Object.values(this.env)]) {
      if (typeof text !== 'string') throw new UsageError('arguments and variables are texts');
    }
    this.limits = checkLimits(about.limits ?? {});
    this.deterministic = about.deterministic ?? false;
    this.arch = about.arch;
    this.runtime = about.runtime;
  }

  /** The manifest of a module. @param {Uint8Array} module its bytes @param {About} [about] */
  static async of(module, about) {
    return new Manifest(await sha256(module), about);
  }

  /** Reads what `JSON.stringify` made of one. @param {string} text */
  static parse(text) {
    return new Manifest(...fromJson(take(STORED, readJson(new TextEncoder().encode(text)))));
  }

  /** As a node takes it. */
  toJSON() {
    return {
      module: this.module,
      args: this.args,
      env: this.env,
      limits: this.limits,
      deterministic: this.deterministic,
      ...(this.arch === undefined ? {} : { arch: this.arch }),
      ...(this.runtime === undefined ? {} : { runtime: this.runtime }),
    };
  }
}

const LIMITS = STATEMENT.$defs.Limits;
/** A manifest in JSON: of limits, only those that are there. */
const STORED = {
  $ref: '#/$defs/Manifest',
  $defs: {
    Manifest: {
      type: 'object',
      properties: {
        module: { type: 'string', pattern: '^[0-9a-f]{64}$' },
        args: { type: 'array', items: { type: 'string' }, default: [] },
        env: { type: 'object', additionalProperties: { type: 'string' }, default: {} },
        limits: { $ref: '#/$defs/Limits', default: {} },
        deterministic: { type: 'boolean', default: false },
        arch: { enum: ['x86_64', 'arm64'] },
        runtime: { type: 'string' },
      },
      required: ['module'],
    },
    Limits: {
      ...LIMITS,
      properties: Object.fromEntries(
        Object.entries(LIMITS.properties).map(([name, { default: _, ...rest }]) => [name, rest]),
      ),
    },
  },
};

/** @param {any} told @returns {[string, About]} */
function fromJson(told) {
  return [told.module, { ...told, limits: given(told.limits) }];
}

/** @param {Record<string, any>} limits @returns {Limits} */
function given(limits) {
  return Object.fromEntries(Object.entries(limits).filter(([, value]) => value !== undefined));
}

/** @param {Limits} limits @returns {Readonly<Limits>} */
function checkLimits(limits) {
  const wanted = given(limits);
  for (const name of Object.keys(wanted)) {
    if (!Object.hasOwn(LIMITS.properties, name)) throw new UsageError(`there is no limit ${name}`);
  }
  try {
    const numbers = Object.entries(wanted).map(([name, value]) => [name, new JsonNumber(String(value))]);
    take({ ...STORED, $ref: '#/$defs/Limits' }, new Map(/** @type {any} */ (numbers)));
  } catch (cause) {
    throw new UsageError(`a limit cannot be: ${/** @type {Error} */ (cause).message}`, { cause });
  }
  return Object.freeze(wanted);
}
