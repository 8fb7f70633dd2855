"""The parts of the project that are mutated, and the tests that are asked about each."""

from typing import NamedTuple


class Area(NamedTuple):
    """One part.

    Attributes:
        source: a file, or a directory with all below it.
        tests: pytest's paths, or names of tests. mutmut runs of them only those that reach the changed
            function.
        least: of 100 mutants, how many must be killed for the run to end with 0.
        apart: modules that are left alone: they run in processes that have neither an environment nor
            installed packages, and mutmut needs both to say which mutant it is. The curated list has theirs.
    """

    source: str
    tests: tuple[str, ...]
    least: int
    apart: tuple[str, ...] = ()


_WORKERS = tuple(
    f"phase/jobs/{name}.py"
    for name in (
        "__init__",
        "binary",
        "calls",
        "engine",
        "host",
        "landlock",
        "location",
        "memory",
        "protect",
        "text",
        "traps",
        "wire",
        "worker",
    )
)

_LOCK = "tests/phase/release/test_lock.py"
_SHARED = "tests/phase/release/test_operators.py"
#: Without those that start processes for each thing they try (test_cron, test_docs, test_kills, most of
#: test_lock) or go through years (test_years): a mutant that lives runs all that reach it.
_RELEASE = (
    *(
        f"tests/phase/release/test_{name}.py"
        for name in (
            "commands",
            "content",
            "draft",
            "export",
            "journal",
            "keys",
            "local",
            "manifest",
            "other_client",
            "over_http",
            "pinned",
            "repository",
            "roles",
            "signer",
            "staging",
            "status",
            "token",
            "year",
        )
    ),
    f"{_LOCK}::test_a_lock_is_waited_for_with_a_limit",
    f"{_LOCK}::test_a_lock_is_no_link_and_no_pipe",
    f"{_SHARED}::test_a_umask_of_cron_hides_nothing_that_is_published",
    f"{_SHARED}::test_modes_of_an_earlier_umask_are_repaired",
    f"{_SHARED}::test_an_account_that_cannot_publish_is_refused_before_it_signs",
    f"{_SHARED}::test_where_there_are_no_hard_links_files_are_copied",
)

#: Commands are tested beside what they command. Without those that start a process for each thing they try
#: (`test_run.py`, `test_run_receipt.py`, `test_passphrases.py`, `test_release_commands.py`): mutmut sees
#: nothing of a process.
_COMMANDS = (
    *(
        f"tests/phase/cli/test_{name}.py"
        for name in (
            "configuration",
            "discover_command",
            "fetch",
            "init",
            "job_commands",
            "keys",
            "lazy",
            "modes",
            "node_command",
            "output",
            "parts",
            "peers_command",
            "provider_commands",
            "run_inside",
            "serve_command",
            "words",
        )
    ),
    "tests/phase/jobs/test_commands.py",
    "tests/phase/node/test_copies.py",
    *(f"tests/phase/release/test_{name}.py" for name in ("commands", "year", "signer", "hostile_words")),
)

#: Those of nodes over QUIC start a node as a process; the client is in the tests' own.
_CLIENT = (
    *(
        f"tests/phase/client/test_{name}.py"
        for name in ("connections", "hostile_nodes", "spread", "verify", "words")
    ),
    *(
        f"tests/phase/client/test_over_peers.py::test_{name}"
        for name in (
            "an_executor_runs_tasks_on_all_nodes_and_waits_for_room",
            "an_executor_has_so_many_jobs_and_no_more",
            "a_node_that_is_gone_is_passed_over",
            "a_program_without_asyncio_detaches_and_fetches",
            "nodes_that_compute_the_same_agree",
            "nodes_that_disagree_are_shown_with_their_receipts",
        )
    ),
    "tests/phase/node/test_jobs.py",
    "tests/phase/node/test_copies.py",
)

#: All of them. The first one needs a process that has one thread, which later ones leave behind.
_PROVIDER = tuple(
    f"tests/phase/provider/test_{name}.py"
    for name in (
        "workers",
        "accept",
        "announce",
        "app",
        "background",
        "catalog",
        "health",
        "ipxe",
        "limits",
        "lines",
        "listening",
        "page",
        "peers",
        "plain",
        "ranges",
        "relaying",
        "server",
        "service",
        "stopping",
        "systemd",
        "together",
        "written",
    )
)

#: Without what starts machines and processes (`test_nat.py`, the last of `test_nearby.py`) or waits long.
_PEER = (
    *(
        f"tests/phase/peer/test_{name}.py"
        for name in (
            "address",
            "batches",
            "bindings",
            "contract",
            "frames",
            "framing",
            "messages",
            "outcome",
            "records",
            "relay",
            "resolve",
            "seen",
        )
    ),
    *(
        f"tests/phase/peer/test_nearby.py::test_{name}"
        for name in (
            "a_node_is_read_once_until_it_says_something_else",
            "providers_are_no_nodes_and_nodes_no_providers",
            "link_local_addresses_are_left_out",
            "what_is_kept_is_bounded",
            "one_sender_does_not_crowd_out_the_others",
            "malformed_answer_is_passed_over",
            "size_and_port_are_bounded",
        )
    ),
    *(
        f"tests/phase/peer/test_publish.py::test_{name}"
        for name in (
            "change_is_published_and_replaces_what_was_said",
            "slots_are_kept_back_and_other_changes_are_not",
            "hosts_of_a_record",
        )
    ),
    *(
        f"tests/phase/peer/test_iroh.py::test_{name}"
        for name in (
            "identity_is_the_address",
            "only_the_given_addresses_are_listened_on",
            "wrong_address_to_listen_on_is_named",
            "own_key_and_no_key_are_told_apart",
            "key_that_is_not_admitted_is_told_why",
            "limits_of_connections",
            "connections_that_nobody_accepts_are_bounded",
            "handshakes_are_bounded",
            "path_is_noted",
        )
    ),
)

#: Without what starts a node as a process, and what waits for seconds. The hello job is tested beside jobs.
_NODE = (
    *(
        f"tests/phase/node/test_{name}.py"
        for name in (
            "bodies",
            "books",
            "counts",
            "disk",
            "gateway",
            "hostile",
            "jobs",
            "memory",
            "modes",
            "run",
            "streams",
            "waits",
        )
    ),
    "tests/phase/peer/test_messages.py",
    *(
        f"tests/phase/jobs/test_commands.py::test_{name}"
        for name in (
            "the_node_runs_hello_keeps_its_receipt_and_marks_the_job",
            "a_job_that_fails_is_marked_failed_with_the_reason",
            "a_job_on_an_old_processor_is_marked_refused",
            "a_node_without_its_module_marks_the_job_failed",
        )
    ),
)

#: Without `test_command.py`: it starts the command as a process.
_MEDIA = (
    *(f"tests/boot/media/test_{name}.py" for name in ("build", "disk", "lists", "loaders", "write")),
    "tests/boot/test_images.py::test_a_refreshed_medium_has_a_refreshed_tor",
)

#: Without what starts the command as a process (`test_following.py`).
_MIRROR = (
    "tests/phase/mirror/test_mirror.py",
    "tests/phase/cli/test_output.py",
    "tests/phase/cli/test_fetch.py",
)

AREAS = (
    Area("phase/dsse.py", ("tests/phase/test_dsse.py",), 90),
    Area("phase/identity.py", ("tests/phase/test_identity.py",), 90),
    Area("phase/files.py", ("tests/phase/test_files.py",), 90),
    Area("phase/marks.py", ("tests/phase/test_marks.py",), 90),
    Area("phase/cmdline.py", ("tests/phase/test_cmdline.py",), 90),
    Area("phase/trust", ("tests/phase/trust",), 90),
    Area("phase/fetch", ("tests/phase/fetch",), 90),
    Area("phase/jobs", ("tests/phase/jobs",), 90, _WORKERS),
    Area("phase/boot", ("tests/phase/boot",), 90),
    Area("phase/discovery", ("tests/phase/discovery",), 80),
    Area("phase/provider", _PROVIDER, 0),
    Area("phase/release", _RELEASE, 90),
    Area("phase/cli", _COMMANDS, 0),
    Area("phase/node", _NODE, 0),
    Area("phase/client", _CLIENT, 80),
    Area("phase/peer", _PEER, 80),
    Area("phase/mirror", _MIRROR, 80),
    Area("boot/media", _MEDIA, 80),
    Area("lab/marks.py", ("tests/lab/test_marks.py",), 0),
    Area("lab/console.py", ("tests/lab/test_console.py",), 0),
    Area("lab/shell.py", ("tests/lab/test_shell.py", "tests/lab/test_dialogue.py"), 0),
    Area("lab/stages.py", ("tests/lab/test_stages.py",), 0),
    Area("lab/leases.py", ("tests/lab/test_leases.py",), 0),
    Area("lab/deaths.py", ("tests/lab/test_deaths.py",), 0),
    Area("lab/topology.py", ("tests/lab/test_topology.py",), 0),
    Area("lab/net", ("tests/lab/net",), 0),
    Area("lab/report", ("tests/lab/report",), 0),
)


def chosen(words: list[str]) -> list[Area]:
    """The areas that a person named, or all.

    Raises:
        ValueError: a word names no area.
    """
    by_source = {area.source: area for area in AREAS}
    unknown = [word for word in words if word.rstrip("/") not in by_source]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: unknown; known are {', '.join(by_source)}")
    return [by_source[word.rstrip("/")] for word in words] or list(AREAS)
