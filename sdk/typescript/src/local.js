/** Jobs on this machine, by the command `phase run`. Node only. */
import { spawn } from 'node:child_process';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { publicKey } from './crypto.js';
import { PhaseError, UsageError } from './errors.js';
import { readJson } from './json.js';
import { MAX_ENVELOPE } from './receipt.js';
import { STATEMENT } from './schema.js';
import { take } from './shape.js';

const MIB = 1 << 20;
/** Lines that the command itself may add behind the module's errors, bytes. */
const NOTES = 64 << 10;
/** @type {readonly [import('./manifest.js').Limits extends infer L ? keyof L : never, string, number][]} */
const FLAGS = [
  ['fuel', '--fuel', 1], ['wall_seconds', '--wall', 1], ['memory_bytes', '--memory', MIB],
  ['compile_bytes', '--compile', MIB], ['output_bytes', '--max-output', 1],
];
/** @type {import('./shape.js').Schema} */
const INIT = { type: 'object', properties: { node: { type: 'string' } }, required: ['node'] };

/**
 * @typedef {object} LocalOptions
 * @property {readonly string[]} [command] the words that start Phase: `['phase']` when left out
 * @property {string} [key] the public key that must sign; this machine's own when left out, as `phase init` tells it
 * @property {string} [state] the directory that holds the identity, as `phase --state`
 */

export class Local {
  /** @param {LocalOptions} [options] */
  constructor({ command = ['phase'], key, state } = {}) {
    if (key !== undefined) publicKey(key);
    this.command = command;
    this.key = key;
    this.state = state === undefined ? [] : ['--state', state];
  }

  /**
   * @param {import('./job.js').Job} job @param {import('./client.js').Options} [options]
   * @returns {Promise<import('./client.js').Brought>}
   */
  async run(job, { signal } = {}) {
    const key = this.key ?? (await this.#own());
    const directory = await mkdtemp(join(tmpdir(), 'phase-sdk-'));
    try {
      const [module, receipt] = [join(directory, 'module'), join(directory, 'receipt.json')];
      await writeFile(module, job.module);
      const most = job.manifest.limits.output_bytes ?? STATEMENT.$defs.Limits.properties.output_bytes.default;
      const ended = await this.#start(words(job, module, receipt, this.state), { input: job.stdin, most, signal });
      const envelope = await read(receipt, MAX_ENVELOPE);
      if (envelope === null) throw failed('run', ended);
      return { key, requester: null, envelope, stdout: ended.stdout, stderr: ended.stderr };
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  async #own() {
    const ended = await this.#start(['init', '--json', ...this.state], { input: new Uint8Array(), most: NOTES });
    if (ended.code !== 0) throw failed('init', ended);
    return take(INIT, readJson(ended.stdout)).node;
  }

  /**
   * @param {readonly string[]} more @param {{input: Uint8Array, most: number, signal?: AbortSignal}} options
   * @returns {Promise<{code: number | null, stdout: Uint8Array, stderr: Uint8Array}>}
   */
  #start(more, { input, most, signal }) {
    const [program = 'phase', ...first] = this.command;
    return new Promise((resolve, reject) => {
      /** @param {Error} cause */
      const fail = (cause) => reject(new PhaseError(`${program} cannot be run: ${cause.message}`, { cause }));
      let child;
      try {
        child = spawn(program, [...first, ...more], { stdio: ['pipe', 'pipe', 'pipe'], signal });
      } catch (error) {
        fail(/** @type {Error} */ (error));
        return;
      }
      /** @param {import('node:stream').Readable} stream */
      const collect = (stream) => {
        /** @type {Buffer[]} */
        const parts = [];
        let length = 0;
        stream.on('data', (part) => {
          length += part.length;
          if (length <= most + NOTES) parts.push(part);
          else stream.destroy(new Error(`it printed more than ${most} bytes`));
        });
        stream.on('error', fail);
        return parts;
      };
      const [stdout, stderr] = [collect(child.stdout), collect(child.stderr)];
      child.on('error', fail);
      child.on('close', (code) => resolve({ code, stdout: join_(stdout), stderr: join_(stderr) }));
      // A module need not read its input.
      child.stdin.on('error', () => undefined);
      child.stdin.end(input);
    });
  }
}

/** @param {import('./job.js').Job} job @param {string} module @param {string} receipt @param {readonly string[]} state */
function words(job, module, receipt, state) {
  const { args, env, limits, deterministic } = job.manifest;
  const known = new Set(FLAGS.map(([name]) => /** @type {string} */ (name)));
  const other = Object.entries(limits).find(([name, value]) => value !== undefined && !known.has(name));
  if (other) throw new UsageError(`a job on this machine cannot have the limit ${other[0]}`);
  const flags = FLAGS.flatMap(([name, flag, unit]) => {
    const value = limits[name];
    if (value === undefined) return [];
    if (value % unit && unit !== 1) throw new PhaseError(`${name} must be a whole number of MiB for a job on this machine`);
    return [flag, String(value / unit)];
  });
  return [
    'run', ...state, '--receipt', receipt, '--job-id', job.id, '--nonce', job.nonce, ...flags,
    ...(deterministic ? ['--deterministic'] : []),
    ...(job.stdin.length ? [] : ['--no-stdin']),
    ...Object.entries(env).flatMap(([name, value]) => ['--env', `${name}=${value}`]),
    module, '--', ...args,
  ];
}

/** The start of a file; null if it is not there or empty. @param {string} path @param {number} most */
async function read(path, most) {
  let file;
  try {
    file = await open(path);
  } catch {
    return null;
  }
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(most + 1), 0, most + 1, 0);
    return bytesRead ? join_([buffer.subarray(0, bytesRead)]) : null;
  } finally {
    await file.close();
  }
}

/** @param {Buffer[]} parts */
function join_(parts) {
  return new Uint8Array(Buffer.concat(parts));
}

/** @param {string} what @param {{code: number | null, stderr: Uint8Array}} ended */
function failed(what, { code, stderr }) {
  const said = new TextDecoder().decode(stderr).trim().split('\n').at(-1)?.slice(0, 500);
  return new PhaseError(`phase ${what} made no receipt (exit code ${code}): ${said || 'it said nothing'}`);
}
