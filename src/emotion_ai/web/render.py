"""The page's HTML. Pictures and downloads are data URIs, so nothing is written to disk."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.class_set import ClassSet
from emotion_ai.contract import DEVIATIONS, KEYPOINTS
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
from emotion_ai.video.frames import TrackedFace
from emotion_ai.video.notice import LAW, NOTICE
from emotion_ai.vision.crops import crop
from emotion_ai.web.session import DetectedFaces, Difference, VersionReadings, in_shown_pixels
from emotion_ai.web.version_info import VersionInfo

_THUMBNAIL = 112  # pixels
_HEADINGS: tuple[tuple[type[EmotionAIError], str], ...] = (
    (NoFaceError, "No face found"),
    (ImageError, "This picture cannot be read"),
    (ServerUnreachableError, "The server cannot be reached"),
    (ServerTimeoutError, "The server timed out"),
    (ModelNotFoundError, "The server does not have this version"),
    (ClientError, "The server reported an error"),
)
Columns = list[tuple[str, bool]]  # heading, and whether the cells are numbers


def heading(error: EmotionAIError) -> str:
    """A short heading for an error."""
    return next((words for kind, words in _HEADINGS if isinstance(error, kind)), "Something went wrong")


def error_notice(error: EmotionAIError) -> str:
    """What went wrong, and what to do."""
    text = " ".join(str(error).split()).removeprefix("the given image: ")
    if text.startswith(("is ", "has ", "does ")):
        text = f"it {text}"
    text = f"{text[:1].upper()}{text[1:]}."
    if isinstance(error, ServerUnreachableError | ServerTimeoutError):
        text += " The page continues as soon as the server is back."
    return notice(heading(error), text)


def notice(title: str, text: str) -> str:
    """A highlighted message."""
    return f'<div class="ea-notice" role="alert"><strong>{escape(title)}</strong><p>{escape(text)}</p></div>'


def hint(text: str) -> str:
    """A quiet line of text."""
    return f'<p class="ea-hint">{escape(text)}</p>'


def result(
    detected: DetectedFaces,
    readings: VersionReadings,
    names: bool = False,
    ellipses: bool = False,
    maps: NDArray[np.float32] | None = None,
) -> str:
    """The annotated picture, the downloads, and a card for each face, with its activation map if there are maps."""
    drawn = draw(detected, readings, names, ellipses)
    faces = readings.faces
    count = f"{len(faces)} face{'s' * (len(faces) != 1)}"
    found = f"detected in {detected.seconds * 1000:.0f} ms"
    served = f"version {readings.version} responded in {readings.seconds * 1000:.0f} ms"
    captions = "; ".join(f"face {i}: {face.caption}" for i, face in enumerate(faces, 1))
    face_maps = [None] * len(faces) if maps is None else maps
    cards = "".join(
        _card(detected, face, i, face_map) for i, (face, face_map) in enumerate(zip(faces, face_maps, strict=True), 1)
    )
    return (
        f'<section class="ea-result" aria-label="Result">'
        f'<img class="ea-picture" src="{drawn}" alt="{escape(f"{count} with keypoints; {captions}")}">'
        f'<p class="ea-meta"><span>{count} {found}</span><span>{served}</span></p>'
        f'<p class="ea-actions">'
        f'<a download="faces.csv" href="{data_uri(table(faces).encode(), "text/csv")}">Table (CSV)</a>'
        f'<a download="faces.jpg" href="{drawn}">Picture (JPEG)</a></p>'
        f'<div class="ea-cards">{cards}</div></section>'
    )


def law() -> str:
    """The line on responsible use, with its link."""
    return (
        f'<p class="ea-hint ea-law">{escape(NOTICE)} <a href="{LAW}" target="_blank" rel="noopener noreferrer">'
        "Regulation (EU) 2024/1689</a>, articles 5 and 50.</p>"
    )


def live_timeline(lanes: str, seconds: float) -> str:
    """The lanes below a frame of the webcam."""
    return (
        f'<section class="ea-timeline" aria-label="The last {seconds:.0f} seconds">'
        f'<p class="ea-meta"><span>{seconds:.0f} seconds ago</span><span>now</span></p>{lanes}</section>'
    )


def frame(detected: DetectedFaces, tracked: Sequence[TrackedFace], version: int, seconds: float) -> str:
    """A frame of the webcam with its smoothed readings."""
    faces = in_shown_pixels([face.reading for face in tracked], detected.scale)
    numbers = [face.track for face in tracked]
    drawn = _picture(np.asarray(annotate(detected.rgb, faces, tracks=numbers)), 80)
    captions = "; ".join(f"#{face.track} {face.reading.caption}" for face in tracked)
    # without decoding="sync" the picture flickers
    return (
        f'<section class="ea-result" aria-label="Live result"><img class="ea-picture" decoding="sync" src="{drawn}" '
        f'alt="{escape(captions)}"><p class="ea-meta"><span>version {version}</span>'
        f"<span>{seconds * 1000:.0f} ms per frame</span></p></section>"
    )


def draw(detected: DetectedFaces, readings: VersionReadings, names: bool, ellipses: bool) -> str:
    """The annotated picture as a data URI."""
    faces = in_shown_pixels(readings.faces, detected.scale)
    return _picture(np.asarray(annotate(detected.rgb, faces, names=names, ellipses=ellipses, bars=False)), 90)


def table(faces: list[FaceReading]) -> str:
    """CSV with one row per face: the columns of `COLUMNS`, and the keypoints' standard deviations if known."""
    rows = [row | deviation_row(face) for row, face in zip(face_rows(faces), faces, strict=True)]
    return csv_text(rows, list(rows[0]) if rows else ["face", *COLUMNS])


def comparison(
    detected: DetectedFaces,
    first: VersionReadings,
    second: VersionReadings,
    found: list[Difference],
    names: bool = False,
) -> str:
    """The pictures of both versions, and their differences face by face."""
    figures = "".join(
        f'<figure><img class="ea-picture" src="{draw(detected, readings, names, False)}" '
        f'alt="Keypoints and emotions of version {readings.version}">'
        f"<figcaption>{side}: version {readings.version}, {readings.seconds * 1000:.0f} ms</figcaption></figure>"
        for side, readings in (("A", first), ("B", second))
    )
    columns: Columns = [("face", False), ("A", False), ("B", False)]
    columns += [("largest keypoint difference", True), ("mean", True), ("largest probability difference", True)]
    rows = [
        (
            str(number),
            one.caption,
            other.caption if difference.same_emotion else f"{other.caption} (differs)",
            f"{difference.distance:.2f} px, {_words(difference.keypoint)}",
            f"{difference.mean_distance:.2f} px",
            f"{difference.emotion} {difference.probability_change:+.1%}",
        )
        for number, (one, other, difference) in enumerate(zip(first.faces, second.faces, found, strict=True), 1)
    ]
    same = first.version == second.version
    note = hint(f"A and B are both version {first.version}.") if same else ""
    return (
        f'<section class="ea-result" aria-label="Comparison"><div class="ea-pair">{figures}</div>{note}'
        f"{html_table('Differences (B minus A), distances in pixels of the photo', columns, rows)}</section>"
    )


def version_report(info: VersionInfo, version: int) -> str:
    """Metrics and parity of a published version."""
    metrics = ""
    if info.metrics:
        values = [(name, f"{value:.4f}") for name, value in sorted(info.metrics.items())]
        metrics = html_table(
            "Test metrics recorded in training; those in the model card may be newer",
            [("metric", False), ("value", True)],
            values,
        )
    return f'<section class="ea-result" aria-label="Metrics and parity">{metrics}{_parity(info, version)}</section>'


def _parity(info: VersionInfo, version: int) -> str:
    if not info.parity:
        return notice(
            "No parity report", f"Version {version} has none; check its outputs with: emotion-ai verify MODELS."
        )
    passed = all(row.difference <= row.tolerance for row in info.parity)
    rows = []
    for row in info.parity:
        unit = " px" if row.output in ("keypoints", DEVIATIONS) else ""
        rows.append((row.path, row.servable, row.output, f"{row.difference:.1e}{unit}", f"{row.tolerance:.0e}{unit}"))
    columns: Columns = [("path", False), ("model", False), ("output", False), ("difference", True), ("allowed", True)]
    return (
        f'<p class="ea-verdict">{"✓ Parity passed" if passed else "✗ Parity failed"}: {info.comparisons} comparisons '
        f"with the checkpoint, {info.checksums} files with checksums.</p>"
        + html_table("Largest difference to PyTorch", columns, rows)
    )


def _card(detected: DetectedFaces, face: FaceReading, number: int, face_map: NDArray[np.float32] | None) -> str:
    (shown,) = in_shown_pixels([face], detected.scale)
    thumbnail = Image.fromarray(crop(detected.rgb, shown.box)).resize((_THUMBNAIL, _THUMBNAIL))
    classes = ClassSet.of(face.classes)
    bars = "".join(
        f'<li><span>{escape(name)}</span><i aria-hidden="true"><b style="width:{value:.1%};background:'
        f'{classes.color(name)}"></b></i><span>{value:.0%}</span></li>'
        for name, value in face.by_class.items()
        if not np.isnan(value)
    )
    uncertain = f'<p class="ea-uncertain">{escape(why_uncertain(face))}</p>' if face.uncertain else ""
    columns: Columns = [("keypoint", False), ("x", True), ("y", True)]
    named = enumerate(zip(KEYPOINTS, face.points, strict=True), 1)
    rows = [[f"{i} {_words(name)}", f"{x:.1f}", f"{y:.1f}"] for i, (name, (x, y)) in named]
    if face.deviations is not None:
        columns += [("± x", True), ("± y", True)]
        rows = [[*row, f"{x:.1f}", f"{y:.1f}"] for row, (x, y) in zip(rows, face.deviations, strict=True)]
    keypoints = html_table("Pixels of the photo", columns, rows)
    return (
        f'<article class="ea-card"><header><img src="{_picture(np.asarray(thumbnail), 85)}" alt="" '
        f'width="56" height="56"><h3>Face {number}: {escape(face.caption)}</h3></header>{uncertain}<ul>{bars}</ul>'
        f"{_activation_map(detected, face, face_map)}"
        f"<details><summary>15 keypoints</summary>{keypoints}</details>"
        f"<details><summary>{_quality_summary(face)}</summary>{_quality_table(face)}</details></article>"
    )


def why_uncertain(face: FaceReading) -> str:
    """Why an emotion is not named, as a sentence."""
    if face.doubts:
        return f"{face.emotion} {face.confidence:.0%} is not reliable: the face is {' and '.join(face.doubts)}."
    return f"{face.emotion} {face.confidence:.0%} is below the threshold."


def _quality_summary(face: FaceReading) -> str:
    return f"pose and quality: {', '.join(face.flags)}" if face.flags else "pose and quality"


def _quality_table(face: FaceReading) -> str:
    rows = [["roll", _number(face.roll, "°")], ["yaw", _number(face.yaw, "°")]]
    if face.quality is not None:
        rows += [
            ["size", _number(face.quality.size, " px")],
            ["sharpness", f"{face.quality.sharpness:.2f}"],
            ["brightness", _number(face.quality.brightness)],
            ["contrast", _number(face.quality.contrast)],
        ]
    return html_table("How the face is seen", [("measure", False), ("value", True)], rows)


def _number(value: float, unit: str = "") -> str:
    return "–" if np.isnan(value) else f"{value:.0f}{unit}"


def _activation_map(detected: DetectedFaces, face: FaceReading, face_map: NDArray[np.float32] | None) -> str:
    """The crop of a face with its activation map in orange."""
    if face_map is None:
        return ""
    size = (2 * _THUMBNAIL, 2 * _THUMBNAIL)
    gray = np.asarray(Image.fromarray(detected.crop(face)).resize(size), np.float32)[..., None]
    share = 0.6 * np.asarray(Image.fromarray(face_map).resize(size))[..., None]
    blended = gray * (1 - share) + np.array([255, 120, 0], np.float32) * share
    title = f"Activation map for {escape(str(face.emotion))}"
    return (
        f'<figure class="ea-map"><img src="{_picture(blended.round().astype(np.uint8), 85)}" alt="{title}">'
        f"<figcaption>{title}</figcaption></figure>"
    )


def html_table(caption: str, columns: Columns, rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls sideways where it is wide."""
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
    return data_uri(file.getvalue(), "image/jpeg")


def data_uri(content: bytes, kind: str) -> str:
    """Content as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
