"""The text of a `models.config`, in which single entries can be replaced while all else stays: comments, too."""

import re

_TOKEN = re.compile(r"""#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\w+|[^\s]""")
_OPEN, _CLOSE = "{<", "}>"


def entry_spans(text: str) -> list[tuple[int, int]] | None:
    """Where the entries of `model_config_list` stand, each from `config` to its closing bracket.

    Returns:
        None if the text is not laid out in the usual way, for example with a list in square brackets.
    """
    spans: list[tuple[int, int]] = []
    names: list[str] = []  # of the open messages
    name, start = "", 0
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word.startswith("#") or word == ":":
            continue
        if word in _OPEN:
            names.append(name)
        elif word in _CLOSE and names:
            if names == ["model_config_list", "config"]:
                spans.append((start, token.end()))
            names.pop()
        elif word == "[" and len(names) < 2:
            return None
        else:
            name = word
            if len(names) == 1:
                start = token.start()
    return spans


def replaced(text: str, entries: dict[int, str]) -> str | None:
    """The text with other entries at some positions; None if their places cannot be told."""
    spans = entry_spans(text)
    if spans is None or not all(position < len(spans) for position in entries):
        return None
    for position in sorted(entries, reverse=True):
        start, end = spans[position]
        text = text[:start] + entries[position] + text[end:]
    return text
