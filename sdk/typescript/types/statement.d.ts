// Made by `python -m fixtures.vectors` from phase/jobs/receipt.py.

/** The in-toto Statement that is signed. */
export interface Statement {
  readonly _type: "https://in-toto.io/Statement/v1";
  readonly subject: readonly Subject[];
  readonly predicateType: "https://phase.dev/receipt/v1";
  readonly predicate: Receipt;
}

/** An in-toto ResourceDescriptor. */
export interface Subject {
  readonly name: "stdout";
  readonly digest: Digest;
}

/** An in-toto DigestSet with the one algorithm used here. */
export interface Digest {
  readonly sha256: string;
}

/** The predicate: the job, its input and limits, how and when it ended, and the node that says so. */
export interface Receipt {
  readonly job: JobRef;
  readonly module: Content;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly stdin: Content;
  readonly stdout: Content;
  readonly stderr: Content;
  readonly limits: Limits;
  readonly status: Exited | Trapped | LimitHit | Rejected | Killed;
  readonly fuel_used: number | null;
  readonly memory_bytes: number | null;
  readonly engine: EngineRef;
  readonly started: string;
  readonly finished: string;
  readonly wall_ms: number;
  readonly node: string;
  readonly cage: readonly string[];
  readonly seed: number | null;
  readonly requester: string | null;
  readonly attempt: number | null;
  readonly inputs: Readonly<Record<string, Content>>;
  readonly outputs: Readonly<Record<string, Content>>;
  readonly directories: readonly DirectoryRef[];
}

/** The job's id, and the value that its requester chose to make it fresh. */
export interface JobRef {
  readonly id: string;
  readonly nonce: string;
}

/** Some bytes, by their SHA-256 and length. */
export interface Content {
  readonly sha256: string;
  readonly length: number;
}

/** The limits of one job. Part of its receipt. */
export interface Limits {
  readonly fuel: number;
  readonly wall_seconds: number;
  readonly memory_bytes: number;
  readonly output_bytes: number;
  readonly stdin_bytes: number;
  readonly module_bytes: number;
  readonly compile_bytes: number;
  readonly scratch_bytes: number;
}

/** The module ended by itself, with this exit code. */
export interface Exited {
  readonly kind: "exited";
  readonly code: number;
}

/** The module ran, and the engine stopped it for this reason. */
export interface Trapped {
  readonly kind: "trapped";
  readonly reason: string;
}

/** The module met a limit and was stopped. */
export interface LimitHit {
  readonly kind: "limit";
  readonly limit: "fuel" | "memory" | "output" | "stdin" | "wall";
}

/** The module never ran: it is not WebAssembly, or asks for something outside WASI preview 1 and 0.2. */
export interface Rejected {
  readonly kind: "rejected";
  readonly reason: string;
}

/** The worker process died during the job, by this signal (0: it ended without a result). */
export interface Killed {
  readonly kind: "killed";
  readonly signal: number;
  readonly reason: string;
}

/** The engine that ran the module. Fuel is comparable only within one version. */
export interface EngineRef {
  readonly name: "wasmtime";
  readonly version: string;
  readonly arch: string;
}

/** A directory of the node's machine: where the module found it, and whether it could change it. */
export interface DirectoryRef {
  readonly guest: string;
  readonly writable: boolean;
}
