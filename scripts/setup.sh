# Sourced by the other scripts: creates .venv in the project's root, and installs the requirements file $1 into it.
source scripts/python.sh
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    "$PYTHON" -m venv .venv
    rm -f .venv/requirements*.txt # a new venv has nothing installed
fi
WANTED=$(cat requirements.txt "$1")
if [ "$WANTED" != "$(cat ".venv/$1" 2>/dev/null)" ]; then # what was installed last
    echo "installing $1 into .venv (torch is large: minutes on a slow line)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$1"
    echo "$WANTED" > ".venv/$1"
fi
