/**
 * What a transport brings of a job; none of it is believed before the receipt is verified.
 *
 * @typedef {object} Brought
 * @property {string} key the public key that the receipt must be signed by: pinned by the caller, not told by the node
 * @property {string | null} requester the public key by which the job was asked for; null on this machine
 * @property {Uint8Array} envelope
 * @property {Uint8Array} stdout
 * @property {Uint8Array} stderr what is behind the module's own output, the transport may have added
 */
/** @typedef {{signal?: AbortSignal}} Options an abort cancels the job */
/** @typedef {{run(job: import('./job.js').Job, options: Options): Promise<Brought>}} Transport */
export class Client {
    /** @param {Transport} transport `new Gateway(…)`, or `new Local()` of `@phase/sdk/local` */
    constructor(transport: Transport);
    transport: Transport;
    /**
     * Runs a job to its end.
     *
     * @param {import('./job.js').Job} job
     * @param {Options} [options]
     * @returns {Promise<Result>} also of a job that failed or met a limit: its `status` says so
     * @throws {ReceiptError} what came is not what the pinned node signs about this job
     */
    run(job: import("./job.js").Job, options?: Options): Promise<Result>;
}
/**
 * What a transport brings of a job; none of it is believed before the receipt is verified.
 */
export type Brought = {
    /**
     * the public key that the receipt must be signed by: pinned by the caller, not told by the node
     */
    key: string;
    /**
     * the public key by which the job was asked for; null on this machine
     */
    requester: string | null;
    envelope: Uint8Array;
    stdout: Uint8Array;
    /**
     * what is behind the module's own output, the transport may have added
     */
    stderr: Uint8Array;
};
/**
 * an abort cancels the job
 */
export type Options = {
    signal?: AbortSignal;
};
export type Transport = {
    run(job: import("./job.js").Job, options: Options): Promise<Brought>;
};
import { Result } from './result.js';
