<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** A number as it is written: how it is written decides whether it is an integer. */
final class JsonNumber
{
    public function __construct(public readonly string $text)
    {
    }

    /** Whether it is written without fraction and exponent. */
    public function isInteger(): bool
    {
        return preg_match('/^-?[0-9]+$/D', $this->text) === 1;
    }
}
