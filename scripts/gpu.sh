#!/usr/bin/env bash
# Tests and times the project on one GPU, in at most nine minutes and without a network. Installs nothing.
# usage: bash scripts/gpu.sh [--out FOLDER] [--tiny]     --help says more
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/python.sh
exec "$PYTHON" scripts/gpu.py "$@"
