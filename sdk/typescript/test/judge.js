/** What this verifier says of vectors in a file, one a line. Started by tests/sdk. */
import { readFileSync } from 'node:fs';

import { judge } from './vectors.js';

for (const line of readFileSync(process.argv[2] ?? '', 'utf8').trimEnd().split('\n')) {
  const found = await judge(JSON.parse(line));
  if (found.verdict !== 'accepted') {
    console.log(JSON.stringify(found.verdict));
    continue;
  }
  const receipt = JSON.parse(found.receipt ?? '');
  for (const field of ['env', 'inputs', 'outputs']) {
    if (receipt[field] !== undefined) receipt[field] = Object.entries(receipt[field]);
  }
  console.log(JSON.stringify(receipt));
}
