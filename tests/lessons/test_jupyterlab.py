"""What `make lab` starts: JupyterLab on the lessons, on this machine only, behind a token."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import release


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The command of the Makefile's `lab`, with this Python's JupyterLab; yields its first URL."""
    makefile = (release.ROOT / "Makefile").read_text()
    command = re.search(r"^lab:.*\n\t\$\(BIN\)/jupyter (.*) \$\(ARGS\)$", makefile, re.M).group(1)
    arguments = [*command.split(), "--no-browser", "--port=0", "--allow-root"]
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyter", *arguments],
        cwd=release.ROOT,
        env=os.environ | {"JUPYTER_CONFIG_DIR": str(tmp_path_factory.mktemp("config"))},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = (re.search(r"(http://\S+)/lab\?token=(\w+)", line) for line in process.stderr)
        url, token = next(line for line in lines if line).groups()
        wait_until_it_listens(url, process)
        yield url, token
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_until_it_listens(url, process, seconds=60):
    """It announces its address before it listens there."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return get(f"{url}/api")
        except urllib.error.URLError:
            assert process.poll() is None, "JupyterLab stopped"
            assert time.monotonic() < deadline, f"JupyterLab did not listen within {seconds} s"
            time.sleep(0.2)


def get(url):
    with urllib.request.urlopen(url, timeout=30) as response:
        return response.read().decode()


def test_it_serves_the_lessons(server):
    url, token = server
    assert url.startswith("http://127.0.0.1:")
    assert "<title>JupyterLab</title>" in get(f"{url}/lab?token={token}")
    listed = json.loads(get(f"{url}/api/contents?token={token}"))["content"]
    assert {"01-mathematics.ipynb", "02-from-scratch.ipynb"} <= {file["name"] for file in listed}


def test_it_needs_the_token(server):
    url, _ = server
    with pytest.raises(urllib.error.HTTPError, match="403"):
        get(f"{url}/api/contents")


def test_it_has_the_validate_button(server):
    url, token = server
    extensions = json.loads(get(f"{url}/lab/api/extensions?token={token}"))
    enabled = [extension["name"] for extension in extensions if extension["enabled"]]
    assert any("nbgrader" in name for name in enabled), enabled
    validator = get(f"{url}/nbgrader_version?version=0.9.6&token={token}")
    assert json.loads(validator)["success"]
