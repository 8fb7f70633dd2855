#!/bin/sh
# Finds a Python that is new enough, installs one where it may, and hands over to `lab.doctor setup`.
# The only part of the set-up that cannot itself be Python.
# usage: bootstrap.sh PYTHON [OPTIONS of `python3 -m lab.doctor setup`]
set -eu
cd "$(dirname "$0")/../.."

new_enough() {
    command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

choose() {
    for python in "$@" /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
        if new_enough "$python"; then
            echo "$python"
            return 0
        fi
    done
    return 1
}

wanted=${1:-python3}
[ $# -eq 0 ] || shift
if ! python=$(choose "$wanted"); then
    command="apt-get update && apt-get install -y --no-install-recommends python3-venv"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update >&2 && apt-get install -y --no-install-recommends python3-venv >&2
    elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n apt-get update >&2 && sudo -n apt-get install -y --no-install-recommends python3-venv >&2
    else
        echo "phase: Python 3.11 or newer is needed. On Debian, run as root:" >&2
        echo "  $command" >&2
        exit 1
    fi
    python=$(choose python3) || { echo "phase: this system's Python is older than 3.11." >&2; exit 1; }
fi
exec "$python" -m lab.doctor setup "$@"
