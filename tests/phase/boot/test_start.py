"""The seed's first lines: what is left out, and that what is left is what TUF needs."""

import subprocess
import sys
from pathlib import Path

from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository

#: What no boot loads. Each brings others with it.
HEAVY = (
    "securesystemslib.signer._aws_signer",
    "securesystemslib._gpg.functions",
    "subprocess",
    "ast",
    "dis",
    "tokenize",
    "random",
)
_REFRESH = """
import pathlib, re
from datetime import UTC, datetime
from phase import trust
place = pathlib.Path(sys.argv[1])
root = (place / "1.root.json").read_bytes()

def honest(name, limit):
    path = place / name
    if not path.exists():
        raise trust.NotFoundError(name)
    return path.read_bytes()

def hostile(name, limit):
    change = lambda found: found[1] + (b"1" if found[2] == b"0" else b"0")
    return re.sub(rb'("sig": ?")(.)', change, honest(name, limit))

for get in (honest, hostile):
    try:
        found = trust.refresh(root, get, channel="stable", arch="x86_64", now=datetime.now(UTC))
        print(found.manifest.release)
    except trust.TrustError as error:
        print(type(error).__name__)
"""


def lean(program: str, *arguments: str) -> list[str]:
    """The lines that a program prints in an interpreter which starts as a seed's does."""
    # A seed has no cryptography; the lab brings it here, and securesystemslib would use it.
    start = "import sys; sys.modules['cryptography'] = None; from phase.boot import start; start.lean()\n"
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", start + program, *arguments],
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_a_boot_never_uses_is_not_loaded() -> None:
    listed = lean("import phase.boot.main\nprint(*sorted(sys.modules), sep='\\n')")
    # A lazy module is there by name, and brings nothing.
    assert {"phase.boot.main", "phase.trust", "tuf.api.metadata", "inspect", "tempfile"} <= set(listed)
    assert not [name for name in HEAVY if name in listed]


def test_a_module_that_is_needed_after_all_is_whole() -> None:
    program = (
        "import phase.boot.main, traceback, tempfile, shutil, inspect\n"
        "print(inspect.signature(phase.boot.main.main))\n"
        "print(traceback.format_exception_only(ValueError('why'))[0].strip())\n"
        "print(tempfile.gettempprefix(), shutil.which.__name__)\n"
    )
    assert lean(program)[1:] == ["ValueError: why", "tmp which"]


def test_metadata_is_verified_as_ever(tmp_path: Path) -> None:
    """Signed by the root's keys it is believed; with a signature changed it is not."""
    made = Repository.create(tmp_path / "r", keys=ReleaseKeys.from_seed("lean"))
    (tmp_path / "kernel").write_bytes(b"kernel")
    made.add("stable", "x86_64", {"kernel": tmp_path / "kernel"}, release="1.0.0")
    made.publish()
    metadata = tmp_path / "r" / "metadata"
    assert lean(_REFRESH, str(metadata)) == ["1.0.0", "SignatureError"]
