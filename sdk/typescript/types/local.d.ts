/**
 * @typedef {object} LocalOptions
 * @property {readonly string[]} [command] the words that start Phase: `['phase']` when left out
 * @property {string} [key] the public key that must sign; this machine's own when left out, as `phase init` tells it
 * @property {string} [state] the directory that holds the identity, as `phase --state`
 */
export class Local {
    /** @param {LocalOptions} [options] */
    constructor({ command, key, state }?: LocalOptions);
    command: readonly string[];
    key: string | undefined;
    state: string[];
    /**
     * @param {import('./job.js').Job} job @param {import('./client.js').Options} [options]
     * @returns {Promise<import('./client.js').Brought>}
     */
    run(job: import("./job.js").Job, { signal }?: import("./client.js").Options): Promise<import("./client.js").Brought>;
    #private;
}
export type LocalOptions = {
    /**
     * the words that start Phase: `['phase']` when left out
     */
    command?: readonly string[] | undefined;
    /**
     * the public key that must sign; this machine's own when left out, as `phase init` tells it
     */
    key?: string | undefined;
    /**
     * the directory that holds the identity, as `phase --state`
     */
    state?: string | undefined;
};
