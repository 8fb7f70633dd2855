"""The seed's first lines: what the libraries would load, and a boot does not use, is left out.

Where a machine is emulated, or its board is slow, a third of the time until this program does anything is
Python loading what it will not run. Nothing is replaced here: it is only decided which modules of the
standard library and of TUF's are loaded, and when.
"""

import sys
from types import ModuleType

from phase.later import load_later

#: Modules that others import at their start, and use where a boot does not come: to write files, to print a
#: trace, to describe a class without a description.
_LATER = ("inspect", "shutil", "tempfile", "traceback")


def lean() -> None:
    """Leave out what no boot uses. Comes before the first import of `phase.trust`."""
    load_later(*_LATER)
    _without_signers()


def _without_signers() -> None:
    """Make `securesystemslib.signer` from its parts, without its signers.

    The package loads a signer for each cloud, for GnuPG and for hardware, and with them two fifths of all
    that this program imports. A seed signs nothing, and `phase.trust.keys` says by which keys it verifies.
    """
    import securesystemslib

    package = ModuleType("securesystemslib.signer")
    package.__path__ = [f"{place}/signer" for place in securesystemslib.__path__]
    sys.modules[package.__name__] = package
    from securesystemslib.signer._key import KEY_FOR_TYPE_AND_SCHEME, Key, SSlibKey
    from securesystemslib.signer._signature import Signature
    from securesystemslib.signer._signer import SIGNER_FOR_URI_SCHEME, Signer

    for name, part in {
        "KEY_FOR_TYPE_AND_SCHEME": KEY_FOR_TYPE_AND_SCHEME,
        "SIGNER_FOR_URI_SCHEME": SIGNER_FOR_URI_SCHEME,
        "Key": Key,
        "SSlibKey": SSlibKey,
        "Signature": Signature,
        "Signer": Signer,
    }.items():
        setattr(package, name, part)


def main() -> int:
    """Boot this machine; see `phase.boot.main`."""
    lean()
    from phase.boot.main import main

    return main()
