"""What the page shows, as HTML that holds its pictures and files itself: nothing is written to be shown."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.contract import EMOTIONS, KEYPOINTS
from emotion_ai.errors import (
    ClientError,
    EmotionAIError,
    ImageError,
    ModelNotFoundError,
    NoFaceError,
    ServerTimeoutError,
    ServerUnreachableError,
)
from emotion_ai.inference.drawing import annotate
from emotion_ai.inference.results import COLUMNS, FaceReading
from emotion_ai.inference.tables import csv_text, deviation_row, face_rows
from emotion_ai.vision.crops import crop
from emotion_ai.web.session import Answer, DetectedFaces, Difference, Published, in_shown_pixels

_THUMBNAIL = 112  # pixels
_TITLES: tuple[tuple[type[EmotionAIError], str], ...] = (
    (NoFaceError, "No face found"),
    (ImageError, "This picture cannot be read"),
    (ServerUnreachableError, "The server is gone"),
    (ServerTimeoutError, "The server does not answer in time"),
    (ModelNotFoundError, "The server does not serve this version"),
    (ClientError, "The server refuses"),
)
Columns = list[tuple[str, bool]]  # heading, and whether its cells are numbers


def title(problem: EmotionAIError) -> str:
    """What is wrong, in a few words."""
    return next((words for kind, words in _TITLES if isinstance(problem, kind)), "That did not work")


def error(problem: EmotionAIError) -> str:
    """In clear words: what is wrong, and what helps."""
    text = " ".join(str(problem).split()).removeprefix("the given image: ")
    text = f"{text[:1].upper()}{text[1:]}."
    if isinstance(problem, ServerUnreachableError | ServerTimeoutError):
        text += " The page goes on by itself as soon as it answers again."
    return notice(title(problem), text)


def notice(heading: str, text: str) -> str:
    return f'<div class="ea-notice" role="alert"><strong>{escape(heading)}</strong><p>{escape(text)}</p></div>'


def hint(text: str) -> str:
    return f'<p class="ea-hint">{escape(text)}</p>'


def result(
    sighting: DetectedFaces,
    answer: Answer,
    names: bool = False,
    ellipses: bool = False,
    maps: NDArray[np.float32] | None = None,
) -> str:
    """The picture with its points, what can be downloaded, and a card for each face, with its map if there are maps."""
    drawn = draw(sighting, answer, names, ellipses)
    faces = answer.faces
    count = f"{len(faces)} face{'s' * (len(faces) != 1)}"
    found = f"found in {sighting.seconds * 1000:.0f} ms"
    served = f"version {answer.version} answered in {answer.seconds * 1000:.0f} ms"
    said = "; ".join(f"face {i}: {face.caption}" for i, face in enumerate(faces, 1))
    seen = [None] * len(faces) if maps is None else maps
    cards = "".join(_card(sighting, face, i, m) for i, (face, m) in enumerate(zip(faces, seen, strict=True), 1))
    return (
        f'<section class="ea-result" aria-label="Result">'
        f'<img class="ea-picture" src="{drawn}" alt="{escape(f"{count}, points drawn; {said}")}">'
        f'<p class="ea-meta"><span>{count} {found}</span><span>{served}</span></p>'
        f'<p class="ea-actions">'
        f'<a download="faces.csv" href="{uri(table(faces).encode(), "text/csv")}">Table (CSV)</a>'
        f'<a download="faces.jpg" href="{drawn}">Picture (JPEG)</a></p>'
        f'<div class="ea-cards">{cards}</div></section>'
    )


def frame(sighting: DetectedFaces, faces: list[FaceReading], version: int, seconds: float) -> str:
    """One frame of the webcam with its smoothed readings."""
    drawn = _picture(np.asarray(annotate(sighting.rgb, in_shown_pixels(faces, sighting.scale))), 80)
    said = "; ".join(face.caption for face in faces)
    # decoded at once, or the picture would flicker from frame to frame
    return (
        f'<section class="ea-result" aria-label="Live result"><img class="ea-picture" decoding="sync" src="{drawn}" '
        f'alt="{escape(said)}"><p class="ea-meta"><span>version {version}</span>'
        f"<span>{seconds * 1000:.0f} ms a frame</span></p></section>"
    )


def draw(sighting: DetectedFaces, answer: Answer, names: bool, ellipses: bool, bars: bool = False) -> str:
    """The annotated picture as a data URI."""
    faces = in_shown_pixels(answer.faces, sighting.scale)
    return _picture(np.asarray(annotate(sighting.rgb, faces, names=names, ellipses=ellipses, bars=bars)), 90)


def table(faces: list[FaceReading]) -> str:
    """CSV with a row for each face: the columns of `COLUMNS`, and the points' deviations where there are some."""
    rows = [row | deviation_row(face) for row, face in zip(face_rows(faces), faces, strict=True)]
    return csv_text(rows, list(rows[0]) if rows else ["face", *COLUMNS])


def comparison(
    sighting: DetectedFaces, first: Answer, second: Answer, found: list[Difference], names: bool = False
) -> str:
    """Both versions' pictures, and what differs face by face."""
    figures = "".join(
        f'<figure><img class="ea-picture" src="{draw(sighting, answer, names, False)}" '
        f'alt="Points and emotions of version {answer.version}">'
        f"<figcaption>{side}: version {answer.version}, {answer.seconds * 1000:.0f} ms</figcaption></figure>"
        for side, answer in (("A", first), ("B", second))
    )
    columns: Columns = [("face", False), ("A", False), ("B", False)]
    columns += [("largest point difference", True), ("mean", True), ("probability that differs most", True)]
    rows = [
        (
            str(number),
            one.caption,
            other.caption if difference.agree else f"{other.caption} (another emotion)",
            f"{difference.distance:.2f} px, {_words(difference.farthest)}",
            f"{difference.mean:.2f} px",
            f"{difference.emotion} {difference.probability:+.1%}",
        )
        for number, (one, other, difference) in enumerate(zip(first.faces, second.faces, found, strict=True), 1)
    ]
    same = first.version == second.version
    note = hint(f"Both choices are version {first.version}, so nothing differs.") if same else ""
    return (
        f'<section class="ea-result" aria-label="Comparison"><div class="ea-pair">{figures}</div>{note}'
        f"{_html_table('Differences, B minus A; distances in pixels of the photograph', columns, rows)}</section>"
    )


def proof(entry: Published, version: int) -> str:
    """Metrics and parity of a published version."""
    if entry.parity:
        passes = all(difference <= allowed for *_, difference, allowed in entry.parity)
        rows = [
            (path, servable, output, f"{difference:.1e}{unit}", f"{allowed:.0e}{unit}")
            for path, servable, output, difference, allowed in entry.parity
            for unit in (["" if output == "probabilities" else " px"])
        ]
        columns: Columns = [("path", False), ("model", False), ("output", False), ("difference", True)]
        parity = (
            f'<p class="ea-verdict">{"✓ Proven" if passes else "✗ Not proven"}: {entry.comparisons} comparisons with '
            f"the checkpoint. Its files are listed with {entry.checksums} checksums.</p>"
            + _html_table("Largest difference to PyTorch", [*columns, ("allowed", True)], rows)
        )
    else:
        parity = notice("No parity proof", f"None lies beside version {version}; emotion-ai verify makes it anew.")
    metrics = ""
    if entry.metrics:
        figures = [(name, f"{value:.4f}") for name, value in sorted(entry.metrics.items())]
        caption = "Metrics of the checkpoints on faces that they never saw"
        metrics = _html_table(caption, [("metric", False), ("value", True)], figures)
    return f'<section class="ea-result" aria-label="Proof and metrics">{metrics}{parity}</section>'


def _card(sighting: DetectedFaces, face: FaceReading, number: int, seen: NDArray[np.float32] | None) -> str:
    (shown,) = in_shown_pixels([face], sighting.scale)
    box = shown.box
    region = (round(box.left), round(box.top), round(box.left + box.size), round(box.top + box.size))
    thumbnail = Image.fromarray(sighting.rgb).crop(region).resize((_THUMBNAIL, _THUMBNAIL))
    bars = "".join(
        f'<li class="ea-{name.lower()}"><span>{name}</span><i aria-hidden="true"><b style="width:{value:.1%}"></b></i>'
        f"<span>{value:.0%}</span></li>"
        for name, value in zip(EMOTIONS, face.probabilities, strict=True)
        if not np.isnan(value)
    )
    doubt = ""
    if face.uncertain:
        doubt = f'<p class="ea-doubt">{face.confidence:.0%} for {face.emotion} is below the threshold.</p>'
    columns: Columns = [("point", False), ("x", True), ("y", True)]
    named = enumerate(zip(KEYPOINTS, face.points, strict=True), 1)
    rows = [[f"{i} {_words(name)}", f"{x:.1f}", f"{y:.1f}"] for i, (name, (x, y)) in named]
    if face.deviations is not None:
        columns += [("± x", True), ("± y", True)]
        rows = [[*row, f"{x:.1f}", f"{y:.1f}"] for row, (x, y) in zip(rows, face.deviations, strict=True)]
    points = _html_table("Pixels of the photograph", columns, rows)
    return (
        f'<article class="ea-card"><header><img src="{_picture(np.asarray(thumbnail), 85)}" alt="" '
        f'width="56" height="56"><h3>Face {number}: {face.caption}</h3></header>{doubt}<ul>{bars}</ul>'
        f"{_looked(sighting, face, seen)}<details><summary>The 15 points</summary>{points}</details></article>"
    )


def _looked(sighting: DetectedFaces, face: FaceReading, seen: NDArray[np.float32] | None) -> str:
    """The face in its frame, glowing where the network looked."""
    if seen is None:
        return ""
    size = (2 * _THUMBNAIL, 2 * _THUMBNAIL)
    gray = np.asarray(Image.fromarray(crop(sighting.gray, face.box)).resize(size), np.float32)[..., None]
    share = 0.6 * np.asarray(Image.fromarray(seen).resize(size))[..., None]
    glowing = gray * (1 - share) + np.array([255, 120, 0], np.float32) * share
    words = f"where the network looked for {face.emotion}"
    return (
        f'<figure class="ea-looked"><img src="{_picture(glowing.round().astype(np.uint8), 85)}" '
        f'alt="The face, glowing {words}"><figcaption>W{words[1:]}</figcaption></figure>'
    )


def _html_table(caption: str, columns: Columns, rows: Sequence[Sequence[str]]) -> str:
    marks = [' class="ea-number"' * number for _, number in columns]
    head = "".join(f'<th scope="col"{mark}>{escape(n)}</th>' for (n, _), mark in zip(columns, marks, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{mark}>{escape(cell)}</td>" for cell, mark in zip(row, marks, strict=True)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="ea-scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _picture(rgb: NDArray[np.uint8], quality: int) -> str:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality)
    return uri(file.getvalue(), "image/jpeg")


def uri(content: bytes, kind: str) -> str:
    """A file as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
