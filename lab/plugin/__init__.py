"""The pytest plugin: the `lab` fixture, leases, evidence with every failure, a record of every scenario.

pytest finds it by itself where Phase is installed with its extra `lab`; `-p lab.plugin` and
`pytest_plugins = ["lab.plugin"]` name it elsewhere. With `-n 2` scenarios run side by side, as far as the
host carries them: `@pytest.mark.lab(vcpus=2, memory=1024)` says what one needs, when it is not
`lab.leases.Need`'s defaults; `group="name"` keeps scenarios on one worker, and `seconds=100` says how long
one takes where no earlier run has told.
"""

import pytest

try:
    from lab.plugin.hooks import (
        Retries,
        board,
        lab,
        module_lab,
        pytest_addoption,
        pytest_collection_finish,
        pytest_collection_modifyitems,
        pytest_configure,
        pytest_configure_node,
        pytest_report_teststatus,
        pytest_runtest_call,
        pytest_runtest_makereport,
        pytest_runtest_protocol,
        pytest_runtest_setup,
        record,
    )
    from lab.plugin.recording import Record
    from lab.topology import Lab
except ModuleNotFoundError as _error:
    if (_error.name or "").partition(".")[0] in ("lab", "phase"):
        raise
    _missing = _error.name

    # Where Phase was installed without the lab, pytest must go on as if nothing was there.
    @pytest.fixture
    def lab() -> None:
        """Says what is missing."""
        pytest.fail(f"the lab needs {_missing}; in Phase's checkout: pip install '.[lab]'", pytrace=False)


__all__ = [
    "Lab",
    "Record",
    "Retries",
    "board",
    "lab",
    "module_lab",
    "pytest_addoption",
    "pytest_collection_finish",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_configure_node",
    "pytest_report_teststatus",
    "pytest_runtest_call",
    "pytest_runtest_makereport",
    "pytest_runtest_protocol",
    "pytest_runtest_setup",
    "record",
]
