#!/usr/bin/env bash
# Packs the files of the assignment into the archive of its year, after a table of what is there and what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
[ -x .venv/bin/python ] && PYTHON=${PYTHON:-.venv/bin/python}
source scripts/python.sh
exec "$PYTHON" scripts/collect_submission.py "$@"
