<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** JSON or base64 that is malformed, or that two readers may read differently. */
final class MalformedException extends PhaseException
{
}
