<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** A job: a manifest, the bytes, and what makes its receipt nobody else's. */
final class Job
{
    public readonly string $id;
    public readonly string $nonce;

    /**
     * @param string $module the bytes that the manifest names
     * @param string $stdin the input of the module
     * @param string|null $id a random one when left out
     * @param string|null $nonce a random one when left out, so that no older receipt fits
     */
    public function __construct(
        public readonly Manifest $manifest,
        public readonly string $module,
        public readonly string $stdin = '',
        ?string $id = null,
        ?string $nonce = null,
    ) {
        if (Crypto::sha256($module) !== $manifest->module) {
            throw new UsageException('these bytes are another module');
        }
        $this->id = $id ?? Crypto::random(16);
        $this->nonce = $nonce ?? Crypto::random(16);
        if (preg_match('/^[0-9A-Za-z._:-]{1,128}$/D', $this->id) !== 1) {
            throw new UsageException('a job id has 1 to 128 characters of 0-9A-Za-z._:-');
        }
        if (preg_match('~^[0-9A-Za-z._:+/=-]{0,128}$~D', $this->nonce) !== 1) {
            throw new UsageException('a nonce has at most 128 characters of 0-9A-Za-z._:+/=-');
        }
    }

    /** A job of a module's bytes. The other arguments are those of `Manifest`, by name. */
    public static function of(string $module, string $stdin = '', mixed ...$about): self
    {
        return new self(new Manifest(Crypto::sha256($module), ...$about), $module, $stdin);
    }

    /** A job of a module's file. The other arguments are those of `Manifest`, by name. */
    public static function fromFile(string $path, string $stdin = '', mixed ...$about): self
    {
        return self::of(Manifest::contents($path), $stdin, ...$about);
    }
}
