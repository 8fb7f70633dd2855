/** @param {Uint8Array | string} data text is hashed as UTF-8 @returns {Promise<string>} 64 hex digits */
export function sha256(data: Uint8Array | string): Promise<string>;
/** @param {Uint8Array} data */
export function hex(data: Uint8Array): string;
/** @param {string} text of hex digits, an even number @returns {Uint8Array} */
export function unhex(text: string): Uint8Array;
/** @param {number} length bytes @returns {Promise<Uint8Array>} */
export function random(length: number): Promise<Uint8Array>;
/**
 * Reads base64 of either alphabet, padded or not. Of all texts that a lenient reader decodes to the same bytes, only
 * these are read.
 *
 * @param {string} text
 * @returns {Uint8Array}
 * @throws {MalformedError}
 */
export function unbase64(text: string): Uint8Array;
/**
 * A public key, as bytes.
 *
 * @param {string} text 64 hex digits
 * @throws {UsageError}
 */
export function publicKey(text: string): Uint8Array<ArrayBufferLike>;
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
export function verify(key: Uint8Array, signature: Uint8Array, message: Uint8Array): Promise<boolean>;
/** @returns {Promise<Curve>} */
export function ed25519(): Promise<Curve>;
/** Takes another Ed25519 than the one found here. @param {Curve} other */
export function useCurve(other: Curve): void;
/** WebCrypto's Ed25519, or null where it has none. @returns {Promise<Curve | null>} */
export function native(): Promise<Curve | null>;
/** @noble/ed25519. Its own verification multiplies by the cofactor, so the equation is written here. @returns {Promise<Curve>} */
export function noble(): Promise<Curve>;
/** A private key, and what it signs. */
export class Identity {
    /** @param {Uint8Array | string} seed 32 bytes, or 64 hex digits (RFC 8032, section 5.1.5) */
    static fromSeed(seed: Uint8Array | string): Promise<Identity>;
    /** A key that ends with this program. */
    static ephemeral(): Promise<Identity>;
    /** @param {Uint8Array} seed 32 bytes @param {string} key its public key, hex */
    constructor(seed: Uint8Array, key: string);
    publicKey: string;
    /** @param {Uint8Array} message @returns {Promise<Uint8Array>} 64 bytes */
    sign(message: Uint8Array): Promise<Uint8Array>;
    #private;
}
export type Curve = {
    verify(key: Uint8Array, signature: Uint8Array, message: Uint8Array): Promise<boolean>;
    sign(seed: Uint8Array, message: Uint8Array): Promise<Uint8Array>;
    publicKey(seed: Uint8Array): Promise<Uint8Array>;
};
