"""Protections of who signs and publishes: passphrases, tokens, locks, modes, links, what is in the files."""

from tests.mutants.mutant import Mutant

_RELEASE = "tests/phase/release"
_WORDS = ("tests/phase/cli/test_passphrases.py",)
_TOKEN = (f"{_RELEASE}/test_token.py",)
_LOCK = (f"{_RELEASE}/test_lock.py",)
_OPERATORS = (f"{_RELEASE}/test_operators.py",)
_EXPORT = (f"{_RELEASE}/test_export.py",)
_CONTENT = (f"{_RELEASE}/test_content.py",)
_KEYS = (f"{_RELEASE}/test_keys.py",)
_CRON = (f"{_RELEASE}/test_cron.py",)

MUTANTS = (
    Mutant(
        "an empty passphrase is one",
        "phase/cli/_passphrases.py",
        "if not line.strip():",
        "if False:",
        _WORDS,
    ),
    Mutant(
        "an empty passphrase keeps a key in the clear",
        "phase/release/keys.py",
        "elif passphrase is not None:",
        "elif passphrase:",
        _KEYS,
    ),
    Mutant(
        "a passphrase file is read for each key",
        "phase/cli/_passphrases.py",
        "                self._given = _read(self._file)",
        "                return _read(self._file)",
        _WORDS,
    ),
    Mutant(
        "a token's error is tuf's",
        "phase/release/keys.py",
        "if isinstance(error.__cause__, KeysError):",
        "if False:",
        _TOKEN,
    ),
    Mutant(
        "a passphrase of a key is tried as a PIN",
        "phase/cli/_passphrases.py",
        "if self._sealed is not None:",
        "if False:",
        _TOKEN,
    ),
    Mutant(
        "one PIN is tried on every token",
        "phase/cli/_passphrases.py",
        "for _, each in self._pins if each != label]",
        "for _, each in self._pins if False]",
        _TOKEN,
    ),
    Mutant(
        "the last try of a token is taken",
        "phase/release/token.py",
        "if flags & pkcs11.CKF_USER_PIN_FINAL_TRY:",
        "if False:",
        _TOKEN,
    ),
    Mutant(
        "a wrong PIN is tried again",
        "phase/release/token.py",
        "        _REFUSED.add(known)\n",
        "",
        _TOKEN,
    ),
    Mutant(
        "the lock is waited for without end",
        "phase/release/lock.py",
        "if monotonic() >= until:",
        "if False:",
        _LOCK,
    ),
    Mutant(
        "the holder of a lock is printed raw",
        "phase/release/lock.py",
        'printable(os.pread(descriptor, _MAX_HOLDER, 0).decode("utf-8", "replace").strip())',
        'os.pread(descriptor, _MAX_HOLDER, 0).decode("utf-8", "replace").strip()',
        _LOCK,
    ),
    Mutant(
        "a lock is its maker's alone",
        "phase/release/lock.py",
        "wanted = 0o660 if",
        "wanted = 0o600 if",
        _OPERATORS,
    ),
    Mutant(
        "an account that cannot publish is let in",
        "phase/release/lock.py",
        "if not os.access(path, os.W_OK | os.X_OK):",
        "if False:",
        _OPERATORS,
    ),
    Mutant(
        "a lock with a second name is written to",
        "phase/release/lock.py",
        "own = os.fstat(descriptor).st_nlink == 1",
        "own = True",
        _OPERATORS,
    ),
    Mutant(
        "what is published has the umask's modes",
        "phase/files.py",
        "os.fchmod(descriptor, stat.S_IMODE(found.st_mode) | wanted)",
        "pass",
        _OPERATORS,
    ),
    Mutant(
        "a missing hard link ends a publication",
        "phase/release/blobs.py",
        "if error.errno not in files.NO_LINKS:",
        "if True:",
        _OPERATORS,
    ),
    Mutant(
        "a missing hard link ends an export",
        "phase/release/export.py",
        "if error.errno not in files.NO_LINKS:",
        "if True:",
        _OPERATORS,
    ),
    Mutant(
        "a directory that is exported to may be a link",
        "phase/files.py",
        "os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)",
        "os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)",
        (*_EXPORT, *_OPERATORS),
    ),
    Mutant(
        "a damaged blob is exported",
        "phase/release/export.py",
        "if not block and self._digest.hexdigest() != self._sha256:",
        "if False:",
        _EXPORT,
    ),
    Mutant(
        "a kernel for another architecture is signed",
        "phase/release/content.py",
        "if found.arch and found.arch != arch:",
        "if False:",
        _CONTENT,
    ),
    Mutant(
        "any file is signed as anything",
        "phase/release/content.py",
        "if kind and found.kind != kind:",
        "if False:",
        _CONTENT,
    ),
    Mutant(
        "an archive is unpacked to its end",
        "phase/release/archive.py",
        "while size > 0 and self.position < _MAX_BYTES:",
        "while size > 0:",
        _CONTENT,
    ),
    Mutant(
        "an artifact that is a pipe is waited for",
        "phase/release/blobs.py",
        'return open(files.open_plain(path, follow=True), "rb")',
        'return open(path, "rb")',
        _CONTENT,
    ),
    Mutant(
        "a refresh opens every key",
        "phase/cli/_signing.py",
        'only = [*ONLINE, *(["release"] if any(kind(role) == "release" for role in due) else [])]',
        'only = [*ONLINE, "release"]',
        _CRON,
    ),
    Mutant(
        "a key is left where everybody can read it",
        "phase/release/keys.py",
        "if path.stat().st_mode & 0o077 and not test:",
        "if False:",
        _OPERATORS,
    ),
)
