<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** Jobs on a node, over its HTTP gateway: docs/develop/gateway.md. Needs PHP's extension curl. */
final class Gateway implements Transport
{
    private const MOST_JSON = 64 << 10;
    private const MOST_HEADERS = 64 << 10;
    /** Bytes from which on it pays to ask whether the node has them. */
    private const SMALL = 16 << 10;
    /** Blobs that are remembered to be there. */
    private const MOST_KNOWN = 1024;
    /** Questions about a job that may fail one after the other; the job goes on meanwhile. */
    private const TRIES = 5;
    /** Of curl: the node could not be reached, or the connection was cut. */
    private const CUT = [CURLE_COULDNT_CONNECT, CURLE_GOT_NOTHING, CURLE_SEND_ERROR, CURLE_RECV_ERROR];
    private const ENDED = ['done', 'cancelled', 'returned', 'lost', 'failed'];
    private const STATUS = [
        'type' => 'object',
        'properties' => [
            'job' => ['type' => 'string'],
            'state' => ['enum' => ['queued', 'running', ...self::ENDED]],
            'detail' => ['type' => 'string', 'default' => ''],
        ],
        'required' => ['job', 'state'],
    ];
    private const PROBLEM = [
        'type' => 'object',
        'properties' => [
            'detail' => ['type' => 'string', 'default' => ''],
            'reason' => ['type' => 'string', 'default' => ''],
        ],
        'required' => [],
    ];

    private readonly string $origin;
    private readonly string $prefix;
    private readonly string $node;
    /** @var array<string, true> blobs that the node has had, by hash */
    private array $there = [];
    /** Kept, so that the connection is. */
    private ?\CurlHandle $handle = null;

    /**
     * @param string $url of the gateway: `http://node.example:8470`
     * @param string $node the node's public key, 64 hex digits, known from elsewhere
     * @param Identity $identity the key that the node allows
     * @param float $timeout seconds for a job in all
     * @param float $requestTimeout seconds for one request
     */
    public function __construct(
        string $url,
        string $node,
        private readonly Identity $identity,
        private readonly float $timeout = 600.0,
        private readonly float $requestTimeout = 60.0,
    ) {
        if (!extension_loaded('curl')) {
            throw new UsageException("PHP's extension curl is needed for jobs on nodes");
        }
        if (preg_match('~^(https?://[^/?#@\s]+)((?:/[^?#\s]*)?)$~D', $url, $found) !== 1) {
            throw new UsageException('a gateway is named by http://HOST:PORT or https://HOST');
        }
        Crypto::publicKey($node);
        [$this->origin, $this->prefix, $this->node] = [$found[1], rtrim($found[2], '/'), strtolower($node)];
    }

    public function run(Job $job): Brought
    {
        $deadline = microtime(true) + $this->timeout;
        try {
            $this->submit($job, $deadline);
            $found = $this->wait($job->id, $deadline);
        } catch (PhaseException $error) {
            if (microtime(true) >= $deadline) {
                $this->tryCancel($job->id);
            }
            throw $error;
        }
        if ($found['state'] !== 'done') {
            $why = self::plain($found['detail']) ?: 'no reason given';
            throw new JobException($found['state'], "the node says that the job is {$found['state']}: $why");
        }
        return $this->fetch($job, $deadline);
    }

    /**
     * Hands a job over.
     *
     * @return array{job: string, state: string, detail: string}
     */
    public function submit(Job $job, ?float $deadline = null): array
    {
        $told = ['job' => $job->id, 'nonce' => $job->nonce, ...$job->manifest->jsonSerialize()];
        if ($job->stdin !== '') {
            $told['stdin'] = Crypto::sha256($job->stdin);
        }
        $flags = JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_PRESERVE_ZERO_FRACTION | JSON_THROW_ON_ERROR;
        $body = json_encode($told, $flags);
        try {
            $this->blobs($job, $deadline);
            return self::status_($this->request('POST', '/v1/jobs', $body, $deadline), $job->id);
        } catch (GatewayException $error) {
            if ($error->reason !== 'blob missing') {
                throw $error;
            }
        }
        // The node had no room to keep what it had.
        $this->there = [];
        $this->blobs($job, $deadline);
        return self::status_($this->request('POST', '/v1/jobs', $body, $deadline), $job->id);
    }

    /**
     * How a job stands.
     *
     * @param int $wait seconds that the node may wait for its end
     * @return array{job: string, state: string, detail: string}
     */
    public function status(string $id, int $wait = 0, ?float $deadline = null): array
    {
        $target = '/v1/jobs/' . rawurlencode($id) . ($wait > 0 ? "?wait=$wait" : '');
        return self::status_($this->request('GET', $target, '', $deadline), $id);
    }

    /**
     * Stops a job.
     *
     * @return array{job: string, state: string, detail: string}
     */
    public function cancel(string $id): array
    {
        return self::status_($this->request('DELETE', '/v1/jobs/' . rawurlencode($id)), $id);
    }

    /** Receipt and output of a job that has ended; not verified. */
    public function fetch(Job $job, ?float $deadline = null): Brought
    {
        $place = '/v1/jobs/' . rawurlencode($job->id);
        $most = (int) $job->manifest->limit('output_bytes');
        return new Brought(
            $this->node,
            $this->request('GET', "$place/receipt", '', $deadline, Receipt::MAX_ENVELOPE),
            $this->request('GET', "$place/stdout", '', $deadline, $most),
            $this->request('GET', "$place/stderr", '', $deadline, $most),
            $this->identity->publicKey,
        );
    }

    private function tryCancel(string $id): void
    {
        try {
            $this->cancel($id);
        } catch (PhaseException) {
            // The reason that the caller gets is the first one.
        }
    }

    /** @return array{job: string, state: string, detail: string} */
    private function wait(string $id, float $deadline): array
    {
        $patience = (int) max(1, min(25, $this->requestTimeout / 2));
        for ($failed = 0;;) {
            $began = microtime(true);
            try {
                $found = $this->status($id, $patience, $deadline);
                $failed = 0;
            } catch (GatewayException $error) {
                // Where a connection is cut, curl sends the same question again by itself, and its nonce is used.
                $passing = $error->passing || $error->status === 401;
                if (!$passing || ++$failed >= self::TRIES) {
                    throw $error;
                }
                usleep(125_000 << $failed);
                continue;
            }
            if (in_array($found['state'], self::ENDED, true)) {
                return $found;
            }
            if (microtime(true) - $began < 0.25) {
                // A node that does not wait must not be asked without end.
                usleep(250_000);
            }
        }
    }

    /** Brings module and input, as far as the node does not have them. */
    private function blobs(Job $job, ?float $deadline): void
    {
        foreach (array_unique($job->stdin === '' ? [$job->module] : [$job->module, $job->stdin]) as $body) {
            $hash = Crypto::sha256($body);
            if (isset($this->there[$hash])) {
                continue;
            }
            if (strlen($body) < self::SMALL || !$this->has($hash, $deadline)) {
                $this->request('PUT', "/v1/blobs/$hash", $body, $deadline);
            }
            $this->there = count($this->there) < self::MOST_KNOWN ? $this->there : [];
            $this->there[$hash] = true;
        }
    }

    private function has(string $hash, ?float $deadline): bool
    {
        try {
            $this->request('HEAD', "/v1/blobs/$hash", '', $deadline);
            return true;
        } catch (GatewayException $error) {
            return $error->status === 404 ? false : throw $error;
        }
    }

    /** One signed request; the body of its answer. */
    private function request(
        string $method,
        string $path,
        string $body = '',
        ?float $deadline = null,
        int $most = self::MOST_JSON,
    ): string {
        $left = $deadline === null ? $this->requestTimeout : min($this->requestTimeout, $deadline - microtime(true));
        if ($left <= 0) {
            throw new GatewayException("$method $path: the job's time is over");
        }
        $answer = $this->send($method, $this->prefix . $path, $body, $left, $most);
        if ($answer['error'] !== '') {
            $words = "$method $path at {$this->origin}: {$answer['error']}";
            throw new GatewayException($words, passing: $answer['cut']);
        }
        if ($answer['status'] < 200 || $answer['status'] > 299) {
            throw self::refused("$method $path", $answer);
        }
        return $answer['body'];
    }

    /** @return array{status: int, headers: array<string, string>, body: string, error: string, cut: bool} */
    private function send(string $method, string $target, string $body, float $seconds, int $most): array
    {
        $answer = ['status' => 0, 'headers' => [], 'body' => '', 'error' => '', 'cut' => false];
        $heard = 0;
        $handle = $this->handle ??= curl_init();
        curl_reset($handle);
        curl_setopt_array($handle, [
            CURLOPT_URL => $this->origin . $target,
            CURLOPT_CUSTOMREQUEST => $method,
            CURLOPT_NOBODY => $method === 'HEAD',
            CURLOPT_HTTPHEADER => $this->signed($method, $target, $body),
            CURLOPT_PROTOCOLS => CURLPROTO_HTTP | CURLPROTO_HTTPS,
            CURLOPT_FOLLOWLOCATION => false,
            CURLOPT_PATH_AS_IS => true,
            CURLOPT_NOSIGNAL => true,
            CURLOPT_TIMEOUT_MS => (int) max(1, $seconds * 1000),
            CURLOPT_HEADERFUNCTION => function ($_, string $line) use (&$answer, &$heard): int {
                $heard += strlen($line);
                if (preg_match('/^([A-Za-z-]+):[ \t]*(.*?)[ \t\r\n]*$/D', $line, $found) === 1) {
                    $answer['headers'][strtolower($found[1])] = $found[2];
                }
                return $heard > self::MOST_HEADERS ? 0 : strlen($line);
            },
            CURLOPT_WRITEFUNCTION => function ($_, string $part) use (&$answer, $most): int {
                $answer['body'] .= $part;
                if (strlen($answer['body']) > $most) {
                    $answer['error'] = "the answer has more than $most bytes";
                    return 0;
                }
                return strlen($part);
            },
        ]);
        if ($method === 'PUT' || $method === 'POST') {
            curl_setopt($handle, CURLOPT_POSTFIELDS, $body);
        }
        if (curl_exec($handle) === false && $answer['error'] === '') {
            $answer['error'] = curl_error($handle) ?: 'the answer is not whole';
            $answer['cut'] = in_array(curl_errno($handle), self::CUT, true);
        }
        $answer['status'] = curl_getinfo($handle, CURLINFO_RESPONSE_CODE);
        return $answer;
    }

    /**
     * The header fields that sign a request to a gateway, for programs that send their own.
     *
     * @param string $target path and query, as they are sent
     * @param string $node the node's key, in lower case
     * @param string|null $time seconds since the epoch; now when left out
     * @param string|null $nonce 32 hex digits; random ones when left out
     * @return array<string, string>
     */
    public static function sign(
        Identity $identity,
        string $method,
        string $target,
        string $node,
        string $body = '',
        ?string $time = null,
        ?string $nonce = null,
    ): array {
        $time ??= (string) time();
        $nonce ??= Crypto::random(16);
        $key = $identity->publicKey;
        $lines = ['phase-request-v1', $method, $target, $node, $key, $time, $nonce, Crypto::sha256($body)];
        return [
            'Phase-Key' => $key,
            'Phase-Time' => $time,
            'Phase-Nonce' => $nonce,
            'Phase-Signature' => bin2hex($identity->sign(implode("\n", $lines))),
        ];
    }

    /**
     * The header fields of a request.
     *
     * @return list<string>
     */
    private function signed(string $method, string $target, string $body): array
    {
        $fields = self::sign($this->identity, $method, $target, $this->node, $body);
        // Not to wait a second for a leave to send.
        $fields['Expect'] = '';
        if ($method === 'POST') {
            $fields['Content-Digest'] = 'sha-256=:' . base64_encode(hash('sha256', $body, true)) . ':';
        }
        $fields['Content-Type'] = $method === 'POST' ? 'application/json' : 'application/octet-stream';
        return array_map(fn (string $name) => "$name: {$fields[$name]}", array_keys($fields));
    }

    /** @param array{status: int, headers: array<string, string>, body: string, error: string, cut: bool} $answer */
    private static function refused(string $what, array $answer): GatewayException
    {
        $told = ['detail' => '', 'reason' => ''];
        if (str_starts_with($answer['headers']['content-type'] ?? '', 'application/problem+json')) {
            try {
                $told = Shape::take(self::PROBLEM, Json::read($answer['body']));
            } catch (MalformedException) {
                // Whatever refuses need not be a node.
            }
        }
        $words = implode(': ', array_filter(array_map(self::plain(...), [$told['reason'], $told['detail']])));
        return new GatewayException(
            "$what was refused with {$answer['status']}" . ($words === '' ? '' : ": $words"),
            $answer['status'],
            $told['reason'],
            max(0.0, (float) ($answer['headers']['retry-after'] ?? 0)),
            in_array($answer['status'], [429, 502, 503, 504], true),
        );
    }

    /** @return array{job: string, state: string, detail: string} */
    private static function status_(string $body, string $id): array
    {
        try {
            $found = Shape::take(self::STATUS, Json::read($body));
        } catch (MalformedException $error) {
            $message = "the node's answer is malformed: {$error->getMessage()}";
            throw new GatewayException($message, previous: $error);
        }
        if ($found['job'] !== $id) {
            throw new GatewayException('the node speaks of another job');
        }
        return $found;
    }

    /** Words of others, fit for a message. */
    private static function plain(string $text): string
    {
        return substr((string) preg_replace('/[^\x20-\x7e]/', '?', $text), 0, 300);
    }
}
