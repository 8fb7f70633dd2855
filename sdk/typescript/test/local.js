/** Jobs on this machine; prints what came of them. Started by tests/sdk. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { Client, Job } from '../src/index.js';
import { Local } from '../src/local.js';

const command = JSON.parse(process.env.PHASE_COMMAND ?? '["phase"]');
const module = (/** @type {string} */ name) => new Uint8Array(readFileSync(join(process.env.MODULES ?? '.', `${name}.wasm`)));
const client = new Client(new Local({ command }));
/** @type {Record<string, unknown>} */
const said = {};

const hello = await client.run(await Job.of(module('hello'), { args: ['a', '--b'], env: { A: 'ä' }, stdin: 'Hello, World' }));
said.hello = { text: hello.text, code: hello.exitCode, args: hello.receipt.says.args, env: { ...hello.receipt.says.env } };
said.node = hello.receipt.says.node;
said.exit = { code: (await client.run(await Job.of(module('exit'), { stdin: '0000000000000042rest' }))).exitCode };
const spin = await client.run(await Job.of(module('spin'), { limits: { fuel: 1_000_000 } }));
said.spin = { status: spin.status, fuel: spin.receipt.says.limits.fuel };
said.seed = (await client.run(await Job.of(module('hello'), { stdin: 'Hello', deterministic: true }))).receipt.says.seed;
const pinned = new Client(new Local({ command, key: 'ab'.repeat(32) }));
said['other key'] = await pinned.run(await Job.of(module('hello'))).catch((error) => error.verdict);
said.refused = await client.run(await Job.of(module('hello'), { args: new Array(2000).fill('a') })).catch((error) => error.message);
await assert.rejects(new Client(new Local({ command: ['/nowhere/phase'], key: 'ab'.repeat(32) })).run(await Job.of(module('hello'))), /cannot be run/);
const scratch = await Job.of(module('hello'), { limits: { scratch_bytes: 1 << 20 } });
await assert.rejects(client.run(scratch), /a job on this machine cannot have the limit scratch_bytes/);
console.log(JSON.stringify(said));
