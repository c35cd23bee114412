"""The wheel: what is in it, and whether it works in an empty environment."""

from __future__ import annotations

import email
import pathlib
import re
import subprocess
import sys
import zipfile

import pytest

from provider import MSAL_VERSION

FOLDER = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    target = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--sdist", "--no-isolation", "--outdir", str(target), str(FOLDER)],
        check=True,
        capture_output=True,
    )
    [wheel] = target.glob("*.whl")
    assert [path.name for path in target.glob("*.tar.gz")] == ["msal_logout-0.1.0.tar.gz"]
    return wheel


def test_what_is_in_it(wheel: pathlib.Path) -> None:
    assert wheel.name == "msal_logout-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = sorted(archive.namelist())
        texts = {name: archive.read(name).decode() for name in names}
    sources = {f"msal_logout/{path.name}" for path in (FOLDER / "src/msal_logout").iterdir() if path.is_file()}
    information = "msal_logout-0.1.0.dist-info"
    assert set(names) == sources | {
        f"{information}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")
    }
    assert "msal_logout/py.typed" in names
    metadata = email.message_from_string(texts[f"{information}/METADATA"])
    assert metadata["Name"] == "msal-logout"
    assert metadata["License-Expression"] == "ISC"
    assert metadata.get_all("Requires-Dist") == ["msal>=1.21"]
    assert texts[f"{information}/licenses/LICENSE"] == (FOLDER.parents[1] / "LICENSE").read_text()
    for name, text in texts.items():
        assert not re.search(r"/(home|root|tmp)/", text), name


def test_it_works_in_an_empty_environment(wheel: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """With MSAL as its only dependency, and what MSAL brings along."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "empty")], check=True)
    python = str(tmp_path / "empty/bin/python")
    msal = f"msal=={MSAL_VERSION[0]}.{MSAL_VERSION[1]}.*"
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(wheel), msal], check=True)
    script = """
import os
import msal_logout
from msal_logout.encoding import Codec, Place

codec = Codec(msal_logout.Encryption("k", {"k": os.urandom(32)}), print)
place = Place("a", "b", "1")
assert codec.decode(codec.encode("{}", place), place) == b"{}"
try:
    msal_logout.SharedTokenCache("postgres://", "client")
except msal_logout.TokenCacheMisuse as error:
    print(error.code, sorted(msal_logout.__all__)[:2])
for name in ("flask", "django", "psycopg", "psycopg2"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} is installed")
"""
    # Elsewhere, and without this folder's sources on the path.
    result = subprocess.run([python, "-I", "-c", script], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert result.stderr == ""
    assert result.stdout == "ERR_TOKEN_CACHE_MISUSE ['AssertionCache', 'DatabaseFailed']\n"
