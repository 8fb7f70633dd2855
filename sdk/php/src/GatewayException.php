<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** The node, or what answers in its place, refused or did not keep to the format. */
final class GatewayException extends PhaseException
{
    /**
     * @param int $status the HTTP status; 0 if there was no whole answer
     * @param string $reason the word that the node gives as its reason
     * @param float $retryAfter seconds after which to try again; 0 if the node says none
     * @param bool $passing whether the node may answer a moment later: it was not reached, or is busy or being started
     */
    public function __construct(
        string $message,
        public readonly int $status = 0,
        public readonly string $reason = '',
        public readonly float $retryAfter = 0.0,
        public readonly bool $passing = false,
        ?\Throwable $previous = null,
    ) {
        parent::__construct($message, 0, $previous);
    }
}
