"""What keeps a node from doing too much for others, and a client from believing too much of it."""

from tests.mutants.mutant import Mutant

NODE, CLIENT = "tests/phase/node", "tests/phase/client"

MUTANTS = (
    Mutant(
        "every key is allowed",
        "phase/node/admission.py",
        "if self.anyone or key in self.keys:",
        "if True:",
        (f"{NODE}/test_jobs.py::test_strangers_are_refused_by_name",),
    ),
    Mutant(
        "an id is taken twice",
        "phase/node/ledger.py",
        "            raise RefusedError(Reason.DUPLICATE,",
        "            RefusedError(Reason.DUPLICATE,",
        (f"{NODE}/test_jobs.py::test_an_id_is_taken_once", f"{NODE}/test_books.py"),
    ),
    Mutant(
        "one client fills the queue",
        "phase/node/scheduler.py",
        "if self._of[client] >= self.capacity.client_jobs:",
        "if False:",
        (f"{NODE}/test_jobs.py::test_a_full_queue_refuses_and_a_client_has_its_quota",),
    ),
    Mutant(
        "any module is the one that was offered",
        "phase/node/arriving.py",
        "    if sha256 and hashed.hexdigest() != sha256:",
        "    if False:",
        (f"{NODE}/test_hostile.py::test_what_is_no_message_is_refused_and_leaves_nothing",),
    ),
    Mutant(
        "a damaged blob is used",
        "phase/node/blobs.py",
        "return data if hashlib.sha256(data).hexdigest() == sha256 else None",
        "return data",
        (f"{NODE}/test_books.py::test_blobs_make_room_and_damaged_ones_are_not_used",),
    ),
    Mutant(
        "a damaged line of the journal is believed",
        "phase/node/journal.py",
        'if len(text) > _MAX_LINE or check != b"%08x" % crc32(body):',
        "if len(text) > _MAX_LINE:",
        (f"{NODE}/test_books.py::test_a_journal_is_read_again_without_what_was_torn",),
    ),
    Mutant(
        "what was lost is not told",
        "phase/node/scheduler.py",
        "        self._report_lost()",
        "        pass",
        (f"{NODE}/test_service.py::test_a_node_that_was_killed_answers_no_job_twice",),
    ),
    Mutant(
        "frames are read before their length is looked at",
        "phase/peer/framing.py",
        "    if length > most:",
        "    if False:",
        ("tests/phase/peer/test_messages.py", f"{NODE}/test_hostile.py"),
    ),
    Mutant(
        "a signed request is taken at every node",
        "phase/node/requests.py",
        '"\\n".join(("phase-request-v1", method, target, node, key, at, nonce, sha256))',
        '"\\n".join(("phase-request-v1", method, target, key, at, nonce, sha256))',
        (f"{NODE}/test_gateway.py", "tests/vectors/test_requests.py"),
    ),
    Mutant(
        "a receipt may be of another client's job",
        "phase/client/verify.py",
        '            ("requester", asked.requester, receipt.requester),',
        "",
        (f"{CLIENT}/test_verify.py",),
    ),
    Mutant(
        "a receipt may be an earlier one",
        "phase/client/verify.py",
        '            ("nonce", asked.nonce, receipt.job.nonce),',
        "",
        (f"{CLIENT}/test_verify.py",),
    ),
    Mutant(
        "a receipt may be of other output",
        "phase/client/verify.py",
        '        ("stdout", stdout, receipt.stdout),',
        "",
        (f"{CLIENT}/test_verify.py",),
    ),
    Mutant(
        "a receipt may be of other input",
        "phase/client/verify.py",
        '        pairs.append(("stdin", counted(read), receipt.stdin))',
        "        pass",
        (f"{CLIENT}/test_verify.py",),
    ),
    Mutant(
        "one node is enough to agree",
        "phase/client/copies.py",
        "if not sides or len(sides[0]) < wanted:",
        "if not sides:",
        (f"{CLIENT}/test_over_peers.py::test_nodes_that_disagree_are_shown_with_their_receipts",),
    ),
)
