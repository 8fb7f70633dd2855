/** What came of a job: the output, and the receipt that was verified against it. */
export class Result {
    /** @param {import('./receipt.js').Receipt} receipt @param {Uint8Array} stdout @param {Uint8Array} stderr */
    constructor(receipt: import("./receipt.js").Receipt, stdout: Uint8Array, stderr: Uint8Array);
    receipt: import("./receipt.js").Receipt;
    stdout: Uint8Array<ArrayBufferLike>;
    stderr: Uint8Array<ArrayBufferLike>;
    /** How it ended, as the node has signed it. */
    get status(): import("../types/statement.js").Exited | import("../types/statement.js").Trapped | import("../types/statement.js").LimitHit | import("../types/statement.js").Rejected | import("../types/statement.js").Killed;
    /** The module's exit code; null if it did not end by itself. */
    get exitCode(): number | null;
    /** Whether the module ended by itself with exit code 0. */
    get succeeded(): boolean;
    /** The output as text; what is not UTF-8 becomes U+FFFD. */
    get text(): string;
}
