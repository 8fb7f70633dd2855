/**
 * The header fields that sign a request to a gateway, for programs that send their own.
 *
 * @param {import('./crypto.js').Identity} identity
 * @param {{method: string, target: string, node: string, body?: Uint8Array, time?: number, nonce?: string}} request
 *   `target` is path and query as they are sent, `node` the node's key in lower case; time (seconds since the epoch) and
 *   nonce are made where they are not given
 */
export function signRequest(identity: import("./crypto.js").Identity, { method, target, node, body, time, nonce }: {
    method: string;
    target: string;
    node: string;
    body?: Uint8Array;
    time?: number;
    nonce?: string;
}): Promise<{
    'Phase-Key': string;
    'Phase-Time': string;
    'Phase-Nonce': string;
    'Phase-Signature': string;
}>;
/**
 * @typedef {object} GatewayOptions
 * @property {string} url of the gateway: `http://node.example:8470`
 * @property {string} node the node's public key, 64 hex digits, known from elsewhere
 * @property {import('./crypto.js').Identity} identity the key that the node allows
 * @property {number} [timeout] milliseconds for a job in all, 10 minutes when left out
 * @property {number} [requestTimeout] milliseconds for one request, a minute when left out
 */
export class Gateway {
    /** @param {GatewayOptions} options */
    constructor({ url, node, identity, timeout, requestTimeout }: GatewayOptions);
    origin: string;
    prefix: string;
    node: string;
    identity: import("./crypto.js").Identity;
    timeout: number;
    requestTimeout: number;
    /**
     * Submits a job, waits for its end, and fetches what came of it.
     *
     * @param {import('./job.js').Job} job @param {import('./client.js').Options} [options]
     * @returns {Promise<import('./client.js').Brought>}
     */
    run(job: import("./job.js").Job, { signal }?: import("./client.js").Options): Promise<import("./client.js").Brought>;
    /** Hands a job over. @param {import('./job.js').Job} job @param {AbortSignal} [signal] */
    submit(job: import("./job.js").Job, signal?: AbortSignal): Promise<{
        job: string;
        state: string;
        detail: string;
    }>;
    /** How a job stands. @param {string} id @param {number} [wait] seconds @param {AbortSignal} [signal] */
    status(id: string, wait?: number, signal?: AbortSignal): Promise<{
        job: string;
        state: string;
        detail: string;
    }>;
    /** Stops a job. @param {string} id */
    cancel(id: string): Promise<{
        job: string;
        state: string;
        detail: string;
    }>;
    /**
     * Receipt and output of a job that has ended; not verified.
     *
     * @param {import('./job.js').Job} job @param {AbortSignal} [signal]
     * @returns {Promise<import('./client.js').Brought>}
     */
    fetch(job: import("./job.js").Job, signal?: AbortSignal): Promise<import("./client.js").Brought>;
    #private;
}
export type GatewayOptions = {
    /**
     * of the gateway: `http://node.example:8470`
     */
    url: string;
    /**
     * the node's public key, 64 hex digits, known from elsewhere
     */
    node: string;
    /**
     * the key that the node allows
     */
    identity: import("./crypto.js").Identity;
    /**
     * milliseconds for a job in all, 10 minutes when left out
     */
    timeout?: number | undefined;
    /**
     * milliseconds for one request, a minute when left out
     */
    requestTimeout?: number | undefined;
};
