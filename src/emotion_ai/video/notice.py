"""The notice on responsible use that the command `video` and the page show."""

LAW = "https://eur-lex.europa.eu/eli/reg/2024/1689/oj"
"""The EU's AI Act."""

NOTICE = (
    "Inform the people you record. The EU prohibits reading emotions at work and in education, except for medical or "
    "safety reasons:"
)
"""One line, to be followed by a link to `LAW`."""
