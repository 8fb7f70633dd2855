<?php

declare(strict_types=1);

// What this verifier says of vectors in a file, one a line. Started by tests/sdk.
require __DIR__ . '/../autoload.php';

use Phase\Sdk\Receipt;
use Phase\Sdk\ReceiptException;

ini_set('serialize_precision', '17');
$file = fopen($argv[1], 'r');
while (($line = fgets($file)) !== false) {
    $each = json_decode($line, true, 64, JSON_THROW_ON_ERROR);
    try {
        $said = Receipt::verify(base64_decode($each['envelope'], true), $each['key'])->says;
        // As pairs: an object of PHP loses names that begin with a zero byte.
        foreach (array_intersect(['env', 'inputs', 'outputs'], array_keys($said)) as $field) {
            $pairs = $said[$field];
            $said[$field] = array_map(fn ($name) => [(string) $name, $pairs[$name]], array_keys($pairs));
        }
    } catch (ReceiptException $error) {
        $said = $error->verdict;
    }
    echo json_encode($said, JSON_PRESERVE_ZERO_FRACTION | JSON_THROW_ON_ERROR), "\n";
}
