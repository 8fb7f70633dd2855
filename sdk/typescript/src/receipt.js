/** Receipts: what a node has signed about a job. docs/use/jobs.md has the rules, by number. */
import { publicKey, sha256, unbase64, verify } from './crypto.js';
import { MalformedError, ReceiptError, UsageError } from './errors.js';
import { readJson } from './json.js';
import { STATEMENT } from './schema.js';
import { take } from './shape.js';

/** Limits of an envelope: bytes, and signatures. */
export const MAX_ENVELOPE = 4 << 20;
export const MAX_SIGNATURES = 16;
export const PAYLOAD_TYPE = 'application/vnd.in-toto+json';

/**
 * What a receipt must say. What is not given is not asked for.
 *
 * @typedef {object} Expected
 * @property {string} key the node's public key, 64 hex digits, known from elsewhere
 * @property {string} [jobId]
 * @property {string} [nonce]
 * @property {string} [moduleSha256] hex
 * @property {Uint8Array} [stdout] the output that you have
 * @property {string} [stdoutSha256] or its hash, hex
 */

/** Known to this module alone. */
const VERIFIED = Symbol('verified');

/** A receipt that was verified; `Receipt.verify` is the only way to get one. */
export class Receipt {
  /** @param {import('../types/statement.d.ts').Receipt} says @param {Uint8Array} envelope @param {symbol} proof @private */
  constructor(says, envelope, proof) {
    if (proof !== VERIFIED) throw new UsageError('a receipt comes from Receipt.verify');
    /** What the node has signed. */
    this.says = says;
    /** The bytes that were verified, to be kept. */
    this.envelope = envelope;
  }

  /**
   * Verifies a receipt against a pinned key and what was asked for.
   *
   * @param {Uint8Array} envelope from anyone
   * @param {Expected} expected
   * @returns {Promise<Receipt>}
   * @throws {ReceiptError} its `verdict` says how far it came
   */
  static async verify(envelope, expected) {
    const body = await opened(envelope, expected.key);
    const statement = shaped(body);
    await bound(statement, expected);
    return new Receipt(statement.predicate, envelope, VERIFIED);
  }

  /** Whether the module ended by itself with exit code 0. */
  get succeeded() {
    return this.exitCode === 0;
  }

  /** The module's exit code; null if it did not end by itself. */
  get exitCode() {
    return this.says.status.kind === 'exited' ? this.says.status.code : null;
  }
}

/** @param {unknown} cause @returns {never} */
function nobodys(cause) {
  const why = cause instanceof Error ? cause.message : String(cause);
  throw new ReceiptError('signature', `the receipt is not signed by the pinned key: ${why}`, { cause });
}

/**
 * The payload, if the pinned key has signed it (rules 1 to 5).
 *
 * @param {Uint8Array} envelope @param {string} key @returns {Promise<Uint8Array>}
 */
async function opened(envelope, key) {
  try {
    if (envelope.length > MAX_ENVELOPE) throw new MalformedError(`it has more than ${MAX_ENVELOPE} bytes`);
    const pinned = publicKey(key);
    /** @type {{payload: string, payloadType: string, signatures: {sig: string}[]}} */
    const read = take(ENVELOPE, readJson(envelope));
    if (read.payloadType !== PAYLOAD_TYPE) throw new MalformedError(`it holds ${read.payloadType.slice(0, 100)}`);
    const payload = unbase64(read.payload);
    const message = pae(read.payloadType, payload);
    for (const each of read.signatures) {
      if (await signs(pinned, each.sig, message)) return payload;
    }
    throw new MalformedError('no signature is that of the key');
  } catch (cause) {
    return nobodys(cause);
  }
}

/** @type {import('./shape.js').Schema} */
const ENVELOPE = {
  $ref: '#/$defs/Envelope',
  $defs: {
    Envelope: {
      type: 'object',
      properties: {
        payload: { type: 'string' },
        payloadType: { type: 'string' },
        signatures: { type: 'array', items: { $ref: '#/$defs/Signature' }, maxItems: MAX_SIGNATURES },
      },
      required: ['payload', 'payloadType', 'signatures'],
    },
    Signature: {
      type: 'object',
      properties: { sig: { type: 'string' }, keyid: { type: 'string', default: '' } },
      required: ['sig'],
    },
  },
};

/**
 * The bytes that are signed: DSSE's pre-authentication encoding.
 *
 * @param {string} type @param {Uint8Array} body
 */
export function pae(type, body) {
  const kind = new TextEncoder().encode(type);
  const head = new TextEncoder().encode(`DSSEv1 ${kind.length} ${type} ${body.length} `);
  const message = new Uint8Array(head.length + body.length);
  message.set(head);
  message.set(body, head.length);
  return message;
}

/** @param {Uint8Array} key @param {string} text @param {Uint8Array} message */
async function signs(key, text, message) {
  try {
    return await verify(key, unbase64(text), message);
  } catch (error) {
    if (error instanceof MalformedError) return false;
    throw error;
  }
}

/** The statement (rule 6). @param {Uint8Array} body @returns {import('../types/statement.d.ts').Statement} */
function shaped(body) {
  try {
    return take(STATEMENT, readJson(body));
  } catch (cause) {
    if (!(cause instanceof MalformedError)) throw cause;
    throw new ReceiptError('format', `the signed statement is not a receipt: ${cause.message}`, { cause });
  }
}

/** Rule 7. @param {import('../types/statement.d.ts').Statement} statement @param {Expected} expected */
async function bound(statement, expected) {
  const says = statement.predicate;
  const stdout = expected.stdout === undefined ? undefined : await sha256(expected.stdout);
  /** @type {[string, string | undefined, string][]} */
  const bindings = [
    ['node key', expected.key.toLowerCase(), says.node],
    ['subject', says.stdout.sha256, statement.subject[0]?.digest.sha256 ?? ''],
    ['job id', expected.jobId, says.job.id],
    ['nonce', expected.nonce, says.job.nonce],
    ['module', expected.moduleSha256?.toLowerCase(), says.module.sha256],
    ['stdout', expected.stdoutSha256?.toLowerCase(), says.stdout.sha256],
    ['stdout', stdout, says.stdout.sha256],
  ];
  for (const [field, asked, found] of bindings) {
    if (asked !== undefined && asked !== found) {
      throw new ReceiptError('binding', `the receipt has another ${field}: ${found}, not ${asked}`, { field });
    }
  }
}
