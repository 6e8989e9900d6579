"""One HTML file that holds everything, and the same numbers as JSON."""

import base64
import io
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1b1d24; --paper: #fff; --line: #d8dbe2; --soft: #f4f5f8; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e8eaf0; --paper: #15171d; --line: #343843; --soft: #1e2129; }} }}
body {{ font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
        margin: 0 auto; padding: 1.5rem; max-width: 64rem; }}
h1 {{ font-size: 1.6rem; margin: 0 0 .25rem; }} h2 {{ font-size: 1.15rem; margin: 2rem 0 .5rem; }}
.heads {{ display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0; }}
.head {{ background: var(--soft); border-radius: .6rem; padding: .8rem 1.1rem; flex: 1 1 12rem; }}
.head b {{ font-size: 1.2rem; display: block; white-space: nowrap; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
td, th {{ border-bottom: 1px solid var(--line); padding: .3rem .8rem .3rem 0; text-align: left; }}
td.n {{ text-align: right; font-variant-numeric: tabular-nums; white-space: pre; }}
img {{ max-width: 100%; height: auto; background: #fff; border-radius: .4rem; margin: .5rem 0; }}
pre {{ background: var(--soft); padding: .8rem; border-radius: .4rem; overflow-x: auto; font-size: .85rem; }}
</style>
<h1>{title}</h1><p>{subtitle}</p>
<div class="heads">{heads}</div>
{tables}
{pictures}
<h2>How to repeat it</h2><pre>{command}</pre>
<h2>The checkpoint's own record</h2><pre>{record}</pre>
</html>
"""


def write_report(
    path: Path,
    title: str,
    subtitle: str,
    heads: dict[str, str],
    tables: dict[str, dict[str, Any]],
    pictures: dict[str, Figure],
    command: str,
    record: str,
) -> None:
    """Writes the page; the figures are embedded and closed.

    Args:
        heads: headline figures by name, as text.
        tables: by heading, rows of name and value.
        pictures: by heading.
        command: what repeats the evaluation.
        record: what the checkpoint says of itself.
    """
    page = _PAGE.format(
        title=escape(title),
        subtitle=escape(subtitle),
        heads="".join(f'<div class="head">{escape(n)}<b>{escape(v)}</b></div>' for n, v in heads.items()),
        tables="".join(f"<h2>{escape(name)}</h2>{_table(rows)}" for name, rows in tables.items()),
        pictures="".join(f"<h2>{escape(name)}</h2>{_image(figure, name)}" for name, figure in pictures.items()),
        command=escape(command),
        record=escape(record),
    )
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page)
    partial.replace(path)


def _table(rows: dict[str, Any]) -> str:
    cells = "".join(f'<tr><td>{escape(str(n))}<td class="n">{escape(_shown(v))}' for n, v in rows.items())
    return f"<table>{cells}</table>"


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _image(figure: Figure, name: str) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'
