#!/usr/bin/env bash
# Make the virtual environment and install the lab into it: set_up.sh . for a student,
# set_up.sh .[grading] for an instructor, .[book] for the reading version, .[test] for all.
# Where that was done before, and nothing has changed since, this ends at once.
# A failure ends with one sentence and leaves nothing that the next call could trip over.
#   VENV=.venv-3.13   installs into another folder than .venv
#   TORCH=cpu         takes PyTorch's CPU build, which is much smaller, where pip would take CUDA's
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
VENV=${VENV:-.venv}
CPU_BUILDS=https://download.pytorch.org/whl/cpu

# What other projects set up for themselves must not decide where this one is installed.
unset PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT

fail() { printf '\n%s\n' "$1" >&2; exit 1; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
tested() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

# attempt WHAT COMMAND...: run, show the output as it comes, and on failure say why in a sentence.
attempt() {
    local what=$1 output; shift
    # Not "tee /dev/stderr", which would empty the file that a log is written to. 3>&1: wait for cat.
    output=$("$@" 2>&1 | tee >(cat 3>&1 >&2)) && return
    case $output in
        *"No space left on device"*)
            fail "$what failed: the disk is full. Free about 3 GB, then call make again." ;;
        *NameResolutionError*|*NewConnectionError*|*"Connection refused"*|*"timed out"*|*ProxyError*|*"Network is unreachable"*)
            fail "$what failed: the package index could not be reached. Check the network or PIP_INDEX_URL, then call make again." ;;
        *ensurepip*)
            fail "$what failed: this Python has no venv module. On Debian or Ubuntu: sudo apt install python3-venv, then call make again." ;;
    esac
    fail "$what failed: the messages above say why. Then call make again."
}

# What an installation was made for. Its scripts name its folder, and its packages one Python, so
# after a move of the folder or an upgrade of Python it has to be made anew.
made_for() { printf '%s, %s' "$PWD" "$("$VENV/bin/python" --version 2>&1)"; }

case $1 in
    *test*) stamp=test also="lab grading book" ;;
    *book*) stamp=book also="lab grading" ;;
    *grading*) stamp=grading also=lab ;;
    *) stamp=lab also= ;;
esac
stamp=$VENV/$stamp.stamp
fitting() { [ ! -e "$VENV/unfinished" ] && [ "$(cat "$VENV/made-for" 2>/dev/null)" = "$(made_for)" ]; }
if fitting && [ -e "$stamp" ] && [ ! pyproject.toml -nt "$stamp" ] && [ ! constraints.txt -nt "$stamp" ] &&
    [ ! scripts/configure.py -nt "$stamp" ]; then
    exit 0
fi

# $VENV/unfinished is there while an installation runs. Found at the start, the last one was cut
# short, and an environment that may be half-written is made anew.
if ! fitting || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" >/dev/null || fail "PYTHON is $PYTHON, which is not a program. Name a Python 3.11 or newer."
        new_enough "$PYTHON" || fail "PYTHON is $PYTHON, which is $("$PYTHON" --version 2>&1). The lab needs Python 3.11 or newer."
    else
        for name in python3 python3.13 python3.12 python3.11; do
            if tested "$name"; then PYTHON=$name; break; fi
        done
        if [ -z "${PYTHON:-}" ] && new_enough python3; then PYTHON=python3; fi
        [ -n "${PYTHON:-}" ] || fail "The lab needs Python 3.11 or newer, and found $(python3 --version 2>/dev/null || echo none). Install one from https://www.python.org/downloads/, then call make again."
    fi
    tested "$PYTHON" || echo "The lab was tested with Python 3.11 to 3.13, and this is $("$PYTHON" --version 2>&1)."
    attempt "Making $VENV" "$PYTHON" -m venv --clear "$VENV"
fi
touch "$VENV/unfinished" || fail "Making $VENV failed: it cannot be written to."

index=()
echo "Installing the lab into $VENV; the first time takes some minutes."
case $(uname -s) in
    Linux)
        if [ "${TORCH:-}" = cpu ]; then
            index=(--extra-index-url "$CPU_BUILDS")
            echo "PyTorch's CPU build is about 200 MB."
        else
            echo "On Linux, pip usually takes PyTorch with CUDA: about 3 GB to download. The lab needs no GPU:"
            echo "make TORCH=cpu ... takes the CPU build, about 200 MB. Stop with Ctrl+C to choose it."
        fi ;;
esac
attempt "Installing the lab" "$VENV/bin/python" -m pip install --disable-pip-version-check \
    --no-user --retries 2 ${index[@]+"${index[@]}"} --constraint constraints.txt --editable "$1"
attempt "Registering the kernel" "$VENV/bin/python" -m ipykernel install \
    --prefix "$VENV" --name python3 --display-name "DoRA Lab (Python 3)"

attempt "Configuring JupyterLab" "$VENV/bin/python" scripts/configure.py "$VENV"

touch "$stamp"
for other in $also; do touch "$VENV/$other.stamp"; done
made_for > "$VENV/made-for"
rm "$VENV/unfinished"
