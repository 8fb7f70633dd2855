<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** Runs jobs, here or on a node, and believes nothing but the receipt. */
final class Client
{
    public function __construct(private readonly Transport $transport)
    {
    }

    /**
     * Runs a job to its end.
     *
     * @return Result also of a job that failed or met a limit: its status says so
     * @throws ReceiptException what came is not what the pinned node signs about this job
     * @throws PhaseException there is no receipt
     */
    public function run(Job $job): Result
    {
        $brought = $this->transport->run($job);
        $receipt = Receipt::verify(
            $brought->envelope,
            $brought->key,
            jobId: $job->id,
            nonce: $job->nonce,
            moduleSha256: $job->manifest->module,
            stdout: $brought->stdout,
        );
        $stderr = substr($brought->stderr, 0, $receipt->says['stderr']['length']);
        self::checkRest($job, $receipt->says, $stderr, $brought->requester);
        return new Result($receipt, $brought->stdout, $stderr);
    }

    /**
     * What a receipt says beside the names: arguments, environment, limits, input, errors.
     *
     * @param array<string, mixed> $says
     */
    private static function checkRest(Job $job, array $says, string $stderr, ?string $requester): void
    {
        $env = $says['env'];
        ksort($env, SORT_STRING);
        $limits = array_intersect_key($says['limits'], $job->manifest->limits);
        // A node has all of the input; here, a module need not ask for all of it.
        $input = $requester === null ? substr($job->stdin, 0, $says['stdin']['length']) : $job->stdin;
        $checks = [
            'args' => $says['args'] === $job->manifest->args,
            'env' => $env === $job->manifest->env,
            'stdin' => self::is($says['stdin'], $input),
            'stderr' => self::is($says['stderr'], $stderr),
            'seed' => $says['seed'] === ($job->manifest->deterministic ? 0 : null),
            'requester' => $says['requester'] === $requester,
            // Files are not asked for by these jobs, so none may have been there.
            'files' => [...$says['inputs'], ...$says['outputs'], ...$says['directories']] === [],
            // By value: 30 seconds are 30.0 seconds.
            'limits' => $limits == $job->manifest->limits,
        ];
        foreach ($checks as $field => $holds) {
            if (!$holds) {
                $message = "the receipt has other $field than the job";
                throw new ReceiptException(ReceiptException::BINDING, $message, $field);
            }
        }
    }

    /** @param array{sha256: string, length: int} $content */
    private static function is(array $content, string $data): bool
    {
        return $content['length'] === strlen($data) && $content['sha256'] === Crypto::sha256($data);
    }
}
