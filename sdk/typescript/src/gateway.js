/** Jobs on a node, over its HTTP gateway: docs/develop/gateway.md. */
import { hex, publicKey, random, sha256 } from './crypto.js';
import { GatewayError, JobError, PhaseError, UsageError } from './errors.js';
import { readJson } from './json.js';
import { MAX_ENVELOPE } from './receipt.js';
import { STATEMENT } from './schema.js';
import { take } from './shape.js';

const NAMED = 'a gateway is named by http://HOST:PORT or https://HOST';
const MOST_JSON = 64 << 10;
/** Bytes from which on it pays to ask whether the node has them. */
const SMALL = 16 << 10;
/** Blobs that are remembered to be there. */
const MOST_KNOWN = 1024;
/** Questions about a job that may fail one after the other; the job goes on meanwhile. */
const TRIES = 5;
/** Of Node: the node could not be reached, or the connection was cut. Browsers give no code. */
const CUT = new Set(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ENETUNREACH', 'EHOSTUNREACH', 'UND_ERR_SOCKET', undefined]);
const ENDED = new Set(['done', 'cancelled', 'returned', 'lost', 'failed']);
/** @type {import('./shape.js').Schema} */
const STATUS = {
  type: 'object',
  properties: {
    job: { type: 'string' },
    state: { enum: ['queued', 'running', ...ENDED] },
    detail: { type: 'string', default: '' },
  },
  required: ['job', 'state'],
};
/** @type {import('./shape.js').Schema} */
const PROBLEM = {
  type: 'object',
  properties: { detail: { type: 'string', default: '' }, reason: { type: 'string', default: '' } },
  required: [],
};

/**
 * @typedef {object} GatewayOptions
 * @property {string} url of the gateway: `http://node.example:8470`
 * @property {string} node the node's public key, 64 hex digits, known from elsewhere
 * @property {import('./crypto.js').Identity} identity the key that the node allows
 * @property {number} [timeout] milliseconds for a job in all, 10 minutes when left out
 * @property {number} [requestTimeout] milliseconds for one request, a minute when left out
 */

export class Gateway {
  /** Blobs that the node has had. @type {Set<string>} */
  #there = new Set();

  /** @param {GatewayOptions} options */
  constructor({ url, node, identity, timeout = 600_000, requestTimeout = 60_000 }) {
    const address = parsed(url);
    if (!['http:', 'https:'].includes(address.protocol) || address.search || address.hash || address.username) {
      throw new UsageError(NAMED);
    }
    publicKey(node);
    this.origin = address.origin;
    this.prefix = address.pathname.replace(/\/+$/, '');
    this.node = node.toLowerCase();
    this.identity = identity;
    this.timeout = timeout;
    this.requestTimeout = requestTimeout;
  }

  /**
   * Submits a job, waits for its end, and fetches what came of it.
   *
   * @param {import('./job.js').Job} job @param {import('./client.js').Options} [options]
   * @returns {Promise<import('./client.js').Brought>}
   */
  async run(job, { signal } = {}) {
    const limit = limited(this.timeout, signal);
    try {
      await this.submit(job, limit.signal);
      const state = await this.#wait(job.id, limit.signal);
      if (state.state !== 'done') {
        throw new JobError(state.state, `the node says that the job is ${state.state}: ${plain(state.detail) || 'no reason given'}`);
      }
      return await this.fetch(job, limit.signal);
    } catch (error) {
      if (limit.signal.aborted) await this.cancel(job.id).catch(() => undefined);
      throw error;
    } finally {
      limit.end();
    }
  }

  /** Hands a job over. @param {import('./job.js').Job} job @param {AbortSignal} [signal] */
  async submit(job, signal) {
    const told = {
      job: job.id, nonce: job.nonce, ...job.manifest.toJSON(), ...(job.stdin.length ? { stdin: job.stdinSha256 } : {}),
    };
    const body = new TextEncoder().encode(JSON.stringify(told));
    const send = async () => {
      await this.#blobs(job, signal);
      return this.#status(await this.#request('POST', '/v1/jobs', { body, signal }), job.id);
    };
    try {
      return await send();
    } catch (error) {
      if (!(error instanceof GatewayError) || error.reason !== 'blob missing') throw error;
      // The node had no room to keep what it had.
      this.#there.clear();
      return send();
    }
  }

  /** How a job stands. @param {string} id @param {number} [wait] seconds @param {AbortSignal} [signal] */
  async status(id, wait = 0, signal = undefined) {
    const target = `/v1/jobs/${encodeURIComponent(id)}${wait ? `?wait=${wait}` : ''}`;
    return this.#status(await this.#request('GET', target, { signal }), id);
  }

  /** Stops a job. @param {string} id */
  async cancel(id) {
    return this.#status(await this.#request('DELETE', `/v1/jobs/${encodeURIComponent(id)}`), id);
  }

  /**
   * Receipt and output of a job that has ended; not verified.
   *
   * @param {import('./job.js').Job} job @param {AbortSignal} [signal]
   * @returns {Promise<import('./client.js').Brought>}
   */
  async fetch(job, signal) {
    const place = `/v1/jobs/${encodeURIComponent(job.id)}`;
    const most = job.manifest.limits.output_bytes ?? STATEMENT.$defs.Limits.properties.output_bytes.default;
    const parts = await Promise.allSettled([
      this.#request('GET', `${place}/receipt`, { most: MAX_ENVELOPE, signal }),
      this.#request('GET', `${place}/stdout`, { most, signal }),
      this.#request('GET', `${place}/stderr`, { most, signal }),
    ]);
    const [envelope, stdout, stderr] = /** @type {[Uint8Array, Uint8Array, Uint8Array]} */ (parts.map(settled));
    return { key: this.node, requester: this.identity.publicKey, envelope, stdout, stderr };
  }

  /** @param {string} id @param {AbortSignal} signal */
  async #wait(id, signal) {
    const patience = Math.max(1, Math.min(25, Math.floor(this.requestTimeout / 2000)));
    for (let failed = 0; ;) {
      const began = Date.now();
      let found;
      try {
        found = await this.status(id, patience, signal);
        failed = 0;
      } catch (error) {
        if (!(error instanceof GatewayError) || !error.passing || ++failed >= TRIES) throw error;
        await new Promise((resolve) => setTimeout(resolve, 125 << failed));
        continue;
      }
      if (ENDED.has(found.state)) return found;
      // A node that does not wait must not be asked without end.
      if (Date.now() - began < 250) await new Promise((resolve) => setTimeout(resolve, 250));
    }
  }

  /** Brings module and input, as far as the node does not have them. @param {import('./job.js').Job} job @param {AbortSignal} [signal] */
  async #blobs(job, signal) {
    const parts = /** @type {const} */ ([[job.manifest.module, job.module], [job.stdinSha256, job.stdin]]);
    for (const [hash, body] of parts) {
      if ((body === job.stdin && !body.length) || this.#there.has(hash)) continue;
      if (body.length < SMALL || !(await this.#has(hash, signal))) {
        await this.#request('PUT', `/v1/blobs/${hash}`, { body, signal });
      }
      this.#there.add(hash);
      if (this.#there.size > MOST_KNOWN) this.#there.clear();
    }
  }

  /** @param {string} hash @param {AbortSignal} [signal] */
  async #has(hash, signal) {
    try {
      await this.#request('HEAD', `/v1/blobs/${hash}`, { signal });
      return true;
    } catch (error) {
      if (error instanceof GatewayError && error.status === 404) return false;
      throw error;
    }
  }

  /** @param {Uint8Array} data @param {string} id */
  #status(data, id) {
    const found = shaped(STATUS, data);
    if (found.job !== id) throw new GatewayError('the node speaks of another job');
    return /** @type {{job: string, state: string, detail: string}} */ (found);
  }

  /**
   * One signed request; the body of its answer.
   *
   * @param {string} method @param {string} path
   * @param {{body?: Uint8Array, most?: number, signal?: AbortSignal}} [options] `most`: bytes that the answer may have
   * @returns {Promise<Uint8Array>}
   */
  async #request(method, path, { body = new Uint8Array(), most = MOST_JSON, signal } = {}) {
    const target = this.prefix + path;
    const limit = limited(this.requestTimeout, signal);
    try {
      const answer = await reached(this.origin + target, {
        method,
        headers: await this.#signed(method, target, body),
        body: method === 'PUT' || method === 'POST' ? /** @type {BodyInit} */ (body) : null,
        redirect: 'manual',
        cache: 'no-store',
        credentials: 'omit',
        signal: limit.signal,
      });
      if (answer.type === 'opaqueredirect' || (answer.status >= 300 && answer.status < 400)) {
        throw new GatewayError(`${method} ${path} at ${this.origin} was redirected, and a gateway does not redirect`, {
          status: answer.status,
        });
      }
      const data = await bounded(answer, answer.ok ? most : MOST_JSON);
      if (!answer.ok) throw refused(method, path, answer, data);
      return data;
    } catch (cause) {
      if (cause instanceof PhaseError) throw cause;
      if (signal?.aborted) throw new GatewayError(`${method} ${path} was given up`, { cause });
      const why = limit.signal.aborted ? `no whole answer within ${this.requestTimeout} ms` : reason(cause);
      throw new GatewayError(`${method} ${path} at ${this.origin}: ${why}`, {
        cause, passing: cause instanceof CutError && !limit.signal.aborted,
      });
    } finally {
      limit.end();
    }
  }

  /** The header fields of a request. @param {string} method @param {string} target @param {Uint8Array} body */
  async #signed(method, target, body) {
    return {
      ...(await signRequest(this.identity, { method, target, node: this.node, body })),
      ...(method === 'POST' ? { 'Content-Type': 'application/json', 'Content-Digest': await digest(body) } : {}),
      ...(method === 'PUT' ? { 'Content-Type': 'application/octet-stream' } : {}),
    };
  }
}

/**
 * The header fields that sign a request to a gateway, for programs that send their own.
 *
 * @param {import('./crypto.js').Identity} identity
 * @param {{method: string, target: string, node: string, body?: Uint8Array, time?: number, nonce?: string}} request
 *   `target` is path and query as they are sent, `node` the node's key in lower case; time (seconds since the epoch) and
 *   nonce are made where they are not given
 */
export async function signRequest(identity, { method, target, node, body = new Uint8Array(), time, nonce }) {
  const at = String(time ?? Math.floor(Date.now() / 1000));
  const once = nonce ?? hex(await random(16));
  const key = identity.publicKey;
  const lines = ['phase-request-v1', method, target, node, key, at, once, await sha256(body)];
  const signature = hex(await identity.sign(new TextEncoder().encode(lines.join('\n'))));
  return { 'Phase-Key': key, 'Phase-Time': at, 'Phase-Nonce': once, 'Phase-Signature': signature };
}

/** The hash of a body, as RFC 9530 has it. @param {Uint8Array} body */
async function digest(body) {
  const bytes = (await sha256(body)).match(/../g) ?? [];
  return `sha-256=:${btoa(String.fromCharCode(...bytes.map((each) => parseInt(each, 16))))}:`;
}

/** The node was not reached, or the connection was cut before its answer. */
class CutError extends Error {}

/** @param {string} url @param {RequestInit} options */
async function reached(url, options) {
  try {
    return await fetch(url, options);
  } catch (error) {
    const found = /** @type {{cause?: {code?: string, message?: string}, message?: string}} */ (error);
    throw CUT.has(found.cause?.code) ? new CutError(reason(error), { cause: error }) : error;
  }
}

/** What a request has brought, or its error. @template T @param {PromiseSettledResult<T>} part */
function settled(part) {
  if (part.status === 'rejected') throw part.reason;
  return part.value;
}

/** @param {string} url */
function parsed(url) {
  try {
    return new URL(url);
  } catch (cause) {
    throw new UsageError(NAMED, { cause });
  }
}

/** A signal that also comes after some time; not `AbortSignal.any`, which Node 18 does not have. @param {number} milliseconds @param {AbortSignal} [outer] */
function limited(milliseconds, outer) {
  const controller = new AbortController();
  const abort = () => controller.abort();
  const timer = setTimeout(abort, milliseconds);
  if (outer?.aborted) abort();
  outer?.addEventListener('abort', abort);
  return {
    signal: controller.signal,
    end() {
      clearTimeout(timer);
      outer?.removeEventListener('abort', abort);
    },
  };
}

/** The body of an answer, up to a limit. @param {Response} answer @param {number} most bytes */
async function bounded(answer, most) {
  const parts = [];
  let length = 0;
  const reader = answer.body?.getReader();
  for (;;) {
    const part = await reader?.read();
    if (part === undefined || part.done) break;
    length += part.value.length;
    if (length > most) {
      await reader?.cancel().catch(() => undefined);
      throw new GatewayError(`the answer has more than ${most} bytes`);
    }
    parts.push(part.value);
  }
  const whole = new Uint8Array(length);
  let place = 0;
  for (const part of parts) {
    whole.set(part, place);
    place += part.length;
  }
  return whole;
}

/** @param {string} method @param {string} path @param {Response} answer @param {Uint8Array} data */
function refused(method, path, answer, data) {
  let told = { detail: '', reason: '' };
  if (answer.headers.get('content-type')?.startsWith('application/problem+json')) {
    try {
      told = shaped(PROBLEM, data);
    } catch {
      // Whatever refuses need not be a node.
    }
  }
  const retryAfter = Number(answer.headers.get('retry-after') ?? 0);
  const words = [told.reason, told.detail].map(plain).filter(Boolean).join(': ');
  return new GatewayError(`${method} ${path} was refused with ${answer.status}${words && `: ${words}`}`, {
    status: answer.status,
    reason: told.reason,
    retryAfter: Number.isFinite(retryAfter) && retryAfter > 0 ? retryAfter : 0,
    passing: [429, 502, 503, 504].includes(answer.status),
  });
}

/** @param {import('./shape.js').Schema} schema @param {Uint8Array} data @returns {any} */
function shaped(schema, data) {
  try {
    return take(schema, readJson(data));
  } catch (cause) {
    throw new GatewayError(`the node's answer is malformed: ${/** @type {Error} */ (cause).message}`, { cause });
  }
}

/** Words of others, fit for a message. @param {string} text */
function plain(text) {
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, 300);
}

/** @param {unknown} error */
function reason(error) {
  const cause = /** @type {{cause?: {message?: string}, message?: string}} */ (error);
  return cause.cause?.message || cause.message || 'it failed';
}
