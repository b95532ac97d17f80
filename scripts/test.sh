#!/usr/bin/env bash
# Sets up a virtual environment, lints, and runs the tests. Arguments go to pytest: bash scripts/test.sh -k attention
# With --long it runs the long tests instead: 200 kills of running commands, a quarter of an hour.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh requirements-dev.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
if [ "${1:-}" = --long ]; then
    shift
    set -- -m long -s "$@"
fi
.venv/bin/python -m pytest "$@"
