/** What came of a job: the output, and the receipt that was verified against it. */
export class Result {
  /** @param {import('./receipt.js').Receipt} receipt @param {Uint8Array} stdout @param {Uint8Array} stderr */
  constructor(receipt, stdout, stderr) {
    this.receipt = receipt;
    this.stdout = stdout;
    this.stderr = stderr;
  }

  /** How it ended, as the node has signed it. */
  get status() {
    return this.receipt.says.status;
  }

  /** The module's exit code; null if it did not end by itself. */
  get exitCode() {
    return this.receipt.exitCode;
  }

  /** Whether the module ended by itself with exit code 0. */
  get succeeded() {
    return this.receipt.succeeded;
  }

  /** The output as text; what is not UTF-8 becomes U+FFFD. */
  get text() {
    return new TextDecoder().decode(this.stdout);
  }
}
