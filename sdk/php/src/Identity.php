<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** A private key, and what it signs. */
final class Identity
{
    /** 64 hex digits. */
    public readonly string $publicKey;

    private function __construct(#[\SensitiveParameter] private readonly string $pair)
    {
        $this->publicKey = bin2hex(sodium_crypto_sign_publickey($pair));
    }

    /** @param string $seed 64 hex digits (RFC 8032, section 5.1.5) */
    public static function fromSeed(#[\SensitiveParameter] string $seed): self
    {
        if (preg_match('/^[0-9a-fA-F]{64}$/D', $seed) !== 1) {
            throw new UsageException('a seed has 64 hex digits');
        }
        return new self(sodium_crypto_sign_seed_keypair((string) hex2bin($seed)));
    }

    /** A key that ends with this program. */
    public static function ephemeral(): self
    {
        return new self(sodium_crypto_sign_keypair());
    }

    /** 64 bytes. */
    public function sign(string $message): string
    {
        return sodium_crypto_sign_detached($message, sodium_crypto_sign_secretkey($this->pair));
    }

    /** @return array<string, string> */
    public function __debugInfo(): array
    {
        return ['publicKey' => $this->publicKey];
    }
}
