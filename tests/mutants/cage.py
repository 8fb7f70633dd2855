"""The cage of a job that broke out of the engine: each of its layers, and each rule of the filter."""

from tests.mutants.mutant import Mutant

_ESCAPE = "tests/phase/jobs/test_escape.py"
_CALLS = "tests/phase/jobs/test_calls.py"
_PROTECT = "phase/jobs/protect.py"

MUTANTS = (
    Mutant(
        "system calls are not filtered",
        _PROTECT,
        "        calls.close(libc, files=not grant.empty)\n",
        "        pass\n",
        (f"{_ESCAPE}::test_a_job_that_broke_out_reaches_nothing",),
    ),
    Mutant(
        "a worker may open files where calls are not filtered",
        _PROTECT,
        "    if landlock.close(libc, _granted(grant)):\n",
        "    if False:\n",
        (f"{_ESCAPE}::test_a_job_that_broke_out_where_calls_are_not_filtered",),
    ),
    Mutant(
        "a worker has the network where calls are not filtered",
        _PROTECT,
        "    if _leave_network(libc, files=not grant.empty, apart=apart):\n",
        "    if False:\n",
        (f"{_ESCAPE}::test_a_job_that_broke_out_where_calls_are_not_filtered",),
    ),
    Mutant(
        "all workers are one user",
        _PROTECT,
        "                    drop(OWN + os.getpid())\n",
        "                    drop(NOBODY)\n",
        ("tests/phase/jobs/test_process_limits.py",),
    ),
    Mutant(
        "capabilities of another user are kept",
        _PROTECT,
        "    if not _drop_capabilities(libc):\n",
        "    if os.geteuid() == 0 and not _drop_capabilities(libc):\n",
        (f"{_ESCAPE}::test_capabilities_of_another_user_are_dropped",),
    ),
    Mutant(
        "a cage that is not whole runs any job",
        "phase/jobs/runner.py",
        'if self._policy == "whole" and self._cage[1]:',
        "if False:",
        ("tests/phase/jobs/test_protect.py::test_what_the_kernel_refuses_is_named_and_the_policy_decides",),
    ),
    Mutant(
        "where memory runs out any process ends",
        _PROTECT,
        'os.write(descriptor, b"1000")',
        'os.write(descriptor, b"0")',
        (f"{_ESCAPE}::test_out_of_memory_ends_the_job_first",),
    ),
    *(
        Mutant(what, "phase/jobs/cache.py", old, new, ("tests/phase/jobs/test_cache.py",))
        for what, old, new in (
            (
                "compiled modules are not authenticated",
                "if hmac.compare_digest(tag, self._tag(entry, data)):",
                "if True:",
            ),
            ("a compiled module may be another module's", "entry.encode() + data", "data"),
            (
                "others may fill the cache of compiled modules",
                " and not stat.S_IMODE(found.st_mode) & 0o077",
                "",
            ),
            (
                "links in the cache are followed",
                "os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK",
                "os.O_RDONLY",
            ),
            (
                "compiled modules fill the disk",
                "if total <= self._most and left <= MAX_ENTRIES:",
                "if True:",
            ),
        )
    ),
    *(
        Mutant(what, "phase/jobs/mounts.py", old, new, ("tests/phase/jobs/test_files.py",))
        for what, old, new in (
            ("the machine's root stays in reach", 'if libc.umount2(b".", _DETACH) != 0:', "if False:"),
            ("files for reading can be written", "(0 if writable else _ATTRIBUTE_READ_ONLY)", "0"),
            ("files in memory have no quota", "size={grant.memory_bytes},", ""),
        )
    ),
    Mutant(
        "a job reads its input where it reads a file",
        "phase/jobs/host.py",
        " and kind not in _FILES",
        "",
        ("tests/phase/jobs/test_files.py",),
    ),
    *(
        Mutant(f"the filter takes {what}", "phase/jobs/calls.py", old, new, (_CALLS,))
        for what, old, new in (
            ("calls of other architectures", "(_EQUAL, 1, 0, own)", "(_EQUAL, 1, 1, own)"),
            ("children", "0, _THREAD_MASK, (_THREAD,)", "0, 0, (0,)"),
            ("shared memory", "3, _MAP_MASK, (_MAP_PRIVATE,)", "3, 0x20, (_MAP_PRIVATE,)"),
            ("limits of other processes", "0, 0xFFFFFFFF, (0,)", "0, 0, (0,)"),
            ("signals to other processes", "0, 0xFFFFFFFF, (process,)", "0, 0, (0,)"),
            (
                "whatever is not listed",
                "    code.append((_RETURN, 0, 0, _KILL))",
                "    code.append((_RETURN, 0, 0, _ALLOW))",
            ),
        )
    ),
)
