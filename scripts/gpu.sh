#!/usr/bin/env bash
# Tests and times the project on one GPU, in at most nine minutes and without a network. Installs nothing.
# usage: bash scripts/gpu.sh [--out FOLDER] [--tiny]     --help says more
set -euo pipefail
SCRIPTS=$(dirname "${BASH_SOURCE[0]}")
source "$SCRIPTS/python.sh"
exec "$PYTHON" "$SCRIPTS/gpu.py" "$@"
