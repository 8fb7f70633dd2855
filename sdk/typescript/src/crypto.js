/** Hashes, base64, and Ed25519 as libsodium has it: WebCrypto where it knows the curve, else @noble/ed25519. */
import { MalformedError, PhaseError, UsageError } from './errors.js';

const BASE64 = /^(?:[A-Za-z0-9+/]*|[A-Za-z0-9_-]*)={0,2}$/;
const KEY = /^[0-9a-fA-F]{64}$/;
/** The order of the base point, and the prime of the field (RFC 8032, section 5.1). */
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;
const PRIME = 2n ** 255n - 19n;
/** The y of the points of small order, as they may be written: whoever has one for a key has signed nothing. */
const SMALL = new Set([
  0n,
  1n,
  PRIME - 1n,
  PRIME,
  PRIME + 1n,
  0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n,
  0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n,
]);
/** What PKCS #8 puts before the seed of an Ed25519 key (RFC 8410). */
const PKCS8 = '302e020100300506032b657004220420';

/** @typedef {{verify(key: Uint8Array, signature: Uint8Array, message: Uint8Array): Promise<boolean>, sign(seed: Uint8Array, message: Uint8Array): Promise<Uint8Array>, publicKey(seed: Uint8Array): Promise<Uint8Array>}} Curve */

/** @type {Promise<SubtleCrypto> | undefined} */
let found;
/** @type {Promise<Curve> | undefined} */
let curve;

/** WebCrypto: a global in browsers and newer versions of Node. @returns {Promise<SubtleCrypto>} */
function subtle() {
  found ??= (async () => {
    if (globalThis.crypto?.subtle) return globalThis.crypto.subtle;
    const module = 'node:crypto';
    try {
      return (await import(/* webpackIgnore: true */ /* @vite-ignore */ module)).webcrypto.subtle;
    } catch (cause) {
      throw new PhaseError('there is no WebCrypto here: a page must come from HTTPS or from this machine', { cause });
    }
  })();
  return found;
}

/** @param {Uint8Array | string} data text is hashed as UTF-8 @returns {Promise<string>} 64 hex digits */
export async function sha256(data) {
  const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : data;
  return hex(new Uint8Array(await (await subtle()).digest('SHA-256', /** @type {BufferSource} */ (bytes))));
}

/** @param {Uint8Array} data */
export function hex(data) {
  return Array.from(data, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** @param {string} text of hex digits, an even number @returns {Uint8Array} */
export function unhex(text) {
  if (!/^(?:[0-9a-fA-F]{2})*$/.test(text)) throw new UsageError('it is not hex');
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** @param {number} length bytes @returns {Promise<Uint8Array>} */
export async function random(length) {
  const module = 'node:crypto';
  const source = globalThis.crypto ?? (await import(/* webpackIgnore: true */ /* @vite-ignore */ module)).webcrypto;
  return source.getRandomValues(new Uint8Array(length));
}

/**
 * Reads base64 of either alphabet, padded or not. Of all texts that a lenient reader decodes to the same bytes, only
 * these are read.
 *
 * @param {string} text
 * @returns {Uint8Array}
 * @throws {MalformedError}
 */
export function unbase64(text) {
  if (!BASE64.test(text)) throw new MalformedError('it is not base64');
  const plain = text.replace(/=+$/, '').replace(/-/g, '+').replace(/_/g, '/');
  const padded = plain.padEnd(Math.ceil(plain.length / 4) * 4, '=');
  if (plain.length % 4 === 1 || (text.length !== plain.length && text.length !== padded.length)) {
    throw new MalformedError('it is not base64');
  }
  const binary = atob(padded);
  if (btoa(binary) !== padded) throw new MalformedError('it is not base64');
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

/**
 * A public key, as bytes.
 *
 * @param {string} text 64 hex digits
 * @throws {UsageError}
 */
export function publicKey(text) {
  if (typeof text !== 'string' || !KEY.test(text)) throw new UsageError('a public key has 64 hex digits');
  return unhex(text);
}

/**
 * Whether this key has signed this message.
 *
 * As libsodium: S below the order, no point of small order, the key in its one form, and the equation without the
 * cofactor (RFC 8032, section 5.1.7).
 *
 * @param {Uint8Array} key 32 bytes
 * @param {Uint8Array} signature
 * @param {Uint8Array} message
 */
export async function verify(key, signature, message) {
  if (key.length !== 32 || signature.length !== 64) return false;
  const [y, r, s] = [low(key), low(signature.subarray(0, 32)), number(signature.subarray(32))];
  if (s >= ORDER || y >= PRIME || SMALL.has(y) || SMALL.has(r)) return false;
  return (await ed25519()).verify(key, signature, message);
}

/** A private key, and what it signs. */
export class Identity {
  #seed;

  /** @param {Uint8Array} seed 32 bytes @param {string} key its public key, hex */
  constructor(seed, key) {
    this.#seed = seed;
    this.publicKey = key;
  }

  /** @param {Uint8Array | string} seed 32 bytes, or 64 hex digits (RFC 8032, section 5.1.5) */
  static async fromSeed(seed) {
    const bytes = typeof seed === 'string' ? unhex(seed) : seed.slice();
    if (bytes.length !== 32) throw new UsageError('a seed has 32 bytes');
    return new Identity(bytes, hex(await (await ed25519()).publicKey(bytes)));
  }

  /** A key that ends with this program. */
  static async ephemeral() {
    return Identity.fromSeed(await random(32));
  }

  /** @param {Uint8Array} message @returns {Promise<Uint8Array>} 64 bytes */
  async sign(message) {
    return (await ed25519()).sign(this.#seed, message);
  }
}

/** The number that bytes are, the lowest first. @param {Uint8Array} data */
function number(data) {
  return BigInt(`0x${hex(data.slice().reverse())}`);
}

/** The y of a point, without the sign of its x. @param {Uint8Array} point */
function low(point) {
  return number(point) & (2n ** 255n - 1n);
}

/** @returns {Promise<Curve>} */
export function ed25519() {
  curve ??= native().then((ours) => ours ?? noble());
  return curve;
}

/** Takes another Ed25519 than the one found here. @param {Curve} other */
export function useCurve(other) {
  curve = Promise.resolve(other);
}

/** WebCrypto's Ed25519, or null where it has none. @returns {Promise<Curve | null>} */
export async function native() {
  const web = await subtle();
  /** @param {Uint8Array} seed @param {boolean} readable */
  const key = (seed, readable) =>
    web.importKey('pkcs8', Uint8Array.of(...unhex(PKCS8), ...seed), { name: 'Ed25519' }, readable, ['sign']);
  /** @type {Curve} */
  const ours = {
    async verify(point, signature, message) {
      let imported;
      try {
        imported = await web.importKey('raw', /** @type {BufferSource} */ (point), { name: 'Ed25519' }, false, ['verify']);
      } catch {
        return false; // no point of the curve
      }
      return web.verify({ name: 'Ed25519' }, imported, /** @type {BufferSource} */ (signature), /** @type {BufferSource} */ (message));
    },
    async sign(seed, message) {
      const signed = await web.sign({ name: 'Ed25519' }, await key(seed, false), /** @type {BufferSource} */ (message));
      return new Uint8Array(signed);
    },
    async publicKey(seed) {
      const told = await web.exportKey('jwk', await key(seed, true));
      return unbase64(told.x ?? '');
    },
  };
  try {
    await ours.publicKey(new Uint8Array(32));
    return ours;
  } catch {
    return null;
  }
}

/** @noble/ed25519. Its own verification multiplies by the cofactor, so the equation is written here. @returns {Promise<Curve>} */
export async function noble() {
  let library;
  try {
    library = await import('@noble/ed25519');
  } catch (cause) {
    throw new PhaseError('WebCrypto has no Ed25519 here, and @noble/ed25519 is not installed', { cause });
  }
  const { Point, hashes, getPublicKeyAsync, signAsync } = library;
  const web = await subtle();
  /** @param {Uint8Array} data */
  const sha512 = async (data) => new Uint8Array(await web.digest('SHA-512', /** @type {BufferSource} */ (data)));
  hashes.sha512Async = sha512;
  return {
    async verify(point, signature, message) {
      try {
        const public_ = Point.fromBytes(point);
        const [r, s] = [signature.subarray(0, 32), number(signature.subarray(32))];
        const hashed = new Uint8Array(64 + message.length);
        hashed.set(r);
        hashed.set(point, 32);
        hashed.set(message, 64);
        const challenge = number(await sha512(hashed)) % ORDER;
        const base = s === 0n ? Point.ZERO : Point.BASE.multiply(s, false);
        const right = challenge === 0n ? Point.ZERO : public_.negate().multiply(challenge, false);
        return hex(base.add(right).toBytes()) === hex(r);
      } catch {
        return false; // no point of the curve
      }
    },
    sign: (seed, message) => signAsync(message, seed),
    publicKey: (seed) => getPublicKeyAsync(seed),
  };
}
