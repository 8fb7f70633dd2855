<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** What is to be run: hash, arguments, environment and limits; everything about a job but the bytes. */
final class Manifest implements \JsonSerializable
{
    /** @var array<array-key, string> */
    public readonly array $env;

    /**
     * @param string $module SHA-256 of the module, hex
     * @param list<string> $args arguments, without the program's name
     * @param array<array-key, string> $env the whole environment
     * @param array<string, int|float> $limits by the names that receipts use; what is not there is the node's default
     * @param bool $deterministic whether every node must come to the same output
     * @param string|null $arch `x86_64` or `arm64`, where the node must be that
     */
    public function __construct(
        public readonly string $module,
        public readonly array $args = [],
        array $env = [],
        public readonly array $limits = [],
        public readonly bool $deterministic = false,
        public readonly ?string $arch = null,
        public readonly ?string $runtime = null,
    ) {
        if (preg_match('/^[0-9a-f]{64}$/D', $module) !== 1) {
            throw new UsageException('a module is named by 64 hex digits');
        }
        ksort($env, SORT_STRING);
        $this->env = $env;
        foreach ([...$args, ...array_map(strval(...), array_keys($env)), ...array_values($env)] as $text) {
            if (!is_string($text) || preg_match('//u', $text) !== 1 || str_contains($text, "\0")) {
                throw new UsageException('arguments and variables are texts in UTF-8, without a zero byte');
            }
        }
        if (!array_is_list($args)) {
            throw new UsageException('arguments are a list');
        }
        self::checkLimits($limits);
    }

    /** Reads what json_encode made of one. */
    public static function parse(string $text): self
    {
        return new self(...Shape::take(self::schema(), Json::read($text)));
    }

    /** The manifest of a file. The other arguments are those of the constructor. */
    public static function fromFile(string $path, mixed ...$about): self
    {
        return new self(Crypto::sha256(self::contents($path)), ...$about);
    }

    /** The bytes of a module's file. */
    public static function contents(string $path): string
    {
        $module = @file_get_contents($path);
        if ($module === false) {
            throw new UsageException("module $path cannot be read");
        }
        return $module;
    }

    /** As a node takes it. @return array<string, mixed> */
    public function jsonSerialize(): array
    {
        return [
            'module' => $this->module,
            'args' => $this->args,
            'env' => (object) $this->env,
            'limits' => (object) $this->limits,
            'deterministic' => $this->deterministic,
            ...($this->arch === null ? [] : ['arch' => $this->arch]),
            ...($this->runtime === null ? [] : ['runtime' => $this->runtime]),
        ];
    }

    /** A limit, or the default that nodes have. */
    public function limit(string $name): int|float
    {
        return $this->limits[$name] ?? Shape::statement()['$defs']['Limits']['properties'][$name]['default'];
    }

    /** @return array<string, mixed> */
    private static function schema(): array
    {
        $limits = Shape::statement()['$defs']['Limits'];
        // Of limits, only those that are there.
        foreach ($limits['properties'] as &$each) {
            unset($each['default']);
        }
        return [
            '$ref' => '#/$defs/Manifest',
            '$defs' => [
                'Limits' => $limits,
                'Manifest' => [
                    'type' => 'object',
                    'properties' => [
                        'module' => ['type' => 'string'],
                        'args' => ['type' => 'array', 'items' => ['type' => 'string'], 'default' => []],
                        'env' => ['type' => 'object', 'additionalProperties' => ['type' => 'string'], 'default' => []],
                        'limits' => ['$ref' => '#/$defs/Limits', 'default' => []],
                        'deterministic' => ['type' => 'boolean', 'default' => false],
                        'arch' => ['enum' => ['x86_64', 'arm64']],
                        'runtime' => ['type' => 'string'],
                    ],
                    'required' => ['module'],
                ],
            ],
        ];
    }

    /** @param array<string, int|float> $limits */
    private static function checkLimits(array $limits): void
    {
        $schema = self::schema();
        foreach ($limits as $name => $value) {
            if (!isset($schema['$defs']['Limits']['properties'][$name])) {
                throw new UsageException("there is no limit $name");
            }
            if (!is_int($value) && !is_float($value)) {
                throw new UsageException("the limit $name is a number");
            }
        }
        $numbers = array_map(fn (int|float $each) => new JsonNumber((string) json_encode($each)), $limits);
        try {
            Shape::take(['$ref' => '#/$defs/Limits'] + $schema, new JsonObject($numbers));
        } catch (MalformedException $error) {
            throw new UsageException("a limit cannot be: {$error->getMessage()}", 0, $error);
        }
    }
}
