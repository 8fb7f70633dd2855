<?php

declare(strict_types=1);

namespace Phase\Sdk;

/**
 * Reads JSON that everyone reads alike.
 *
 * json_decode takes the last of two equal names, makes floats of large integers, and cannot tell {} from [] in arrays.
 * What is signed must say the same to everyone, so none of that is taken here.
 */
final class Json
{
    /** Limits of a document: nested objects and lists, and values in all. */
    public const MAX_DEPTH = 64;
    public const MAX_VALUES = 16384;

    private const NUMBER = '/\G-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?/';
    private const CONTROLS = "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"
        . "\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f";
    private const ESCAPES = [
        '"' => '"', '\\' => '\\', '/' => '/', 'b' => "\x08", 'f' => "\f", 'n' => "\n", 'r' => "\r", 't' => "\t",
    ];

    private int $place = 0;
    private int $values = 0;

    private function __construct(private readonly string $text)
    {
    }

    /**
     * Reads one document.
     *
     * @param string $data from anyone; the caller has bounded its size
     * @return null|bool|string|JsonNumber|JsonObject|list<mixed>
     * @throws MalformedException
     */
    public static function read(string $data): mixed
    {
        if (preg_match('//u', $data) !== 1) {
            throw new MalformedException('it is not UTF-8');
        }
        $reader = new self($data);
        $value = $reader->value(0);
        $reader->space();
        if ($reader->place !== strlen($data)) {
            $reader->fail('something follows it');
        }
        return $value;
    }

    private function fail(string $why): never
    {
        throw new MalformedException("$why (byte {$this->place})");
    }

    private function space(): void
    {
        $this->place += strspn($this->text, " \t\n\r", $this->place);
    }

    /** The next byte, empty at the end. */
    private function next(): string
    {
        return $this->text[$this->place] ?? '';
    }

    /** Takes one character, if it is the next after white space. */
    private function take(string $character): bool
    {
        $this->space();
        if ($this->next() !== $character) {
            return false;
        }
        $this->place++;
        return true;
    }

    /** @param int $depth of what is around */
    private function value(int $depth): mixed
    {
        if (++$this->values > self::MAX_VALUES) {
            $this->fail('it has more than ' . self::MAX_VALUES . ' values');
        }
        $this->space();
        return match ($this->next()) {
            '{' => $this->object($depth + 1),
            '[' => $this->list($depth + 1),
            '"' => $this->string(),
            default => $this->word(),
        };
    }

    private function word(): null|bool|JsonNumber
    {
        foreach (['true' => true, 'false' => false, 'null' => null] as $word => $value) {
            if (substr_compare($this->text, $word, $this->place, strlen($word)) === 0) {
                $this->place += strlen($word);
                return $value;
            }
        }
        if (preg_match(self::NUMBER, $this->text, $found, 0, $this->place) !== 1) {
            $this->fail('it is not JSON');
        }
        $this->place += strlen($found[0]);
        return new JsonNumber($found[0]);
    }

    private function open(int $depth): void
    {
        if ($depth > self::MAX_DEPTH) {
            $this->fail('it has more than ' . self::MAX_DEPTH . ' levels');
        }
        $this->place++;
    }

    private function object(int $depth): JsonObject
    {
        $this->open($depth);
        $found = [];
        if ($this->take('}')) {
            return new JsonObject();
        }
        do {
            $this->space();
            if ($this->next() !== '"') {
                $this->fail('it is not JSON');
            }
            $name = $this->string();
            if (array_key_exists($name, $found)) {
                $this->fail('an object has a name twice');
            }
            if (!$this->take(':')) {
                $this->fail('it is not JSON');
            }
            $found[$name] = $this->value($depth);
        } while ($this->take(','));
        if (!$this->take('}')) {
            $this->fail('it is not JSON');
        }
        return new JsonObject($found);
    }

    /** @return list<mixed> */
    private function list(int $depth): array
    {
        $this->open($depth);
        $found = [];
        if ($this->take(']')) {
            return $found;
        }
        do {
            $found[] = $this->value($depth);
        } while ($this->take(','));
        if (!$this->take(']')) {
            $this->fail('it is not JSON');
        }
        return $found;
    }

    private function string(): string
    {
        $this->place++;
        $parts = '';
        for (;;) {
            $length = strcspn($this->text, '"\\' . self::CONTROLS, $this->place);
            $parts .= substr($this->text, $this->place, $length);
            $this->place += $length;
            if ($this->next() === '"') {
                $this->place++;
                return $parts;
            }
            if ($this->next() !== '\\') {
                $this->fail('a text does not end, or has a character that must be an escape');
            }
            $parts .= $this->escape();
        }
    }

    private function escape(): string
    {
        $letter = $this->text[$this->place + 1] ?? '';
        if ($letter !== 'u') {
            $this->place += 2;
            return self::ESCAPES[$letter] ?? $this->fail('JSON has no such escape');
        }
        $code = $this->unit();
        if ($code >= 0xD800 && $code < 0xDC00 && substr($this->text, $this->place, 2) === '\\u') {
            $low = $this->unit();
            if ($low < 0xDC00 || $low > 0xDFFF) {
                $this->fail('a text has half of a surrogate pair');
            }
            return self::utf8(0x10000 + (($code - 0xD800) << 10) + $low - 0xDC00);
        }
        if ($code >= 0xD800 && $code <= 0xDFFF) {
            $this->fail('a text has half of a surrogate pair');
        }
        return self::utf8($code);
    }

    /** The number of an escape such as \u00e4, which begins here. */
    private function unit(): int
    {
        $digits = substr($this->text, $this->place + 2, 4);
        if (preg_match('/^[0-9a-fA-F]{4}$/D', $digits) !== 1) {
            $this->fail('JSON has no such escape');
        }
        $this->place += 6;
        return (int) hexdec($digits);
    }

    private static function utf8(int $code): string
    {
        return match (true) {
            $code < 0x80 => chr($code),
            $code < 0x800 => chr(0xC0 | $code >> 6) . chr(0x80 | $code & 63),
            $code < 0x10000 => chr(0xE0 | $code >> 12) . chr(0x80 | $code >> 6 & 63) . chr(0x80 | $code & 63),
            default => chr(0xF0 | $code >> 18) . chr(0x80 | $code >> 12 & 63) . chr(0x80 | $code >> 6 & 63)
                . chr(0x80 | $code & 63),
        };
    }
}
