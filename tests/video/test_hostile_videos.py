"""Damaged, misleading and malicious files: the frames that are there, or one clear line, and nothing else is opened."""

import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from emotion_ai.errors import VideoError
from emotion_ai.video import pixels
from emotion_ai.video.frames import Frame
from emotion_ai.video.sources import open_source
from tests.video.clips import marked, number_of, write_clip, write_sound

NOT_A_VIDEO = "is damaged, incomplete or not a video; use the complete file, or convert it to MP4"

NO_FRAME = "no frame can be decoded; use a complete file, of at most 36,000,000 pixels per frame"


def read(path: Path | str) -> tuple[list[Frame], list[str], int]:
    """The frames, the notes, and how much is broken."""
    notes: list[str] = []
    with open_source(path, notify=notes.append) as source:
        return list(source), notes, source.broken


def problem_of(path: Path | str) -> str:
    with pytest.raises(VideoError) as caught:
        read(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An MP4 file of 50 frames, its index first, with a key frame every 10."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, count=50, options={"g": "10", "bf": "0"}, muxing={"movflags": "faststart"}).read_bytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.mp4", b"this is not a video\n" * 100),
        ("text.txt", b"nor is this\n" * 100),
        ("page.mp4", b"<!doctype html><html><body>404</body></html>"),
        ("noise.mkv", np.random.default_rng(0).bytes(50_000)),
        ("zeros.webm", bytes(50_000)),
        ("byte.mp4", b"\x00"),
        ("archive.mp4", b"PK\x03\x04" + bytes(1000)),
        ("magic.mkv", b"\x1aE\xdf\xa3" + bytes(100)),
    ],
)
def test_what_is_not_a_video(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert problem_of(tmp_path / name) in (NOT_A_VIDEO, "has no video; use a video file")


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.mp4").touch()
    assert problem_of(tmp_path / "empty.mp4") == "is empty (0 bytes); use a video file"
    assert problem_of(tmp_path / "missing.mp4") == "no such file or folder; check the path"
    assert problem_of(tmp_path / "missing" / "a.mp4") == "no such file or folder; check the path"
    assert problem_of(tmp_path / "empty.mp4" / "a.mp4") == "cannot be read (Not a directory); check the path"
    assert problem_of(tmp_path / ("n" * 300)) == "cannot be read (File name too long); check the path"
    os.mkfifo(tmp_path / "pipe.mp4")
    assert problem_of(tmp_path / "pipe.mp4") == "is not a regular file; use a video file"
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    assert "cannot be read (Too many levels" in problem_of(tmp_path / "loop.mp4")
    assert "cannot be read (embedded null" in problem_of("a\0b.mp4")
    assert problem_of("/dev/zero") == "is not a regular file; use a video file"
    monkeypatch.chdir(tmp_path)
    assert problem_of("empty.mp4") == "is empty (0 bytes); use a video file"


def test_an_empty_folder_and_one_without_pictures(tmp_path: Path) -> None:
    assert problem_of(tmp_path) == "no pictures in this folder; give a video file, or a folder with frames"
    write_clip(tmp_path / "clip.mp4", count=1)
    assert problem_of(tmp_path) == "no pictures in this folder; give a video file, or a folder with frames"


@pytest.mark.parametrize("name", ["photo.JPG", "animated.webp", "animated.png"])
def test_a_photo_belongs_to_predict(name: str, tmp_path: Path) -> None:
    animation: dict[str, Any] = (
        {} if name.endswith("JPG") else {"save_all": True, "append_images": [Image.new("RGB", (32, 32), "red")]}
    )
    Image.new("RGB", (32, 32)).save(tmp_path / name, **animation)
    assert "is a picture; read it with `emotion-ai predict`" in problem_of(tmp_path / name)
    assert "convert an animation to MP4" in problem_of(tmp_path / name)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (15, 400)])
def test_frames_that_are_too_small_are_refused(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "small.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "gray"
        out.mux(stream.encode(av.VideoFrame(*size, "gray")))
        out.mux(stream.encode(None))
    assert problem_of(path) == f"its frames have {size[0]}x{size[1]} pixels; they must have at least 16x16"


@pytest.mark.parametrize(("name", "codec"), [("tone.m4a", "aac"), ("tone.mp4", "aac"), ("tone.wav", "pcm_s16le")])
def test_sound_alone(name: str, codec: str, tmp_path: Path) -> None:
    assert problem_of(write_sound(tmp_path / name, codec)) == "has sound but no video; use a video"


def test_a_cover_is_not_a_video(tmp_path: Path) -> None:
    cover = BytesIO()
    Image.new("RGB", (32, 32)).save(cover, "JPEG")
    path = write_sound(tmp_path / "song.mp3", "libmp3lame")
    picture = b"\0image/jpeg\0\x03\0" + cover.getvalue()
    frame = b"APIC" + len(picture).to_bytes(4, "big") + b"\0\0" + picture
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\x03\0\0" + size + frame + path.read_bytes())
    with av.open(str(path)) as container:
        assert container.streams.video
    assert problem_of(path) == "has sound but no video; use a video"


def test_a_file_without_its_index(tmp_path: Path) -> None:
    content = write_clip(tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 3 // 4])
    assert problem_of(tmp_path / "cut.mp4") == NOT_A_VIDEO


def test_a_truncated_file_gives_what_is_there(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) * 3 // 5])
    frames, notes, broken = read(path)
    assert 5 < len(frames) < 45
    assert [number_of(frame.rgb) for frame in frames[:-1]] == list(range(len(frames) - 1))
    assert re.search(rf"{path}: ends after [\d.]+ s of 2\.0 s; it may be incomplete", notes[-1])
    assert broken <= 1


def test_an_avi_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    """FFmpeg takes its length from the size of the file that is left."""
    path = write_clip(tmp_path / "clip.avi", "mjpeg", 60, size=(320, 240), format="yuvj420p")
    assert not read(path)[1]
    os.truncate(path, path.stat().st_size // 2)
    frames, notes, _ = read(path)
    assert 15 < len(frames) < 45
    assert re.search(rf"{path}: ends after [\d.]+ s of 2\.4 s; it may be incomplete", notes[-1])


def test_damage_in_the_middle_is_skipped(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged.mp4"
    path.write_bytes(whole)
    with av.open(str(path)) as container:
        at = [packet.pos for packet in container.demux(video=0)][24] or 0
    path.write_bytes(whole[:at] + bytes(60) + whole[at + 60 :])
    frames, notes, broken = read(path)
    assert {*range(20), *range(30, 50)} <= {number_of(frame.rgb) for frame in frames}
    assert broken > 0
    assert notes == [f"{path}: skipped {broken} broken packets"]


def test_frames_that_cannot_be_decoded(whole: bytes, tmp_path: Path) -> None:
    path, start = tmp_path / "wiped.mp4", whole.index(b"mdat") + 4
    path.write_bytes(whole[:start] + bytes(len(whole) - start))
    assert problem_of(path) == NO_FRAME


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.gif", "a.webm", "a.avi"])
def test_random_damage(name: str, tmp_path: Path) -> None:
    """Frames with increasing numbers and times, or a VideoError; nothing else, and no hanging."""
    codec = {"a.gif": "gif", "a.webm": "libvpx-vp9", "a.avi": "mpeg4"}.get(name, "libx264")
    content = write_clip(tmp_path / name, codec, 6, format="rgb8" if codec == "gif" else "yuv420p").read_bytes()
    path, rng, whole = tmp_path / f"damaged {name}", np.random.default_rng(0), 0
    for _ in range(12):
        damaged = bytearray(content)
        for at in rng.integers(0, len(damaged), rng.integers(1, 30)):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(len(damaged) // 2, len(damaged))] if rng.random() < 0.3 else damaged)
        try:
            frames, _, _ = read(path)
        except VideoError:
            continue
        whole += 1
        assert (np.diff([frame.number for frame in frames]) > 0).all()
        assert (np.diff([frame.seconds for frame in frames]) > 0).all()
    assert whole


def test_huge_frames_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.gif"
    path.write_bytes(b"GIF89a" + 2 * (10_000).to_bytes(2, "little") + b"\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;")
    assert problem_of(path) == NO_FRAME
    monkeypatch.setattr(pixels, "MAX_PIXELS", 1_000_000)
    path = write_clip(tmp_path / "large.mp4", count=1, size=(1280, 800))
    assert problem_of(path) == "its frames have 1280x800 pixels, more than 1 megapixels; scale it down"


def test_frames_that_become_huge_are_passed_over(tmp_path: Path) -> None:
    content = BytesIO()
    Image.fromarray(marked(0)).save(content, "JPEG")
    small = content.getvalue()
    size = small.index(b"\xff\xc0") + 5
    huge = small[:size] + 2 * (40_000).to_bytes(2, "big") + small[size + 4 :]
    path = tmp_path / "grows.mjpeg"
    path.write_bytes(small * 5 + huge + small * 2)
    frames, _, broken = read(path)
    assert {frame.rgb.shape for frame in frames} == {(64, 128, 3)}
    assert len(frames) == 7
    assert broken == 1


def test_frames_may_change_their_size(tmp_path: Path) -> None:
    content = BytesIO()
    for size in ((128, 64), (256, 128), (128, 64)):
        Image.fromarray(marked(3, *size)).save(content, "JPEG")
    (tmp_path / "sizes.mjpeg").write_bytes(content.getvalue())
    frames = read(tmp_path / "sizes.mjpeg")[0]
    assert [frame.rgb.shape[1] for frame in frames] == [128, 256, 128]
    assert [number_of(frame.rgb) for frame in frames] == [3, 3, 3]


def with_streams(path: Path, count: int) -> Path:
    frame = av.VideoFrame.from_ndarray(marked(0), format="rgb24").reformat(format="yuv420p")
    with av.open(str(path), "w") as out:
        packets = []
        for _ in range(count):
            stream = out.add_stream("mpeg2video", rate=25)
            stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
            packets += [*stream.encode(frame), *stream.encode(None)]
        out.mux(packets)
    return path


def test_a_hundred_streams(tmp_path: Path) -> None:
    path = with_streams(tmp_path / "streams.mkv", 100)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 100
    assert len(read(path)[0]) == 1


def test_hundreds_of_streams_are_refused(tmp_path: Path) -> None:
    assert problem_of(with_streams(tmp_path / "streams.ts", 300)) == (
        "does not fit into memory, or has more than 100 streams; scale it down, or keep one stream"
    )


@pytest.fixture
def visits() -> Iterator[tuple[str, list[str]]]:
    """The address of a server, and the paths of its requests."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT9S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="a" '
    'bandwidth="9" codecs="avc1.4d401f"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>\n',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\na=control:{}\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("suffix", ["mp4", "m3u8", "mkv", "mpd", "sdp", "ffconcat"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_file_cannot_make_others_open(
    kind: str, suffix: str, visits: tuple[str, list[str]], whole: bytes, tmp_path: Path
) -> None:
    """A playlist under any name reads neither a server nor another file."""
    (tmp_path / "secret.mp4").write_bytes(whole)
    path = tmp_path / f"list.{suffix}"
    for target in (f"{visits[0]}/a.mp4", "secret.mp4", f"file:{tmp_path}/secret.mp4"):
        path.write_text(PLAYLISTS[kind].format(target))
        problem_of(path)
    assert visits[1] == []


def test_pictures_under_a_pattern_are_not_searched(tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(marked(number)).save(tmp_path / f"{number}.png")
    assert problem_of(str(tmp_path / "%d.gif")) == "no such file or folder; check the path"
