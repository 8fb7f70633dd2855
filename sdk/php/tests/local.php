<?php

declare(strict_types=1);

// Jobs on this machine; prints what came of them. Started by tests/sdk.
require __DIR__ . '/../autoload.php';

use Phase\Sdk\{Client, Job, Local, Manifest, PhaseException, ReceiptException};

$command = json_decode(getenv('PHASE_COMMAND') ?: '["phase"]');
$module = fn (string $name): string => getenv('MODULES') . "/$name.wasm";
$client = new Client(new Local($command));

$hello = $client->run(Job::fromFile($module('hello'), 'Hello, World', args: ['a', '--b'], env: ['A' => 'ä', '1' => '']));
$said['hello'] = [
    'text' => $hello->stdout, 'code' => $hello->exitCode(), 'args' => $hello->receipt->says['args'],
    'env' => (object) $hello->receipt->says['env'],
];
$said['node'] = $hello->receipt->node();
$said['exit'] = ['code' => $client->run(Job::fromFile($module('exit'), '0000000000000042rest'))->exitCode()];
$spin = $client->run(Job::fromFile($module('spin'), limits: ['fuel' => 1_000_000]));
$said['spin'] = ['status' => $spin->status(), 'fuel' => $spin->receipt->says['limits']['fuel']];
$same = Job::fromFile($module('hello'), 'Hello', deterministic: true);
$said['seed'] = $client->run($same)->receipt->says['seed'];
$said['large'] = strlen($client->run(Job::fromFile($module('hello'), str_repeat('x', 1 << 20)))->stdout);

function raised(callable $try): string
{
    try {
        $try();
    } catch (ReceiptException $error) {
        return $error->verdict;
    } catch (PhaseException $error) {
        return $error->getMessage();
    }
    return 'nothing';
}

$pinned = new Client(new Local($command, str_repeat('ab', 32)));
$said['other key'] = raised(fn () => $pinned->run(Job::fromFile($module('hello'))));
$said['refused'] = raised(fn () => $client->run(Job::fromFile($module('hello'), args: array_fill(0, 2000, 'a'))));
$nowhere = new Client(new Local(['/nowhere/phase'], str_repeat('ab', 32)));
$said['nowhere'] = raised(fn () => $nowhere->run(Job::fromFile($module('hello'))));
$manifest = new Manifest(str_repeat('ab', 32), ['a'], ['B' => 'c', '0' => 'd'], ['fuel' => 5, 'wall_seconds' => 1.5], true, 'arm64');
$said['manifest'] = Manifest::parse(json_encode($manifest)) == $manifest;
$said['no limit'] = raised(fn () => new Manifest(str_repeat('ab', 32), limits: ['disk' => 1]));
$said['zero fuel'] = raised(fn () => new Manifest(str_repeat('ab', 32), limits: ['fuel' => 0]));
$said['other bytes'] = raised(fn () => new Job($manifest, 'x'));
$said['left'] = glob(sys_get_temp_dir() . '/phase-sdk-*');
echo json_encode($said, JSON_THROW_ON_ERROR), "\n";
