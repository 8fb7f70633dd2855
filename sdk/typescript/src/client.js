/** Runs jobs, here or on a node, and believes nothing but the receipt. */
import { sha256 } from './crypto.js';
import { ReceiptError } from './errors.js';
import { Receipt } from './receipt.js';
import { Result } from './result.js';

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
  constructor(transport) {
    this.transport = transport;
  }

  /**
   * Runs a job to its end.
   *
   * @param {import('./job.js').Job} job
   * @param {Options} [options]
   * @returns {Promise<Result>} also of a job that failed or met a limit: its `status` says so
   * @throws {ReceiptError} what came is not what the pinned node signs about this job
   */
  async run(job, options = {}) {
    const brought = await this.transport.run(job, options);
    const receipt = await Receipt.verify(brought.envelope, {
      key: brought.key,
      jobId: job.id,
      nonce: job.nonce,
      moduleSha256: job.manifest.module,
      stdout: brought.stdout,
    });
    const stderr = brought.stderr.subarray(0, receipt.says.stderr.length);
    await checkRest(job, receipt.says, stderr, brought.requester);
    return new Result(receipt, brought.stdout, stderr);
  }
}

/**
 * What a receipt says beside the names: arguments, environment, limits, input, errors.
 *
 * @param {import('./job.js').Job} job @param {import('../types/statement.d.ts').Receipt} says @param {Uint8Array} stderr
 * @param {string | null} requester
 */
async function checkRest(job, says, stderr, requester) {
  const { args, env, limits, deterministic } = job.manifest;
  // A node has all of the input; here, a module need not ask for all of it.
  const input = requester === null ? job.stdin.subarray(0, says.stdin.length) : job.stdin;
  const checks = /** @type {const} */ ([
    ['args', args.length === says.args.length && args.every((word, number) => word === says.args[number])],
    ['env', same(env, says.env)],
    ['stdin', says.stdin.length === input.length && says.stdin.sha256 === (await sha256(input))],
    ['stderr', says.stderr.length === stderr.length && says.stderr.sha256 === (await sha256(stderr))],
    ['seed', says.seed === (deterministic ? 0 : null)],
    ['requester', says.requester === requester],
    // Files are not asked for by these jobs, so none may have been there.
    ['files', Object.keys(says.inputs).length + Object.keys(says.outputs).length + says.directories.length === 0],
    ['limits', Object.entries(limits).every(([name, value]) => /** @type {any} */ (says.limits)[name] === value)],
  ]);
  for (const [field, holds] of checks) {
    if (!holds) throw new ReceiptError('binding', `the receipt has other ${field} than the job`, { field });
  }
}

/** @param {Readonly<Record<string, string>>} one @param {Readonly<Record<string, string>>} other */
function same(one, other) {
  const names = Object.keys(one);
  return names.length === Object.keys(other).length && names.every((name) => one[name] === other[name]);
}
