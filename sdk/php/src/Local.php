<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** Jobs on this machine, by the command `phase run`. */
final class Local implements Transport
{
    private const MIB = 1 << 20;
    /** Bytes of lines that the command itself may add behind the module's errors. */
    private const NOTES = 64 << 10;
    private const FLAGS = [
        'fuel' => ['--fuel', 1],
        'wall_seconds' => ['--wall', 1],
        'memory_bytes' => ['--memory', self::MIB],
        'compile_bytes' => ['--compile', self::MIB],
        'output_bytes' => ['--max-output', 1],
    ];

    /** @var list<string> */
    private readonly array $state;

    /**
     * @param list<string> $command the words that start Phase
     * @param string|null $key the public key that must sign; null for this machine's own, as `phase init` tells it
     * @param string|null $state the directory that holds the identity, as `phase --state`
     */
    public function __construct(
        private readonly array $command = ['phase'],
        private readonly ?string $key = null,
        ?string $state = null,
    ) {
        if ($key !== null) {
            Crypto::publicKey($key);
        }
        $this->state = $state === null ? [] : ['--state', $state];
    }

    public function run(Job $job): Brought
    {
        $key = $this->key ?? $this->own();
        $directory = sys_get_temp_dir() . '/phase-sdk-' . Crypto::random(16);
        if (!@mkdir($directory, 0700)) {
            throw new PhaseException("directory $directory cannot be made");
        }
        [$module, $receipt] = ["$directory/module", "$directory/receipt.json"];
        try {
            if (@file_put_contents($module, $job->module) !== strlen($job->module)) {
                throw new PhaseException("file $module cannot be written");
            }
            $most = (int) $job->manifest->limit('output_bytes');
            [$code, $stdout, $stderr] = $this->start($this->words($job, $module, $receipt), $job->stdin, $most);
            $envelope = is_file($receipt) ? file_get_contents($receipt, length: Receipt::MAX_ENVELOPE + 1) : '';
            if ($envelope === '' || $envelope === false) {
                throw self::failed('run', $code, $stderr);
            }
            return new Brought($key, $envelope, $stdout, $stderr);
        } finally {
            array_map(unlink(...), array_filter([$module, $receipt], is_file(...)));
            @rmdir($directory);
        }
    }

    private function own(): string
    {
        [$code, $stdout, $stderr] = $this->start(['init', '--json', ...$this->state], '', self::NOTES);
        if ($code !== 0) {
            throw self::failed('init', $code, $stderr);
        }
        $schema = ['type' => 'object', 'properties' => ['node' => ['type' => 'string']], 'required' => ['node']];
        return Shape::take($schema, Json::read($stdout))['node'];
    }

    /** @return list<string> */
    private function words(Job $job, string $module, string $receipt): array
    {
        $flags = [];
        foreach ($job->manifest->limits as $name => $value) {
            if (!isset(self::FLAGS[$name])) {
                throw new UsageException("a job on this machine cannot have the limit $name");
            }
            [$flag, $unit] = self::FLAGS[$name];
            if ($unit !== 1 && $value % $unit !== 0) {
                throw new UsageException("$name must be a whole number of MiB for a job on this machine");
            }
            array_push($flags, $flag, (string) ($value / $unit));
        }
        foreach ($job->manifest->env as $name => $value) {
            array_push($flags, '--env', "$name=$value");
        }
        return [
            'run', ...$this->state, '--receipt', $receipt, '--job-id', $job->id, '--nonce', $job->nonce, ...$flags,
            ...($job->manifest->deterministic ? ['--deterministic'] : []),
            ...($job->stdin === '' ? ['--no-stdin'] : []),
            $module, '--', ...$job->manifest->args,
        ];
    }

    /**
     * Runs the command; its exit code and output.
     *
     * @param list<string> $words
     * @return array{int, string, string}
     */
    private function start(array $words, string $input, int $most): array
    {
        $process = @proc_open([...$this->command, ...$words], [['pipe', 'r'], ['pipe', 'w'], ['pipe', 'w']], $pipes);
        if (!is_resource($process)) {
            throw new PhaseException("{$this->command[0]} cannot be run");
        }
        try {
            [$stdout, $stderr] = self::pump($pipes, $input, $most + self::NOTES);
        } catch (PhaseException $error) {
            proc_terminate($process);
            throw $error;
        } finally {
            array_map(fclose(...), array_filter($pipes, is_resource(...)));
            $code = proc_close($process);
        }
        return [$code, $stdout, $stderr];
    }

    /**
     * Gives input and takes output, side by side, so that neither end waits for the other.
     *
     * @param array<int, resource> $pipes
     * @return array{string, string}
     */
    private static function pump(array &$pipes, string $input, int $most): array
    {
        array_map(fn ($pipe) => stream_set_blocking($pipe, false), $pipes);
        $taken = [1 => '', 2 => ''];
        $given = 0;
        while (isset($pipes[1]) || isset($pipes[2])) {
            if (isset($pipes[0]) && $given >= strlen($input)) {
                fclose($pipes[0]);
                unset($pipes[0]);
            }
            $readers = array_intersect_key($pipes, $taken);
            $writers = array_diff_key($pipes, $taken);
            $others = null;
            if (stream_select($readers, $writers, $others, null) === false) {
                throw new PhaseException('the command cannot be waited for');
            }
            foreach ($writers as $pipe) {
                $wrote = @fwrite($pipe, substr($input, $given, 65536));
                // A module need not read its input.
                $given = $wrote === false || $wrote === 0 ? strlen($input) : $given + $wrote;
            }
            foreach (array_keys($readers) as $number) {
                $taken[$number] .= (string) fread($pipes[$number], 65536);
                if (strlen($taken[$number]) > $most) {
                    throw new PhaseException("the command printed more than $most bytes");
                }
                if (feof($pipes[$number])) {
                    fclose($pipes[$number]);
                    unset($pipes[$number]);
                }
            }
        }
        return [$taken[1], $taken[2]];
    }

    private static function failed(string $what, int $code, string $stderr): PhaseException
    {
        $lines = explode("\n", trim($stderr));
        $said = substr(end($lines), 0, 500) ?: 'it said nothing';
        return new PhaseException("phase $what made no receipt (exit code $code): $said");
    }
}
