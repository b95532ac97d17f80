# Sourced by the other scripts: sets PYTHON to Python 3.10 or newer, from the variable PYTHON or else from the path.
PYTHON=${PYTHON:-$(command -v python3 || command -v python || true)}
if ! "${PYTHON:-false}" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "Python 3.10 or newer is needed; point PYTHON at one, as in PYTHON=python3.12 bash $0" >&2
    exit 2
fi
