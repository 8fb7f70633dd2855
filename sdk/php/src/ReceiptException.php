<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** A receipt that must not be relied on. */
final class ReceiptException extends PhaseException
{
    /** It is not an envelope, or the pinned key has not signed it. */
    public const SIGNATURE = 'signature';
    /** The pinned key has signed it, and it is not a receipt that everyone reads alike. */
    public const FORMAT = 'format';
    /** It is a receipt of something else: `$field` differs. */
    public const BINDING = 'binding';

    public function __construct(
        public readonly string $verdict,
        string $message,
        public readonly string $field = '',
        ?\Throwable $previous = null,
    ) {
        parent::__construct($message, 0, $previous);
    }
}
