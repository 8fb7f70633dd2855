<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** A receipt that was verified: what a node has signed about a job. docs/use/jobs.md has the rules, by number. */
final class Receipt
{
    /** Limits of an envelope: bytes, and signatures. */
    public const MAX_ENVELOPE = 4 << 20;
    public const MAX_SIGNATURES = 16;
    public const PAYLOAD_TYPE = 'application/vnd.in-toto+json';

    private const ENVELOPE = [
        '$ref' => '#/$defs/Envelope',
        '$defs' => [
            'Envelope' => [
                'type' => 'object',
                'properties' => [
                    'payload' => ['type' => 'string'],
                    'payloadType' => ['type' => 'string'],
                    'signatures' => [
                        'type' => 'array',
                        'items' => ['$ref' => '#/$defs/Signature'],
                        'maxItems' => self::MAX_SIGNATURES,
                    ],
                ],
                'required' => ['payload', 'payloadType', 'signatures'],
            ],
            'Signature' => [
                'type' => 'object',
                'properties' => ['sig' => ['type' => 'string'], 'keyid' => ['type' => 'string', 'default' => '']],
                'required' => ['sig'],
            ],
        ],
    ];

    /**
     * @param array<string, mixed> $says what the node has signed, as docs/use/jobs.md names it
     * @param string $envelope the bytes that were verified, to be kept
     */
    private function __construct(public readonly array $says, public readonly string $envelope)
    {
    }

    /**
     * Verifies a receipt against a pinned key and what was asked for. What is null is not asked for.
     *
     * @param string $envelope from anyone
     * @param string $key the node's public key, 64 hex digits, known from elsewhere
     * @param string|null $stdout the output that you have
     * @param string|null $stdoutSha256 or its hash, hex
     * @throws ReceiptException its `verdict` says how far it came
     */
    public static function verify(
        string $envelope,
        string $key,
        ?string $jobId = null,
        ?string $nonce = null,
        ?string $moduleSha256 = null,
        ?string $stdout = null,
        ?string $stdoutSha256 = null,
    ): self {
        $statement = self::shaped(self::opened($envelope, $key));
        $says = $statement['predicate'];
        $found = $says['stdout']['sha256'];
        $bindings = [
            ['node key', strtolower($key), $says['node']],
            ['subject', $found, $statement['subject'][0]['digest']['sha256']],
            ['job id', $jobId, $says['job']['id']],
            ['nonce', $nonce, $says['job']['nonce']],
            ['module', $moduleSha256 === null ? null : strtolower($moduleSha256), $says['module']['sha256']],
            ['stdout', $stdoutSha256 === null ? null : strtolower($stdoutSha256), $found],
            ['stdout', $stdout === null ? null : Crypto::sha256($stdout), $found],
        ];
        foreach ($bindings as [$field, $asked, $told]) {
            if ($asked !== null && $asked !== $told) {
                $message = "the receipt has another $field: $told, not $asked";
                throw new ReceiptException(ReceiptException::BINDING, $message, $field);
            }
        }
        return new self($says, $envelope);
    }

    public function jobId(): string
    {
        return $this->says['job']['id'];
    }

    public function node(): string
    {
        return $this->says['node'];
    }

    /**
     * How the job ended.
     *
     * @return array{kind: string, code?: int, reason?: string, limit?: string, signal?: int}
     */
    public function status(): array
    {
        return $this->says['status'];
    }

    /** The module's exit code; null if it did not end by itself. */
    public function exitCode(): ?int
    {
        return $this->says['status']['kind'] === 'exited' ? $this->says['status']['code'] : null;
    }

    /** Whether the module ended by itself with exit code 0. */
    public function succeeded(): bool
    {
        return $this->exitCode() === 0;
    }

    /** The payload, if the pinned key has signed it (rules 1 to 5). */
    private static function opened(string $envelope, string $key): string
    {
        try {
            if (strlen($envelope) > self::MAX_ENVELOPE) {
                throw new MalformedException('it has more than ' . self::MAX_ENVELOPE . ' bytes');
            }
            $pinned = Crypto::publicKey($key);
            $read = Shape::take(self::ENVELOPE, Json::read($envelope));
            if ($read['payloadType'] !== self::PAYLOAD_TYPE) {
                throw new MalformedException('it holds something else');
            }
            $payload = Crypto::unbase64($read['payload']);
            $message = Crypto::pae($read['payloadType'], $payload);
            foreach ($read['signatures'] as $each) {
                if (self::signs($pinned, $each['sig'], $message)) {
                    return $payload;
                }
            }
            throw new MalformedException('no signature is that of the key');
        } catch (MalformedException | UsageException $error) {
            $message = "the receipt is not signed by the pinned key: {$error->getMessage()}";
            throw new ReceiptException(ReceiptException::SIGNATURE, $message, previous: $error);
        }
    }

    private static function signs(string $key, string $signature, string $message): bool
    {
        try {
            return Crypto::verifySignature(Crypto::unbase64($signature), $message, $key);
        } catch (MalformedException) {
            return false;
        }
    }

    /**
     * The statement (rule 6).
     *
     * @return array<string, mixed>
     */
    private static function shaped(string $body): array
    {
        try {
            return Shape::take(Shape::statement(), Json::read($body));
        } catch (MalformedException $error) {
            $message = "the signed statement is not a receipt: {$error->getMessage()}";
            throw new ReceiptException(ReceiptException::FORMAT, $message, previous: $error);
        }
    }
}
