import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { native, noble, useCurve } from '../src/crypto.js';
import { Gateway, Identity, MalformedError, Receipt, ReceiptError, UsageError, signRequest } from '../src/index.js';
import { readJson } from '../src/json.js';
import { judge, said, wrong } from './vectors.js';

const read = (/** @type {string} */ name) =>
  JSON.parse(readFileSync(new URL(`../../../fixtures/vectors/${name}.json`, import.meta.url), 'utf8')).vectors;
const vectors = read('receipts');
const bytes = (/** @type {string} */ text) => new TextEncoder().encode(text);

for (const each of vectors) {
  test(`vector ${each.name}: ${each.why}`, async () => {
    assert.deepEqual(await judge(each), said(each));
  });
}

test('WebCrypto and @noble/ed25519 sign and verify alike', async () => {
  const ours = await native();
  assert.ok(ours, 'this Node has no Ed25519 in WebCrypto');
  const theirs = await noble();
  const seed = new Uint8Array(32).fill(7);
  const key = await ours.publicKey(seed);
  assert.deepEqual(await theirs.publicKey(seed), key);
  for (const length of [0, 1, 100, 5000]) {
    const message = new Uint8Array(length).fill(length);
    const signature = await ours.sign(seed, message);
    assert.deepEqual(await theirs.sign(seed, message), signature);
    for (const curve of [ours, theirs]) {
      assert.equal(await curve.verify(key, signature, message), true);
      assert.equal(await curve.verify(key, signature, bytes('other')), false);
    }
  }
});

test('@noble/ed25519 says the same of every vector', async () => {
  const ours = await native();
  assert.ok(ours);
  useCurve(await noble());
  try {
    assert.deepEqual(await wrong(vectors), []);
  } finally {
    useCurve(ours);
  }
});

test('a verifier needs a key', async () => {
  for (const key of ['', 'zz'.repeat(32), undefined]) {
    await assert.rejects(Receipt.verify(bytes('{}'), /** @type {any} */ ({ key })), ReceiptError);
  }
});

test('a receipt that was not verified cannot be made', () => {
  const Made = /** @type {any} */ (Receipt);
  assert.throws(() => new Made({ status: { kind: 'exited', code: 0 } }, bytes('{}'), Symbol('verified')), UsageError);
});

test('an identity is that of its seed, and does not show it', async () => {
  const identity = await Identity.fromSeed('01'.repeat(32));
  assert.equal(identity.publicKey, '8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c');
  assert.ok(!JSON.stringify(identity).includes('0101'));
  await assert.rejects(Identity.fromSeed('01'), UsageError);
});

test('JSON is read as written', () => {
  assert.deepEqual(readJson(bytes('[true,false,null,"\\u00e4\\ud83e\\udd80"]')), [true, false, null, 'ä🦀']);
  for (const text of ['', ' ', '[1,]', '{"a" 1}', '{a:1}', '[1 2]', '"a', 'nul', '-', '1.', '.5', '+1', '"\t"', '[1]]', 'truefalse']) {
    assert.throws(() => readJson(bytes(text)), MalformedError, text);
  }
});

for (const each of read('requests')) {
  test(`request ${each.method} ${each.target}`, async () => {
    const body = new Uint8Array(Buffer.from(each.body, 'base64'));
    const { method, target, node, time, nonce } = each;
    const signed = await signRequest(await Identity.fromSeed(each.seed), { method, target, node, body, time, nonce });
    assert.deepEqual(signed, { 'Phase-Key': each.key, 'Phase-Time': time, 'Phase-Nonce': nonce, 'Phase-Signature': each.signature });
  });
}

test('what names no gateway is refused', async () => {
  const identity = await Identity.ephemeral();
  for (const url of ['', 'node.example', 'ftp://a', 'http://a?b', 'http://u@a', 'http://a:1,b']) {
    assert.throws(() => new Gateway({ url, node: 'ab'.repeat(32), identity }), UsageError, url);
  }
  assert.throws(() => new Gateway({ url: 'http://a', node: 'ab', identity }), UsageError);
});
