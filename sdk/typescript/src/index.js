/** Phase for JavaScript and TypeScript: run jobs on nodes, and verify what they sign. */
export { Client } from './client.js';
export { Identity, sha256 } from './crypto.js';
export {
  GatewayError, JobError, MalformedError, PhaseError, ReceiptError, UsageError,
} from './errors.js';
export { Gateway, signRequest } from './gateway.js';
export { Job } from './job.js';
export { Manifest } from './manifest.js';
export { Receipt } from './receipt.js';
export { Result } from './result.js';
