"""Who is at the page, and what they may do: a picked name on this computer, a signed-in account elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from labeling_app.labeling_queue import LONGEST_NAME, annotator_name
from labeling_app.launch import is_loopback
from labeling_app.plain_text import plain
from pipeline.errors import InputError
from pipeline.site_config import load_site_config
from pipeline.workspace import Workspace


@dataclass(frozen=True)
class Person:
    """Somebody at a page. Reviewers also see other people's labels, and decide where they differ."""

    name: str
    reviewer: bool


def current_person(workspace: Workspace) -> Person:
    """Who is at the page; stops the script at a form that asks for it."""
    name = current_name()
    reviewers = load_site_config(workspace.config_path).labels.reviewers
    return Person(name, is_reviewer(name, reviewers, on_this_computer=serves_this_computer_only()))


def is_reviewer(name: str, reviewers: tuple[str, ...], *, on_this_computer: bool) -> bool:
    """Whether that person is a reviewer: ``[labels] reviewers`` names them; on one's own computer all are."""
    return name in reviewers or (on_this_computer and not reviewers)


def serves_this_computer_only() -> bool:
    """Whether the server's address is one that only this computer reaches."""
    return is_loopback(st.get_option("server.address"))


def current_name() -> str:
    """A typed name on this computer only, and a signed-in account's address on any network."""
    if serves_this_computer_only():
        return picked_name()
    try:
        signed_in = bool(st.user.is_logged_in)
    except AttributeError:  # no identity provider is configured
        st.error(
            "This page can be reached over the network, so people have to sign in: configure `[auth]` in "
            "`.streamlit/secrets.toml`, or start it with `--server.address 127.0.0.1`."
        )
        st.stop()
    if not signed_in:
        st.title("Label episodes")
        st.button("Sign in", type="primary", on_click=st.login)
        st.stop()
    return annotator_name(str(st.user.email))


def picked_name() -> str:
    """The name in the page's address, so that reloading keeps it; asks for one first."""
    # Going to another page empties the address, but not the session.
    if "name" not in st.query_params and "name" in st.session_state:
        st.query_params["name"] = st.session_state["name"]
    if "name" in st.query_params:
        try:
            name = annotator_name(st.query_params["name"])
        except InputError:
            del st.query_params["name"]
        else:
            st.session_state["name"] = name
            return name
    _, middle, _ = st.columns([1, 2, 1])
    with middle, st.form("who"):
        st.title("Label episodes")
        st.write("You will see short films of a robot at work and say whether it did its task.")
        typed = st.text_input("Your name", max_chars=LONGEST_NAME, placeholder="as your colleagues know you")
        if st.form_submit_button("Start", type="primary", width="stretch"):
            try:
                st.query_params["name"] = annotator_name(typed)
            except InputError as error:
                st.error(f"Please type your name: {plain(str(error))}.")
                st.stop()
            st.rerun()
    st.stop()
