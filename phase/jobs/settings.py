"""How the engine is configured. A compiled module is only good for the settings it was compiled with."""

import resource

#: Functions `wasmtime_config_*_set`, and what they are given.
ALWAYS: tuple[tuple[str, bool], ...] = (
    ("consume_fuel", True),
    # Same NaN bits on every architecture, so equal jobs give equal output digests.
    ("cranelift_nan_canonicalization", True),
    # The same for the vectors whose results the specification leaves open.
    ("wasm_relaxed_simd_deterministic", True),
    # One job, one core: compiling must not take the machine from its neighbours.
    ("parallel_compilation", False),
    # The engine would keep the data segments in a memory file, to map them into each instance. A
    # worker may not write a file, and has one instance: the engine copies them.
    ("memory_init_cow", False),
    # A job is for WASI 0.2, which has no functions that run at the same time.
    ("wasm_component_model_async", False),
)
#: Of a process that may not reserve 4 GiB of addresses for each memory, which the engine does by default to
#: avoid bounds checks.
NARROW: tuple[tuple[str, int], ...] = (("memory_reservation", 0), ("memory_guard_size", 0))


def narrow() -> bool:
    """Whether the addresses of this process, and of its children, are limited (`ulimit -v`)."""
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def described() -> str:
    """All settings that hold for the children of this process, as text."""
    return repr((ALWAYS, NARROW if narrow() else ()))
