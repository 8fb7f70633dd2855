"""A job as a program describes it, and its result."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Literal

import msgspec

from phase.jobs.limits import Limits
from phase.jobs.receipt import Content, Receipt
from phase.jobs.status import Exited, Status

Architecture = Literal["x86_64", "arm64"]


class Task(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A job.

    Args:
        module: WebAssembly, its bytes.
        args: arguments after the program's name.
        env: the whole environment.
        stdin: the whole input. To stream it, leave this out and give `Client.submit` a source.
        limits: of the job.
        arch: which machine must run it; None for any.
        runtime: what must run it.
        seed: makes it deterministic: each node computes the same from it. None for any other job.
        attempt: how often this job was run, with this time, each under an id of its own.
        inputs: files that the module finds in `/input`, by their names.
        outputs: names of the files in `/output` that are brought back.
    """

    module: bytes
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    stdin: bytes = b""
    limits: Limits = msgspec.field(default_factory=Limits)
    arch: Architecture | None = None
    runtime: str = "wasi-preview1"
    seed: int | None = None
    attempt: int = 1
    inputs: Mapping[str, bytes] = msgspec.field(default_factory=dict)
    outputs: tuple[str, ...] = ()

    @cached_property
    def content(self) -> Content:
        """Hash and length of the module."""
        return _content(self.module)

    def asked(self, nonce: str, requester: str) -> "Asked":
        """What a receipt for it must be of.

        Args:
            nonce: for the receipt.
            requester: key of the client, hex.
        """
        return Asked(
            module=self.content,
            args=tuple(self.args),
            env=dict(self.env),
            limits=self.limits,
            nonce=nonce,
            requester=requester,
            seed=self.seed,
            attempt=self.attempt,
            inputs={name: _content(data) for name, data in self.inputs.items()},
            outputs=tuple(self.outputs),
        )


def _content(data: bytes) -> Content:
    return Content(hashlib.sha256(data).hexdigest(), len(data))


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the receipt of a job must be of, and no more: the client need not keep the module.

    Args:
        module: hash and length.
        args: arguments.
        env: the whole environment.
        limits: of the job.
        nonce: for the receipt.
        requester: key of the client, hex.
        seed: of a deterministic job.
        attempt: how often it was run.
        inputs: files, by their names.
        outputs: names of files.
        stdin: the input, where the node has all of it before the job starts; None if the module reads as
            much of it as it likes.
    """

    module: Content
    args: tuple[str, ...]
    env: dict[str, str]
    limits: Limits
    nonce: str
    requester: str
    seed: int | None = None
    attempt: int = 1
    inputs: dict[str, Content] = msgspec.field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    stdin: Content | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A verified result.

    Args:
        status: how the module ended.
        stdout: its output, unless it was taken as it came.
        stderr: the same.
        receipt: what the node has signed.
        envelope: the same as it can be kept and verified again: DSSE, JSON.
        node: key of the node.
        files: that the module left, of those that were asked for, by their names.
    """

    status: Status
    stdout: bytes
    stderr: bytes
    receipt: Receipt
    envelope: bytes
    node: str
    files: Mapping[str, bytes] = msgspec.field(default_factory=dict)

    @property
    def exit_code(self) -> int | None:
        """The module's own exit code; None if it was stopped before it had one."""
        return self.status.code if isinstance(self.status, Exited) else None
