<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** Checks JSON against the part of JSON Schema that Phase's schemas use, and keeps what is known of it. */
final class Shape
{
    private const KEYWORDS = [
        '$schema', '$id', '$defs', '$ref', 'anyOf', 'discriminator', 'enum', 'type', 'properties', 'required', 'default',
        'additionalProperties', 'items', 'minItems', 'maxItems', 'pattern', 'minLength', 'maxLength', 'minimum',
        'maximum', 'exclusiveMinimum', 'title', 'description',
    ];

    /** @param array<string, mixed> $root */
    private function __construct(private readonly array $root)
    {
    }

    /**
     * Checks a value, and gives it as plain values and arrays: fields that are not known are left out, those that may
     * be absent have their defaults.
     *
     * @param array<string, mixed> $schema the document
     * @throws MalformedException it is of another shape; says where
     */
    public static function take(array $schema, mixed $value): mixed
    {
        return (new self($schema))->any($schema, $value, '$');
    }

    /**
     * The published schema of a statement.
     *
     * @return array<string, mixed>
     */
    public static function statement(): array
    {
        static $read = null;
        return $read ??= json_decode(
            (string) file_get_contents(__DIR__ . '/../schemas/statement-v1.json'),
            true,
            64,
            JSON_THROW_ON_ERROR,
        );
    }

    private function fail(string $path, string $why): never
    {
        throw new MalformedException("$path $why");
    }

    /** @param array<string, mixed> $schema */
    private function any(array $schema, mixed $value, string $path): mixed
    {
        foreach (array_diff(array_keys($schema), self::KEYWORDS) as $word) {
            throw new UsageException("this SDK does not know the schema's keyword $word");
        }
        if (isset($schema['$ref'])) {
            return $this->any($this->root['$defs'][substr($schema['$ref'], strlen('#/$defs/'))], $value, $path);
        }
        if (isset($schema['anyOf'])) {
            return $this->choice($schema, $value, $path);
        }
        if (isset($schema['enum'])) {
            return in_array($value, $schema['enum'], true) ? $value : $this->fail($path, 'has a value that is not known');
        }
        return match ($schema['type']) {
            'object' => $this->object($schema, $value, $path),
            'array' => $this->list($schema, $value, $path),
            'string' => $this->text($schema, $value, $path),
            'integer' => $this->integer($schema, $value, $path),
            'number' => $this->number($schema, $value, $path),
            'boolean' => is_bool($value) ? $value : $this->fail($path, 'is not true or false'),
            'null' => $value === null ? null : $this->fail($path, 'is not null'),
            default => throw new UsageException("this SDK does not know the schema's type {$schema['type']}"),
        };
    }

    /** @param array<string, mixed> $schema */
    private function choice(array $schema, mixed $value, string $path): mixed
    {
        if (!isset($schema['discriminator'])) {
            $others = array_values(array_filter($schema['anyOf'], fn (array $each) => ($each['type'] ?? '') !== 'null'));
            if (count($others) !== 1) {
                throw new UsageException('this SDK does not know such a choice in a schema');
            }
            $nothing = count($others) < count($schema['anyOf']);
            return $nothing && $value === null ? null : $this->any($others[0], $value, $path);
        }
        ['propertyName' => $name, 'mapping' => $mapping] = $schema['discriminator'];
        $kind = $value instanceof JsonObject ? $value->values[$name] ?? null : null;
        if (!is_string($kind) || !isset($mapping[$kind])) {
            $this->fail($path, "has no $name that is known");
        }
        return $this->any(['$ref' => $mapping[$kind]], $value, $path);
    }

    /**
     * @param array<string, mixed> $schema
     * @return array<array-key, mixed>
     */
    private function object(array $schema, mixed $value, string $path): array
    {
        if (!$value instanceof JsonObject) {
            $this->fail($path, 'is not an object');
        }
        if (!isset($schema['properties'])) {
            return array_map(
                fn (mixed $inner) => $this->any($schema['additionalProperties'], $inner, "$path.*"),
                $value->values,
            );
        }
        $found = [];
        foreach ($schema['properties'] as $name => $inner) {
            if (array_key_exists($name, $value->values)) {
                $found[$name] = $this->any($inner, $value->values[$name], "$path.$name");
            } elseif (in_array($name, $schema['required'], true)) {
                $this->fail($path, "has no $name");
            } elseif (array_key_exists('default', $inner)) {
                $found[$name] = $inner['default'];
            }
        }
        return $found;
    }

    /**
     * @param array<string, mixed> $schema
     * @return list<mixed>
     */
    private function list(array $schema, mixed $value, string $path): array
    {
        if (!is_array($value)) {
            $this->fail($path, 'is not a list');
        }
        if (count($value) < ($schema['minItems'] ?? 0) || count($value) > ($schema['maxItems'] ?? PHP_INT_MAX)) {
            $this->fail($path, 'has ' . count($value) . ' entries');
        }
        return array_map(fn (mixed $inner) => $this->any($schema['items'], $inner, $path . '[]'), $value);
    }

    /** @param array<string, mixed> $schema */
    private function text(array $schema, mixed $value, string $path): string
    {
        if (!is_string($value)) {
            $this->fail($path, 'is not a text');
        }
        // Characters, not bytes: those that go on with one are not counted.
        $length = strlen($value) - (int) preg_match_all('/[\x80-\xbf]/', $value);
        if ($length < ($schema['minLength'] ?? 0) || $length > ($schema['maxLength'] ?? PHP_INT_MAX)) {
            $this->fail($path, "has $length characters");
        }
        if (isset($schema['pattern']) && preg_match('~' . $schema['pattern'] . '~D', $value) !== 1) {
            $this->fail($path, 'has another form');
        }
        return $value;
    }

    /** @param array<string, mixed> $schema */
    private function integer(array $schema, mixed $value, string $path): int
    {
        if (!$value instanceof JsonNumber || !$value->isInteger()) {
            $this->fail($path, 'is not an integer');
        }
        $found = filter_var(preg_replace('/^-0$/D', '0', $value->text), FILTER_VALIDATE_INT);
        if (!is_int($found) || abs($found) > 2 ** 53 - 1) {
            $this->fail($path, 'is above 2^53 - 1');
        }
        $this->within($schema, $found, $path);
        return $found;
    }

    /** @param array<string, mixed> $schema */
    private function number(array $schema, mixed $value, string $path): float
    {
        if (!$value instanceof JsonNumber) {
            $this->fail($path, 'is not a number');
        }
        $found = (float) $value->text;
        $this->within($schema, $found, $path);
        return $found;
    }

    /** @param array<string, mixed> $schema */
    private function within(array $schema, int|float $found, string $path): void
    {
        $above = $found >= ($schema['minimum'] ?? -INF) && $found > ($schema['exclusiveMinimum'] ?? -INF);
        if (!is_finite((float) $found) || !$above || $found > ($schema['maximum'] ?? INF)) {
            $this->fail($path, 'is out of range');
        }
    }
}
