# make lab       the loop, on an emulated x86_64 and an emulated ARM64 machine side by side; ARCH=arm64 for one alone
# make lab-all   every scenario on both, then the report
# make test      style, types, unit tests, then the scenarios of the loop
# Each sets the machine up first; `python3 -m lab doctor` says what that takes.
PYTHON ?= python3
TOX = .venv/bin/tox run
SETUP = sh lab/doctor/bootstrap.sh $(PYTHON)
NEXT = "" "What to try next:" \
	"  make lab-all                        every scenario on both architectures" \
	"  make lab ARCH=arm64                 the loop on one architecture alone" \
	"  .venv/bin/tox run -e lab-x86_64 -- scenarios/test_hostile_lan.py   some scenarios" \
	"  .tox/loop/bin/python -m lab up scenarios/test_loop.py::test_boots_by_mdns   machines that stay on" \
	"  .venv/bin/tox run -e lab-arm64 -- --board FILE   the same on a real board: docs/lab/boards.md"

.PHONY: lab lab-all test report clean setup
.DEFAULT_GOAL := lab

setup:
	@$(SETUP)
	@echo "This machine is ready: .venv/bin/tox runs the tests, and make lab runs the loop."

# The report is made of what there is, red or green; the scenarios' own status is what make ends with.
lab:
	@$(SETUP) --for loop $(ARCH:%=--arch %)
	@status=0; \
	$(TOX) -q -e loop -- $(ARCH:%=--lab-arch=%) || status=$$?; \
	$(TOX) -q -e report || status=$$?; \
	printf '%s\n' $(NEXT); \
	exit $$status

lab-all:
	@$(SETUP) --for scenarios
	@status=0; \
	$(TOX) -e lab || status=$$?; \
	$(TOX) -q -e report || status=$$?; \
	exit $$status

test: setup
	@status=0; \
	$(TOX)-parallel -o -p 2 -e lint,unit || status=$$?; \
	$(TOX) -e lab -- scenarios/test_loop.py || status=$$?; \
	$(TOX) -q -e report || status=$$?; \
	exit $$status

report:
	@$(SETUP) --for loop
	@$(TOX) -q -e report

clean:
	@$(PYTHON) -m lab clean
