<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** Hashes, base64, and Ed25519 by libsodium. */
final class Crypto
{
    private const BASE64 = '~^(?:[A-Za-z0-9+/]*+|[A-Za-z0-9_-]*+)={0,2}$~D';

    /** 64 hex digits. */
    public static function sha256(string $data): string
    {
        return hash('sha256', $data);
    }

    /** Hex digits of random bytes. */
    public static function random(int $bytes): string
    {
        return bin2hex(random_bytes($bytes));
    }

    /**
     * Reads base64 of either alphabet, padded or not. Of all texts that a lenient reader decodes to the same bytes, only
     * these are read.
     *
     * @throws MalformedException
     */
    public static function unbase64(string $text): string
    {
        if (preg_match(self::BASE64, $text) !== 1) {
            throw new MalformedException('it is not base64');
        }
        $plain = strtr(rtrim($text, '='), '-_', '+/');
        $padded = $plain . str_repeat('=', -strlen($plain) & 3);
        $raw = base64_decode($padded, true);
        $whole = strlen($text) === strlen($plain) || strlen($text) === strlen($padded);
        if (!$whole || $raw === false || base64_encode($raw) !== $padded) {
            throw new MalformedException('it is not base64');
        }
        return $raw;
    }

    /**
     * A public key, as bytes.
     *
     * @param string $text 64 hex digits
     * @throws UsageException
     */
    public static function publicKey(string $text): string
    {
        if (preg_match('/^[0-9a-fA-F]{64}$/D', $text) !== 1) {
            throw new UsageException('a public key has 64 hex digits');
        }
        return (string) hex2bin($text);
    }

    /** The bytes that are signed: DSSE's pre-authentication encoding. */
    public static function pae(string $type, string $body): string
    {
        return sprintf('DSSEv1 %d %s %d %s', strlen($type), $type, strlen($body), $body);
    }

    /**
     * Whether this key has signed this message.
     *
     * @param string $key 32 bytes
     */
    public static function verifySignature(string $signature, string $message, string $key): bool
    {
        if (strlen($signature) !== SODIUM_CRYPTO_SIGN_BYTES || strlen($key) !== SODIUM_CRYPTO_SIGN_PUBLICKEYBYTES) {
            return false;
        }
        return sodium_crypto_sign_verify_detached($signature, $message, $key);
    }
}
