/** What a verifier says of every vector, and what the vectors say. Runs in Node and in browsers. */
import { Receipt, ReceiptError } from '../src/index.js';

/** @param {any} each @param {typeof Receipt} [verifier] */
export async function judge(each, verifier = Receipt) {
  const bytes = Uint8Array.from(atob(each.envelope), (character) => character.charCodeAt(0));
  const envelope = new Uint8Array(Math.max(bytes.length, each.padded_to ?? 0)).fill(0x20);
  envelope.set(bytes);
  const { job_id: jobId, nonce, module_sha256: moduleSha256, stdout_sha256: stdoutSha256 } = each.expect;
  try {
    const found = await verifier.verify(envelope, { key: each.key, jobId, nonce, moduleSha256, stdoutSha256 });
    return { verdict: 'accepted', receipt: sorted(found.says) };
  } catch (error) {
    if (!(error instanceof ReceiptError)) return { verdict: `${error}` };
    return error.field ? { verdict: error.verdict, field: error.field } : { verdict: error.verdict };
  }
}

/** @param {any} each */
export function said(each) {
  if (each.verdict === 'accepted') return { verdict: 'accepted', receipt: sorted(each.receipt) };
  return each.field ? { verdict: each.verdict, field: each.field } : { verdict: each.verdict };
}

/** As text in which the order of names does not matter. @param {any} value @returns {string} */
function sorted(value) {
  if (Array.isArray(value)) return `[${value.map(sorted)}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  return `{${Object.keys(value).sort().map((name) => `${JSON.stringify(name)}:${sorted(value[name])}`)}}`;
}

/** Those that were judged otherwise, one line each. @param {any[]} vectors */
export async function wrong(vectors) {
  const lines = [];
  for (const each of vectors) {
    const [found, expected] = [JSON.stringify(await judge(each)), JSON.stringify(said(each))];
    if (found !== expected) lines.push(`${each.name} (${each.why}): ${found.slice(0, 300)}, not ${expected.slice(0, 300)}`);
  }
  return lines;
}
