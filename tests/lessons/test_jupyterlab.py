"""What `make lab` starts: JupyterLab on the lessons, on this machine only, behind a token."""

import json
import urllib.error
import urllib.request

import pytest
import release


@pytest.fixture(scope="module")
def server(start_lab):
    return start_lab(release.ROOT)


def get(url):
    with urllib.request.urlopen(url, timeout=30) as response:
        return response.read().decode()


def test_it_serves_the_lessons(server):
    url, token = server
    assert url.startswith("http://127.0.0.1:")
    assert "<title>JupyterLab</title>" in get(f"{url}/lab?token={token}")
    listed = json.loads(get(f"{url}/api/contents/dora?token={token}"))["content"]
    assert {"01-mathematics.ipynb", "02-from-scratch.ipynb"} <= {file["name"] for file in listed}
    listed = json.loads(get(f"{url}/api/contents?token={token}"))["content"]
    assert [file["name"] for file in listed if file["type"] == "notebook"] == ["00-start.ipynb"]


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
