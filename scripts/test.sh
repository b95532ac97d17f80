#!/usr/bin/env bash
# Sets up a virtual environment, lints, and runs the tests. Arguments go to pytest: bash scripts/test.sh -k attention
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh requirements-dev.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/python -m pytest "$@"
