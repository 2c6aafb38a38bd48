"""Who is labelling: a picked name on this computer, a signed-in account where others reach the page."""

from __future__ import annotations

import streamlit as st

from labeling_app.labeling_queue import LONGEST_NAME, annotator_name
from labeling_app.launch import is_loopback
from pipeline.errors import InputError


def current_annotator() -> str:
    """Who is labelling: a typed name on this computer only, and a signed-in account on any network."""
    if is_loopback(st.get_option("server.address")):
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
    if "name" in st.query_params:
        try:
            return annotator_name(st.query_params["name"])
        except InputError:
            del st.query_params["name"]
    _, middle, _ = st.columns([1, 2, 1])
    with middle, st.form("who"):
        st.title("Label episodes")
        st.write("You will see short films of a robot at work and say whether it did its task.")
        typed = st.text_input("Your name", max_chars=LONGEST_NAME, placeholder="as your colleagues know you")
        if st.form_submit_button("Start", type="primary", width="stretch"):
            try:
                st.query_params["name"] = annotator_name(typed)
            except InputError as error:
                st.error(f"Please type your name: {error}.")
                st.stop()
            st.rerun()
    st.stop()
