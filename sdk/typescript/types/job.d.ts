/**
 * @typedef {object} Given
 * @property {Uint8Array | string} [stdin] the input of the module; text is sent as UTF-8
 * @property {string} [id] a random one when left out
 * @property {string} [nonce] a random one when left out, so that no older receipt fits
 */
export class Job {
    /**
     * A job of a module.
     *
     * @param {Uint8Array} module WebAssembly for WASI preview 1
     * @param {import('./manifest.js').About & Given} [about]
     */
    static of(module: Uint8Array, about?: import("./manifest.js").About & Given): Promise<Job>;
    /**
     * A job of a manifest that is there already.
     *
     * @param {Manifest} manifest @param {Uint8Array} module the bytes that it names @param {Given} [given]
     */
    static from(manifest: Manifest, module: Uint8Array, given?: Given): Promise<Job>;
    /**
     * @param {Manifest} manifest @param {Uint8Array} module @param {Uint8Array} stdin @param {string} stdinSha256
     * @param {string} id @param {string} nonce
     */
    constructor(manifest: Manifest, module: Uint8Array, stdin: Uint8Array, stdinSha256: string, id: string, nonce: string);
    manifest: Manifest;
    module: Uint8Array<ArrayBufferLike>;
    stdin: Uint8Array<ArrayBufferLike>;
    stdinSha256: string;
    id: string;
    nonce: string;
}
export type Given = {
    /**
     * the input of the module; text is sent as UTF-8
     */
    stdin?: string | Uint8Array<ArrayBufferLike> | undefined;
    /**
     * a random one when left out
     */
    id?: string | undefined;
    /**
     * a random one when left out, so that no older receipt fits
     */
    nonce?: string | undefined;
};
import { Manifest } from './manifest.js';
