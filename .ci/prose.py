"""Prints phrases that our prose does without, with their places, and exits with 1 if there are any."""

import re
import sys
from pathlib import Path

PHRASES = {
    r"wanted (is|are)": "must be",
    r"(is|are|was|were) (told|asked|judged)": "name the subject: the server loads, evaluate reports",
    r"of one's own": "own, separate",
    r"as it comes": "unchanged",
    r"mend(s|ed|ing)?": "fix",
    r"the (whole )?road": "the pipeline, end to end",
    r"twins": "duplicates",
    r"drawn faces": "synthetic faces",
    r"faces for choices": "the validation split",
    r"reported faces": "the test split",
    r"nothing was said": "no output",
    r"(is|are) none from \d+ to \d+": "must be between",
}
PLACES = ("*.md", "*.cff", "conf", "docs", "export", "notebooks", "src", "tests")
SUFFIXES = {".cff", ".ipynb", ".md", ".py", ".yaml"}
GAP = r"(?:\s|#|\\n|\"|,\n)+"  # words may stand on two lines of a comment or a notebook


def main() -> int:
    patterns = {re.compile(rf"\b{each.replace(' ', GAP)}\b", re.IGNORECASE): hint for each, hint in PHRASES.items()}
    files = [file for place in PLACES for path in Path().glob(place) for file in (path, *path.rglob("*"))]
    found = 0
    for file in sorted({file for file in files if file.suffix in SUFFIXES and file.is_file()}):
        text = file.read_text()
        for pattern, hint in patterns.items():
            for match in pattern.finditer(text):
                found += 1
                print(f"{file}:{text.count(chr(10), 0, match.start()) + 1}: {' '.join(match[0].split())!r}: {hint}")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
