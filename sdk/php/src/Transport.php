<?php

declare(strict_types=1);

namespace Phase\Sdk;

/** A way to have a job run. */
interface Transport
{
    /**
     * Runs a job to its end.
     *
     * @throws PhaseException there is no receipt
     */
    public function run(Job $job): Brought;
}
