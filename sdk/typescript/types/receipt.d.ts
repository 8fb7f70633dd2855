/**
 * The bytes that are signed: DSSE's pre-authentication encoding.
 *
 * @param {string} type @param {Uint8Array} body
 */
export function pae(type: string, body: Uint8Array): Uint8Array<ArrayBuffer>;
/** Limits of an envelope: bytes, and signatures. */
export const MAX_ENVELOPE: number;
export const MAX_SIGNATURES: 16;
export const PAYLOAD_TYPE: "application/vnd.in-toto+json";
/** A receipt that was verified; `Receipt.verify` is the only way to get one. */
export class Receipt {
    /**
     * Verifies a receipt against a pinned key and what was asked for.
     *
     * @param {Uint8Array} envelope from anyone
     * @param {Expected} expected
     * @returns {Promise<Receipt>}
     * @throws {ReceiptError} its `verdict` says how far it came
     */
    static verify(envelope: Uint8Array, expected: Expected): Promise<Receipt>;
    /** @param {import('../types/statement.d.ts').Receipt} says @param {Uint8Array} envelope @param {symbol} proof @private */
    private constructor();
    /** What the node has signed. */
    says: import("../types/statement.d.ts").Receipt;
    /** The bytes that were verified, to be kept. */
    envelope: Uint8Array<ArrayBufferLike>;
    /** Whether the module ended by itself with exit code 0. */
    get succeeded(): boolean;
    /** The module's exit code; null if it did not end by itself. */
    get exitCode(): number | null;
}
/**
 * What a receipt must say. What is not given is not asked for.
 */
export type Expected = {
    /**
     * the node's public key, 64 hex digits, known from elsewhere
     */
    key: string;
    jobId?: string | undefined;
    nonce?: string | undefined;
    /**
     * hex
     */
    moduleSha256?: string | undefined;
    /**
     * the output that you have
     */
    stdout?: Uint8Array<ArrayBufferLike> | undefined;
    /**
     * or its hash, hex
     */
    stdoutSha256?: string | undefined;
};
