"""What may be asked of a repository: laws of names, paths and addresses."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.errors import UsageError
from handrail.kits.deploys import sourcing
from handrail.kits.deploys.sourcing import Where
from support.app_repositories import git_program

NAMES = st.text(st.sampled_from("ab/.-@{~^:?*[\\ lock\x00\x7f\u00e9"), max_size=12)
WORDS = st.text(st.characters(exclude_characters="\n"), min_size=1)


def is_taken(name: str) -> bool:
    try:
        sourcing.check_ref(name)
    except UsageError:
        return False
    return True


@settings(max_examples=60, deadline=None)
@given(NAMES.filter(is_taken))
def test_what_is_taken_for_a_ref_is_one_for_git(name: str) -> None:
    """Nothing is asked of git that it would read as anything but a branch's name."""
    words = [git_program(), "check-ref-format", f"refs/heads/{name}"]
    assert subprocess.run(words, check=False, timeout=30).returncode == 0


@given(NAMES)
def test_a_path_is_straight_or_refused(name: str) -> None:
    """What is given back is what was asked, and leads nowhere else."""
    try:
        found = sourcing.check_path(name)
    except UsageError:
        return
    assert str(found) == name
    assert not {"..", ".", ".git"} & set(found.parts)


@given(st.sampled_from(["https", "http", "ssh", "HTTPS", "ftp", "x"]), WORDS, WORDS)
def test_what_stands_before_the_host_is_never_shown(scheme: str, user: str, word: str) -> None:
    """Neither a user's name nor a password, whatever characters are in them."""
    shown = sourcing.masked(f"fatal: unable to access '{scheme}://{user}:{word}@host/x': no")
    assert shown.startswith(f"fatal: unable to access '{scheme}://***@")


@given(st.text(max_size=60))
def test_no_text_is_an_address_with_a_password(text: str) -> None:
    """Whatever is declared is refused, or could be shown to anybody."""
    try:
        found = sourcing.read_repository(text)
    except UsageError:
        return
    assert found.address == text
    assert not text.startswith("-")
    assert found.transport in {"https", "http", "ssh", "file"}


@pytest.mark.parametrize(
    ("text", "transport"),
    [
        ("https://git.example/team/shop.git", "https"),
        ("https://ana@git.example:8443/team/shop.git", "https"),
        ("https://[2001:db8::1]/shop", "https"),
        ("http://127.0.0.1:3000/shop", "http"),
        ("http://localhost/shop", "http"),
        ("ssh://git@git.example:2222/team/shop.git", "ssh"),
        ("git@git.example:team/shop.git", "ssh"),
        ("git.example:shop", "ssh"),
        ("../shop", "file"),
        ("/srv/git/shop.git", "file"),
        ("./a:b", "file"),
        ("shop", "file"),
    ],
)
def test_addresses_are_read_as_git_reads_them(text: str, transport: str) -> None:
    """As they stand in `git clone`."""
    found = sourcing.read_repository(text)
    assert (found.transport, found) == (transport, Where(found.transport, text))
