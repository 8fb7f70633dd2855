<?php

declare(strict_types=1);

// One job on a node; prints what came of it, or the error. Started by tests/sdk.
require __DIR__ . '/../autoload.php';

use Phase\Sdk\{Client, Gateway, Identity, Job, PhaseException};

$asked = json_decode((string) getenv('ASKED'), true, 16, JSON_THROW_ON_ERROR);
$gateway = new Gateway(
    $asked['url'],
    $asked['node'],
    Identity::fromSeed($asked['seed']),
    $asked['timeout'],
    $asked['request_timeout'],
);
try {
    $job = Job::fromFile(
        $asked['module'],
        $asked['stdin'],
        args: $asked['args'],
        env: $asked['env'],
        limits: $asked['limits'],
    );
    $result = (new Client($gateway))->run($job);
    $said = [
        'stdout' => $result->stdout, 'code' => $result->exitCode(), 'status' => $result->status(),
        'node' => $result->receipt->node(), 'stderr' => $result->stderr,
    ];
} catch (PhaseException $error) {
    $name = (new ReflectionClass($error))->getShortName();
    $said = ['error' => str_replace('Exception', '', $name), 'message' => $error->getMessage()] + get_object_vars($error);
}
echo json_encode($said, JSON_THROW_ON_ERROR), "\n";
