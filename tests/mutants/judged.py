"""What keeps a publisher from signing what others have put there, and machines from being told less."""

from tests.mutants.mutant import Mutant

_RELEASE = "tests/phase/release"
_SIGNER = f"{_RELEASE}/test_signer.py"
_YEAR = f"{_RELEASE}/test_year.py"
_TREE = f"{_RELEASE}/test_repository.py"
_REPOSITORY = "phase/release/repository.py"
_STAGING = "phase/release/staging.py"
_CEREMONY = "phase/cli/_ceremony.py"

MUTANTS = (
    # What is there already
    Mutant(
        "what is in the directory is not judged before signing",
        _REPOSITORY,
        "        elif keys is None and root is None:\n            repository._load_all()\n",
        "        elif True:\n            repository._load_all()\n"
        '            repository._anchor = root or check.reader(directory)("1.root.json", roles.MAX_ROOT)\n',
        (
            f"{_SIGNER}::test_refresh_with_the_release_key_at_hand"
            "[1.stable-x86_64-renew repo stable-x86_64 --keys keys]",
        ),
    ),
    Mutant(
        "what the keys have signed last is not looked at",
        _REPOSITORY,
        "judged = check.judge(get, self._anchor, floors=floors)",
        "judged = check.judge(get, self._anchor)",
        (f"{_SIGNER}::test_an_older_state_is_not_signed_on_top_of",),
    ),
    Mutant(
        "which repository the keys have signed for is not looked at",
        "phase/release/pinned.py",
        "if known and repository not in known and not told:",
        "if False:",
        (f"{_SIGNER}::test_a_whole_repository_of_strangers_is_not_signed",),
    ),
    Mutant(
        "keys do not remember what they have signed",
        "phase/cli/_publishing.py",
        "            remember(pin, repository)\n",
        "            pass\n",
        (f"{_SIGNER}::test_an_older_state_is_not_signed_on_top_of",),
    ),
    Mutant(
        "the root that a person names need not be the repository's",
        "phase/cli/_publishing.py",
        "if root_file is not None and repository_id(_release.read_root(root_file)) != found:",
        "if False:",
        (f"{_SIGNER}::test_a_whole_repository_of_strangers_is_not_signed",),
    ),
    Mutant(
        "a publication that was killed is not completed",
        _REPOSITORY,
        "        if keys is not None:\n            journal.finish(directory)\n",
        "",
        (f"{_TREE}::test_interrupted_anywhere_it_is_the_old_or_the_new",),
    ),
    # What is signed
    Mutant(
        "what waited before is signed on the way",
        _REPOSITORY,
        "own = set(self._drafts) if all_waiting else set(self._drafts) - self._inherited",
        "own = set(self._drafts)",
        (f"{_SIGNER}::test_what_others_let_wait_is_not_signed_on_the_way",),
    ),
    Mutant(
        "what waits may change between showing and signing",
        _CEREMONY,
        "        _unchanged(repository, waiting)\n",
        "",
        (f"{_SIGNER}::test_what_waits_is_what_was_shown",),
    ),
    Mutant(
        "what a stick says to be replaced is not verified",
        _STAGING,
        "roles.lack(role, demand, metadata) is not None:",
        "False:",
        (f"{_SIGNER}::test_a_stick_says_what_is_replaced_as_the_keys_have_signed_it",),
    ),
    Mutant(
        "a stick may let a role sign more than its own release",
        _STAGING,
        "            roles.check_delegations(targets)\n",
        "            pass\n",
        (f"{_SIGNER}::test_a_prepared_stick_gives_no_role_more_than_its_release",),
    ),
    Mutant(
        "rotating asks nobody",
        "phase/cli/_publishing.py",
        "    if yes:\n        return\n",
        "    return\n",
        (f"{_SIGNER}::test_rotate_shows_what_changes_and_asks",),
    ),
    Mutant(
        "the clock of who signs is not looked at",
        _REPOSITORY,
        "        self._check_clock()\n",
        "",
        (f"{_YEAR}::test_the_publishers_clock_a_year_behind",),
    ),
    Mutant(
        "what waits has no room below it",
        "phase/release/draft.py",
        "_ROOM = 16",
        "_ROOM = 1",
        (f"{_YEAR}::test_add_1_1_waits_and_refresh_renews_1_0",),
    ),
    # What is published
    Mutant(
        "no machine judges what is to be published",
        _REPOSITORY,
        "judged = check.judge(get, anchor, floors=[self._floor])",
        "new = {name.split('.')[-2]: data for name, data in pending.items()}\n"
        "            judged = check.Judged(\n"
        "                self._signed | {it: Metadata.from_bytes(new[it]).signed for it in new},\n"
        "                self._bytes | new, self._floor, (),\n"
        "            )",
        (f"{_TREE}::test_what_others_change_while_a_release_is_added_is_not_published_on",),
    ),
    Mutant(
        "what has expired while it waited is published",
        _REPOSITORY,
        "if refused := now_expired & ready | now_expired - expired:",
        "if refused := expired - expired:",
        (f"{_TREE}::test_what_has_waited_until_it_expired_is_not_published",),
    ),
    Mutant(
        "signatures of nobody are published",
        "phase/release/waiting.py",
        "            del metadata.signatures[keyid]\n",
        "            pass\n",
        (f"{_TREE}::test_signatures_that_are_none_of_its_keys_are_not_published",),
    ),
    Mutant(
        "two processes sign at a time",
        "phase/release/lock.py",
        "            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "",
        (f"{_RELEASE}/test_lock.py::test_a_lock_is_waited_for_with_a_limit",),
    ),
    Mutant(
        "a journal that somebody else wrote replaces any file",
        "phase/release/journal.py",
        "if len(steps) > _MAX_FILES or not all(_PATH.fullmatch(step.path) for step in steps):",
        "if len(steps) > _MAX_FILES:",
        (f"{_RELEASE}/test_journal.py",),
    ),
)
