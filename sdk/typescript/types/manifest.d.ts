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
    /** The manifest of a module. @param {Uint8Array} module its bytes @param {About} [about] */
    static of(module: Uint8Array, about?: About): Promise<Manifest>;
    /** Reads what `JSON.stringify` made of one. @param {string} text */
    static parse(text: string): Manifest;
    /** @param {string} module SHA-256 of the module, hex @param {About} [about] */
    constructor(module: string, about?: About);
    module: string;
    args: readonly string[];
    /** @type {Readonly<Record<string, string>>} */
    env: Readonly<Record<string, string>>;
    limits: Readonly<Partial<import("../types/statement.d.ts").Limits>>;
    deterministic: boolean;
    arch: "x86_64" | "arm64" | undefined;
    runtime: string | undefined;
    /** As a node takes it. */
    toJSON(): {
        runtime?: string | undefined;
        arch?: "x86_64" | "arm64" | undefined;
        module: string;
        args: readonly string[];
        env: Readonly<Record<string, string>>;
        limits: Readonly<Partial<import("../types/statement.d.ts").Limits>>;
        deterministic: boolean;
    };
}
/**
 * Limits of a job; what is not given is the node's default.
 */
export type Limits = Partial<import("../types/statement.d.ts").Limits>;
export type About = {
    /**
     * arguments, without the program's name
     */
    args?: readonly string[] | undefined;
    /**
     * the whole environment
     */
    env?: Readonly<Record<string, string>> | undefined;
    limits?: Partial<import("../types/statement.d.ts").Limits> | undefined;
    /**
     * whether every node must come to the same output
     */
    deterministic?: boolean | undefined;
    /**
     * what the node must be; any when left out
     */
    arch?: "x86_64" | "arm64" | undefined;
    runtime?: string | undefined;
};
