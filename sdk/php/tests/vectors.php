<?php

declare(strict_types=1);

// Judges every vector; prints what is wrong, and how many there were.
require __DIR__ . '/../autoload.php';

use Phase\Sdk\Gateway;
use Phase\Sdk\Identity;
use Phase\Sdk\Receipt;
use Phase\Sdk\ReceiptException;

/** The same in another order of names is the same. */
function sorted(mixed $value): mixed
{
    if (!is_array($value)) {
        return $value;
    }
    if (!array_is_list($value)) {
        ksort($value, SORT_STRING);
    }
    return array_map(sorted(...), $value);
}

function read(string $name): array
{
    $text = (string) file_get_contents(__DIR__ . "/../../../fixtures/vectors/$name.json");
    return json_decode($text, true, 64, JSON_THROW_ON_ERROR)['vectors'];
}

$wrong = 0;
$requests = read('requests');
foreach ($requests as $each) {
    $identity = Identity::fromSeed($each['seed']);
    $body = base64_decode($each['body'], true);
    $found = Gateway::sign($identity, $each['method'], $each['target'], $each['node'], $body, $each['time'], $each['nonce']);
    if ($found['Phase-Signature'] !== $each['signature'] || $found['Phase-Key'] !== $each['key']) {
        $wrong++;
        echo "{$each['method']} {$each['target']}: found ", json_encode($found), "\n";
    }
}
$vectors = read('receipts');
foreach ($vectors as $each) {
    $envelope = str_pad(base64_decode($each['envelope'], true), $each['padded_to'] ?? 0, ' ');
    $asked = $each['expect'];
    try {
        $receipt = Receipt::verify(
            $envelope,
            $each['key'],
            jobId: $asked['job_id'] ?? null,
            nonce: $asked['nonce'] ?? null,
            moduleSha256: $asked['module_sha256'] ?? null,
            stdoutSha256: $asked['stdout_sha256'] ?? null,
        );
        $found = ['accepted', '', sorted($receipt->says)];
    } catch (ReceiptException $error) {
        $found = [$error->verdict, $error->field, null];
    } catch (Throwable $error) {
        $found = [(string) $error, '', null];
    }
    if ($found !== [$each['verdict'], $each['field'] ?? '', sorted($each['receipt'] ?? null)]) {
        $wrong++;
        echo "{$each['name']} ({$each['why']}): found ", json_encode($found), "\n";
    }
}
$count = count($vectors) + count($requests);
echo $count - $wrong, ' of ', $count, " vectors are judged as they should be\n";
exit($wrong ? 1 : 0);
