<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** What came of a job: the output, and the receipt that was verified against it. */
final class Result
{
    /** @internal made by `Client` */
    public function __construct(
        public readonly Receipt $receipt,
        public readonly string $stdout,
        public readonly string $stderr,
    ) {
    }

    /**
     * How the job ended, as the node has signed it.
     *
     * @return array{kind: string, code?: int, reason?: string, limit?: string, signal?: int}
     */
    public function status(): array
    {
        return $this->receipt->status();
    }

    /** The module's exit code; null if it did not end by itself. */
    public function exitCode(): ?int
    {
        return $this->receipt->exitCode();
    }

    /** Whether the module ended by itself with exit code 0. */
    public function succeeded(): bool
    {
        return $this->receipt->succeeded();
    }
}
