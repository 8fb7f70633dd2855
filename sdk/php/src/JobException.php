<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** The job has no result: it was cancelled, lost with its node, or could not be run. */
final class JobException extends PhaseException
{
    public function __construct(public readonly string $state, string $message)
    {
        parent::__construct($message);
    }
}
