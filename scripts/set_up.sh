#!/usr/bin/env bash
# Make .venv and install the lab into it: set_up.sh . for a student,
# set_up.sh .[grading] for an instructor, .[book] for the reading version, .[test] for all.
# A failure ends with one sentence and leaves nothing that the next call could trip over.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

fail() { printf '\n%s\n' "$1" >&2; exit 1; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# attempt WHAT COMMAND...: run, show the output as it comes, and on failure say why in a sentence.
attempt() {
    local what=$1 output; shift
    output=$("$@" 2>&1 | tee /dev/stderr) && return
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

if [ -n "${PYTHON:-}" ]; then
    command -v "$PYTHON" >/dev/null || fail "PYTHON is $PYTHON, which is no program. Name a Python 3.11 or newer."
    new_enough "$PYTHON" || fail "PYTHON is $PYTHON, which is $("$PYTHON" --version 2>&1). The lab needs Python 3.11 or newer."
else
    for name in python3 python3.13 python3.12 python3.11; do
        if new_enough "$name"; then PYTHON=$name; break; fi
    done
    [ -n "${PYTHON:-}" ] || fail "The lab needs Python 3.11 or newer, and found $(python3 --version 2>/dev/null || echo none). Install one from https://www.python.org/downloads/, then call make again."
fi

# .venv/unfinished is there while an installation runs. Found at the start, the last one was cut
# short, and an environment that may be half-written is made anew.
if [ -e .venv/unfinished ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    attempt "Making .venv" "$PYTHON" -m venv --clear .venv
fi
touch .venv/unfinished || fail "Making .venv failed: it cannot be written to."

echo "Installing the lab into .venv; the first time takes some minutes."
attempt "Installing the lab" .venv/bin/python -m pip install --disable-pip-version-check \
    --retries 2 --constraint constraints.txt --editable "$1"
attempt "Registering the kernel" .venv/bin/python -m ipykernel install \
    --prefix .venv --name python3 --display-name "DoRA Lab (Python 3)"

# JupyterLab asks at its first start whether it may fetch news; the lab opens without a question. And
# without those panels of nbgrader that it has no use for: lessons are written as text, and handed out
# and in by other ways than nbgrader's exchange.
settings=.venv/share/jupyter/lab/settings
mkdir -p $settings && echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}' \
    > $settings/overrides.json && cat > $settings/page_config.json <<'END' \
    || fail "Configuring JupyterLab failed: $settings cannot be written."
{"disabledExtensions": {
    "@jupyter/nbgrader:create-assignment": true,
    "@jupyter/nbgrader:assignment-list": true,
    "@jupyter/nbgrader:course-list": true
}}
END

touch .venv/lab.stamp
case $1 in
    *test*) touch .venv/test.stamp .venv/grading.stamp .venv/book.stamp ;;
    *book*) touch .venv/book.stamp .venv/grading.stamp ;;
    *grading*) touch .venv/grading.stamp ;;
esac
rm .venv/unfinished
