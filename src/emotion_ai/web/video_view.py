"""The HTML of the Video tab: the box for a file, the progress, and what was found."""

from html import escape

from emotion_ai.web import render
from emotion_ai.web.lanes import clock, draw_lanes, draw_legend
from emotion_ai.web.video_process import Failure, Progress, VideoResult
from emotion_ai.web.videos import MAX_VIDEO_BYTES, Video, Waiting

MAX_EVENTS = 500
"""Events that the page lists; all of them are in the download."""

_DOWNLOADS = {
    "annotated.mp4": "Annotated clip (MP4)",
    "rows.csv": "Faces (CSV)",
    "events.json": "Events (JSON)",
    "summary.json": "Summary (JSON)",
    "timeline.png": "Timeline (PNG)",
}


def file_box() -> str:
    """Takes a video by click, key or drop; `video.js` uploads it."""
    largest = MAX_VIDEO_BYTES // 2**20
    return (
        f'<label class="ea-drop" data-megabytes="{largest}"><input type="file" accept="video/*,.mkv,.ts,.gif,.webp" '
        'aria-label="Video file"><strong>Drop a video here, or choose a file</strong>'
        f"<span>up to {largest} MB</span>"
        '<progress max="1" value="0" hidden aria-label="Upload"></progress><span role="status"></span></label>'
    )


def video_state(video: Video) -> str:
    """How far a video is, or what was found in it."""
    match video.state:
        case Waiting(ahead):
            text = f"{ahead} other video{'s' * (ahead != 1)} will be read first." if ahead else "It is read next."
            return _bar(f"{video.name} waits", text, None)
        case Progress() as progress:
            return _bar(f"Reading {video.name}", _words(progress), _share(progress))
        case Failure(text):
            return render.notice("This video was not read", text)
        case VideoResult() as result:
            return _found(video, result)


def _share(progress: Progress) -> float | None:
    return min(progress.frames / progress.total, 1.0) if progress.total else None


def _words(progress: Progress) -> str:
    if not progress.frames:
        return "Starting."
    text = f"{progress.frames} frames, up to {clock(progress.seconds)}; {progress.fps:.1f} frames a second"
    if progress.total and progress.fps:
        text += f"; {clock(max(progress.total - progress.frames, 0) / progress.fps).partition('.')[0]} left"
    return f"{text}."


def _bar(title: str, text: str, share: float | None) -> str:
    value = "" if share is None else f' value="{share:.3f}"'
    return (
        f'<section class="ea-progress" aria-label="Progress"><strong>{escape(title)}</strong>'
        f'<progress max="1"{value} aria-label="Reading"></progress><p class="ea-meta">{escape(text)}</p></section>'
    )


def _found(video: Video, result: VideoResult) -> str:
    place, files = f"video/{video.token}", [name for name in _DOWNLOADS if (video.out / name).is_file()]
    links = "".join(f'<a download="{name}" href="{place}/{name}">{_DOWNLOADS[name]}</a>' for name in files)
    clip = ""
    if "annotated.mp4" in files:
        clip = (
            f'<video class="ea-picture" controls playsinline preload="metadata" src="{place}/annotated.mp4" '
            'aria-label="Annotated clip"></video>'
        )
    people = f"{len(result.tracks)} track{'s' * (len(result.tracks) != 1)}"
    notes = "".join(f'<p class="ea-hint">{escape(note)}</p>' for note in result.notes)
    return (
        f'<section class="ea-result ea-clip" aria-label="Video result">{clip}{_timeline(result)}'
        f'<p class="ea-meta"><span>{escape(video.name)}</span><span>{clock(result.seconds)}</span>'
        f"<span>{result.frames} frames read</span><span>{people}</span><span>version {result.version}</span></p>{notes}"
        f'<p class="ea-actions">{links}</p>{_events(result)}{_totals(result)}</section>'
    )


def _timeline(result: VideoResult) -> str:
    """The lanes, under an input whose thumb is the position in the clip."""
    if not result.tracks:
        return render.notice("No face found", "No frame that was read shows a face.")
    end = max(result.seconds, 0.1)
    return (
        f'<div class="ea-timeline"><p class="ea-meta"><span>0:00.0</span><output>0:00.0</output>'
        f"<span>{clock(end)}</span></p>"
        f'<div class="ea-scrub">{draw_lanes(result.tracks, 0.0, end, result.classes)}'
        f'<input type="range" min="0" max="{end:.3f}" step="0.04" value="0" '
        'aria-label="Position in the video, seconds">'
        f"</div>{draw_legend(result.tracks, result.classes)}</div>"
    )


def _events(result: VideoResult) -> str:
    """A table; a click on a time shows it in the clip."""
    if not result.events:
        return render.hint("No expression was shown for long enough to be an event.")
    rows = "".join(
        f'<tr><td><button type="button" data-seconds="{event["start"]:.3f}" '
        f'aria-label="Show {clock(event["start"])}">{clock(event["start"])}</button></td>'
        f"<td>{clock(event['end'])}</td><td>{event['track']}</td><td>{escape(str(event['expression']))}</td>"
        f'<td class="ea-number">{event["confidence"]:.0%}</td></tr>'
        for event in result.events[:MAX_EVENTS]
    )
    more = len(result.events) - MAX_EVENTS
    note = render.hint(f"{more} more events are in events.json.") if more > 0 else ""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("start", "end", "track", "expression"))
    return (
        '<div class="ea-scroll ea-events" tabindex="0" role="region" aria-label="Events"><table>'
        f'<caption>Events</caption><thead><tr>{head}<th scope="col" class="ea-number">confidence</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{note}"
    )


def _totals(result: VideoResult) -> str:
    """What share of its time each track shows what; the timeline in words."""
    rows = []
    for track, spans in sorted(result.tracks.items()):
        seconds = {label: sum(s.seconds for s in spans if s.label == label) for label in {s.label for s in spans}}
        total = sum(seconds.values()) or 1.0
        shown = sorted(seconds.items(), key=lambda item: -item[1])
        shares = ", ".join(f"{label} {value / total:.0%}" for label, value in shown if value / total >= 0.005)
        rows.append((str(track), f"{sum(seconds.values()):.1f} s", shares or "seen in one frame"))
    columns = [("track", False), ("seen", True), ("share of that time", False)]
    return render.html_table("Who showed what", columns, rows[:100])
