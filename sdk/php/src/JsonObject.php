<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** An object of JSON. Not an array: PHP's cannot tell an empty object from an empty list. */
final class JsonObject
{
    /** @param array<array-key, mixed> $values by name; PHP makes an integer of a name such as "0" */
    public function __construct(public readonly array $values = [])
    {
    }
}
