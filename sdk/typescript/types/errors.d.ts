/** What the SDK throws: one class for each thing that a program may do about it. */
/** Root of every error of the SDK. */
export class PhaseError extends Error {
    /** @param {string} message @param {{cause?: unknown}} [options] */
    constructor(message: string, options?: {
        cause?: unknown;
    });
}
/** JSON that is malformed, or that two readers may read differently. */
export class MalformedError extends PhaseError {
}
/** A receipt that must not be relied on. */
export class ReceiptError extends PhaseError {
    /**
     * @param {'signature' | 'format' | 'binding'} verdict `signature`: it is nobody's; `format`: it is signed, and no
     *   receipt that everyone reads alike; `binding`: it is of something else.
     * @param {string} message
     * @param {{field?: string, cause?: unknown}} [more] which binding does not hold
     */
    constructor(verdict: "signature" | "format" | "binding", message: string, more?: {
        field?: string;
        cause?: unknown;
    });
    verdict: "signature" | "format" | "binding";
    field: string;
}
/** The caller asked for something that cannot be: a mistake in the program. */
export class UsageError extends PhaseError {
}
/** The node, or what answers in its place, refused or did not keep to the format. */
export class GatewayError extends PhaseError {
    /**
     * @param {string} message
     * @param {{status?: number, reason?: string, retryAfter?: number, passing?: boolean, cause?: unknown}} [more] the
     *   HTTP status, the word that the node gives as its reason, seconds after which to try again, and whether the node may
     *   answer a moment later: it was not reached, or is busy or being started
     */
    constructor(message: string, more?: {
        status?: number;
        reason?: string;
        retryAfter?: number;
        passing?: boolean;
        cause?: unknown;
    });
    status: number;
    reason: string;
    retryAfter: number;
    passing: boolean;
}
/** The job has no result: it was cancelled, lost with its node, or could not be run. */
export class JobError extends PhaseError {
    /** @param {string} state as the node calls it @param {string} message */
    constructor(state: string, message: string);
    state: string;
}
