/** One job on a node; prints what came of it, or the error. Started by tests/sdk. */
import { readFileSync } from 'node:fs';

import { Client, Gateway, Identity, Job } from '../src/index.js';

const asked = JSON.parse(process.env.ASKED ?? '{}');
const gateway = new Gateway({
  url: asked.url,
  node: asked.node,
  identity: await Identity.fromSeed(asked.seed),
  timeout: asked.timeout * 1000,
  requestTimeout: asked.request_timeout * 1000,
});
const module = new Uint8Array(readFileSync(asked.module));
try {
  const job = await Job.of(module, { args: asked.args, env: asked.env, stdin: asked.stdin, limits: asked.limits });
  const result = await new Client(gateway).run(job);
  console.log(JSON.stringify({
    stdout: result.text, code: result.exitCode, status: result.status, node: result.receipt.says.node,
    stderr: new TextDecoder().decode(result.stderr),
  }));
} catch (error) {
  const { name, message, verdict, field, reason, status, retryAfter, state } = /** @type {any} */ (error);
  console.log(JSON.stringify({ error: name.replace('Error', ''), message, verdict, field, reason, status, retryAfter, state }));
}
