<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** Root of every exception of the SDK. */
class PhaseException extends \RuntimeException
{
}
