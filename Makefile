# make lab    both architectures' scenarios, then the report
# make test   style, types, unit tests, then the loop on both architectures
# Either one sets the machine up first; `python3 -m lab doctor` says what that takes.
PYTHON ?= python3
TOX = .venv/bin/tox run

.PHONY: lab test report clean setup
.DEFAULT_GOAL := lab

setup:
	@sh lab/doctor/bootstrap.sh $(PYTHON)

# The report is made of what there is, red or green; the scenarios' own status is what make ends with.
lab: setup
	@status=0; \
	$(TOX) -e lab-x86_64,lab-arm64 || status=$$?; \
	$(TOX) -q -e report || status=$$?; \
	exit $$status

test: setup
	@status=0; \
	$(TOX) -e lint,unit || status=$$?; \
	$(TOX) -e lab-x86_64,lab-arm64 -- scenarios/test_loop.py || status=$$?; \
	$(TOX) -q -e report || status=$$?; \
	exit $$status

report: setup
	@$(TOX) -q -e report

clean:
	@$(PYTHON) -m lab clean
