"""The command that starts the app: on this computer freely, for others only with sign-in."""

from __future__ import annotations

from pathlib import Path

import pytest

from labeling_app.launch import streamlit_command
from pipeline.errors import InputError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder and a home without secrets of anybody's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost"])
def test_this_computers_own_addresses_need_no_sign_in(address: str) -> None:
    assert address in streamlit_command(Path("w"), address=address)


@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.1.5", "lab.example"])
def test_an_address_that_others_reach_is_refused_without_sign_in(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\[auth\]"):
        streamlit_command(Path("w"), address=address)
    secrets = tmp_path / ".streamlit" / "secrets.toml"
    secrets.parent.mkdir()
    secrets.write_text("[auth\n")
    with pytest.raises(InputError, match=r"secrets\.toml"):
        streamlit_command(Path("w"), address=address)
    secrets.write_text('[auth]\nclient_id = "x"\n')
    assert address in streamlit_command(Path("w"), address=address)
