<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** The caller asked for something that cannot be: a mistake in the program. */
final class UsageException extends PhaseException
{
}
