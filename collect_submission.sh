#!/usr/bin/env bash
# Packs the assignment's files into assignment5.zip, after a table of what is there and what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
PYTHON=.venv/bin/python
[ -x $PYTHON ] || PYTHON=$(command -v python3 || command -v python || true)
if ! "${PYTHON:-false}" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "Python 3.10 or newer is needed" >&2
    exit 2
fi
exec "$PYTHON" scripts/collect_submission.py "$@"
