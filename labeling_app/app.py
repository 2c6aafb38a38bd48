"""The labelling app: its pages, and what is shown when something is wrong.

``recap label`` starts it, with the command that ``labeling_app.launch`` makes. All that lasts is in the label
store: a page that is closed, reloaded or killed loses nothing but a note that was not sent.
Text that people typed (tasks, names, notes) is shown as plain text, never as Markdown or HTML.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from labeling_app import adjudication_page, dashboard_page, iterations_page, label_page, review_page
from labeling_app.identity import Person, current_person
from labeling_app.opened import Opened, opened
from labeling_app.plain_text import plain
from pipeline.errors import Failure, InputError

# Less empty space than Streamlit leaves, so that film, timeline and answers fit on a small screen.
STYLE = """<style>
.stMainBlockContainer { padding: 4.2rem 2.5rem 1rem; max-width: 110rem; }
[data-testid=stSidebarHeader] { height: 2.5rem; margin-bottom: 0; }
[data-testid=stSidebarUserContent] { padding-bottom: 1rem; }
</style>"""

Draw = Callable[[Opened, Person], None]


def main() -> None:
    """Draws the page that the address names."""
    st.set_page_config("Label episodes", page_icon=":material/label:", layout="wide")
    st.html(STYLE)
    try:
        shared = opened()
        person = current_person(shared.workspace)
        st.navigation(pages(shared, person), position="top").run()
    except (InputError, Failure) as error:
        show_problem(str(error))
    except (sqlite3.Error, OSError) as error:
        show_problem(f"The workspace cannot be used as it is: {error}.")


def pages(shared: Opened, person: Person) -> list[StreamlitPage]:
    """The pages that this person may see."""

    def page(draw: Draw, title: str, icon: str, path: str) -> StreamlitPage:
        careful_draw = partial(careful, draw, shared, person)
        return st.Page(careful_draw, title=title, icon=icon, url_path=path, default=path == "label")

    review = page(review_page.draw, "Review", ":material/query_stats:", "review")
    over_iterations = partial(iterations_page.draw, review=review)
    found = [
        page(label_page.draw, "Label", ":material/label:", "label"),
        review,
        page(dashboard_page.draw, "Dashboard", ":material/dashboard:", "dashboard"),
        page(over_iterations, "Iterations", ":material/trending_up:", "iterations"),
    ]
    if person.reviewer:
        found.insert(2, page(adjudication_page.draw, "Adjudicate", ":material/balance:", "adjudicate"))
    return found


def careful(draw: Draw, shared: Opened, person: Person) -> None:
    """Draws a page; what is wrong with files or the label store becomes one line with what to do."""
    try:
        draw(shared, person)
    except (InputError, Failure) as error:
        show_problem(str(error))
    except (sqlite3.Error, OSError) as error:
        show_problem(f"The workspace cannot be used as it is: {error}.")


def show_problem(problem: str) -> None:
    """One clear message and a way to go on."""
    st.error(plain(problem))
    st.button("Try again", icon=":material/refresh:", key="again")


if __name__ == "__main__":  # as Streamlit runs it
    main()
