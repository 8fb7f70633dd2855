/** A job: a manifest, the bytes, and what makes its receipt nobody else's. */
import { hex, random, sha256 } from './crypto.js';
import { UsageError } from './errors.js';
import { Manifest } from './manifest.js';

const ID = /^[0-9A-Za-z._:-]{1,128}$/;
const NONCE = /^[0-9A-Za-z._:+/=-]{0,128}$/;

/**
 * @typedef {object} Given
 * @property {Uint8Array | string} [stdin] the input of the module; text is sent as UTF-8
 * @property {string} [id] a random one when left out
 * @property {string} [nonce] a random one when left out, so that no older receipt fits
 */

export class Job {
  /**
   * @param {Manifest} manifest @param {Uint8Array} module @param {Uint8Array} stdin @param {string} stdinSha256
   * @param {string} id @param {string} nonce
   */
  constructor(manifest, module, stdin, stdinSha256, id, nonce) {
    this.manifest = manifest;
    this.module = module;
    this.stdin = stdin;
    this.stdinSha256 = stdinSha256;
    this.id = id;
    this.nonce = nonce;
  }

  /**
   * A job of a module.
   *
   * @param {Uint8Array} module WebAssembly for WASI preview 1
   * @param {import('./manifest.js').About & Given} [about]
   */
  static async of(module, about = {}) {
    return Job.from(await Manifest.of(module, about), module, about);
  }

  /**
   * A job of a manifest that is there already.
   *
   * @param {Manifest} manifest @param {Uint8Array} module the bytes that it names @param {Given} [given]
   */
  static async from(manifest, module, given = {}) {
    if ((await sha256(module)) !== manifest.module) throw new UsageError('these bytes are another module');
    const stdin = typeof given.stdin === 'string' ? new TextEncoder().encode(given.stdin) : given.stdin;
    const id = given.id ?? hex(await random(16));
    const nonce = given.nonce ?? hex(await random(16));
    if (!ID.test(id)) throw new UsageError('a job id has 1 to 128 characters of 0-9A-Za-z._:-');
    if (!NONCE.test(nonce)) throw new UsageError('a nonce has at most 128 characters of 0-9A-Za-z._:+/=-');
    const input = stdin ?? new Uint8Array();
    return new Job(manifest, module, input, await sha256(input), id, nonce);
  }
}
