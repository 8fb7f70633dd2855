<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** What a transport brings of a job; none of it is believed before the receipt is verified. */
final class Brought
{
    /**
     * @param string $key the public key that the receipt must be signed by: pinned by the caller, not told by the node
     * @param string|null $requester the public key by which the job was asked for; null on this machine
     * @param string $stderr behind the module's own output, a transport may have added something
     */
    public function __construct(
        public readonly string $key,
        public readonly string $envelope,
        public readonly string $stdout,
        public readonly string $stderr,
        public readonly ?string $requester = null,
    ) {
    }
}
