"""Notebook: tables in HTML, as notebooks show them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]], total: str) -> str:
    """Make an HTML table of texts, which are escaped, and a line of text below it, for notebooks.

    >>> html_table(["a"], [["<b>"]], "1 row")
    '<table><tr><th>a</th></tr><tr><td>&lt;b&gt;</td></tr></table><p>1 row</p>'
    """
    titles = "".join(f"<th>{html.escape(title)}</th>" for title in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><tr>{titles}</tr>{body}</table><p>{html.escape(total)}</p>"
