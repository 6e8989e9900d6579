"""What a source has: folders, glob patterns, tar shards, tables, and what is wrong with them."""

import base64
import io
import os
import pickle
import tarfile
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from emotion_ai.errors import ConfigError, DataError, ImageError
from emotion_ai.scoring import sources
from emotion_ai.scoring.parts import Picture
from emotion_ai.scoring.sources import PictureSource, open_source
from emotion_ai.vision import photo
from emotion_ai.vision.photo import PORTRAITS
from tests.scoring.fakes import picture, write_pictures, write_tar


def pictures(source: PictureSource) -> list[Picture]:
    parts = pickle.loads(pickle.dumps(source.parts))  # as a worker gets them
    return [found for part in parts for found in part.pictures()]


def names(source: PictureSource) -> list[str]:
    return [found.name for found in pictures(source)]


def test_a_folder_is_read_at_any_depth_in_natural_order(tmp_path: Path) -> None:
    for name in ("a10.png", "a9.PNG", "b/c/1.png", "notes.txt", ".hidden.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture(9))
    source = open_source([str(tmp_path)])
    assert names(source) == [f"{tmp_path}/{name}" for name in ("a9.PNG", "a10.png", "b/c/1.png")]
    assert source.count == 3
    assert source.passed_over == {".txt": 1}
    assert all(found.load() == picture(9) for found in pictures(source))


def test_names_are_those_that_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "photos", 3)
    monkeypatch.chdir(tmp_path)
    for spec in ("photos", "photos/", "photos/*.png", "./photos"):
        source = open_source([spec])
        assert names(source) == [f"photos/{i}.png" for i in range(3)]
        assert source.identity == open_source(["photos"]).identity
    monkeypatch.chdir("/")
    assert names(open_source([f"{tmp_path}/photos/2.png"])) == [f"{tmp_path}/photos/2.png"]


def test_glob_patterns_and_addresses(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a b" / "c", 12)
    assert len(names(open_source([f"{tmp_path}/**/1*.png"]))) == 3
    for host in ("", "localhost"):
        assert len(names(open_source([f"file://{host}{tmp_path}/a%20b"]))) == 12
    with pytest.raises(ConfigError, match=f"^file://host{tmp_path}: names a file of another machine"):
        open_source([f"file://host{tmp_path}"])


def test_folders_that_a_pattern_matches_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cls/a/1.png", "cls/b/c/2.png", "cls/3.png", "cls/.hidden/4.png", "other/5.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture(9))
    monkeypatch.chdir(tmp_path)
    expected = ["cls/3.png", "cls/a/1.png", "cls/b/c/2.png"]
    for pattern in ("cls/*", "cl?", "cls/**", "cls/**/*"):
        assert sorted(names(open_source([pattern]))) == expected
    assert sorted(names(open_source([f"{tmp_path}/c*/"]))) == [f"{tmp_path}/{name}" for name in expected]
    assert names(open_source(["**/c"])) == ["cls/b/c/2.png"]


def test_signs_of_patterns_in_the_name_of_a_folder_are_letters(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "run [1]*" / "x", 12)
    write_pictures(tmp_path / "run 1" / "x", 12)
    assert names(open_source([f"{folder}/1?.png"])) == [f"{folder}/10.png", f"{folder}/11.png"]
    assert names(open_source([f"{folder.parent}/?/2.png"])) == [f"{folder}/2.png"]
    assert names(open_source([f"{tmp_path}/run [12]/x/2.png"])) == [f"{tmp_path}/run 1/x/2.png"]


def test_an_address_of_pyarrow_is_read_like_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import fs

    from emotion_ai.scoring import stores

    write_pictures(tmp_path / "bucket" / "photos", 12)
    (tmp_path / "bucket" / "list.csv").write_text("id,path\n1,photos/3.png\n2,none.png\n3,mem://bucket/photos/4.png\n")
    system = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    monkeypatch.setattr(stores, "_from_uri", lambda uri: (system, uri.removeprefix("mem://")))
    assert names(open_source(["mem://bucket/photos"])) == [f"mem://bucket/photos/{i}.png" for i in range(12)]
    assert names(open_source(["mem://bucket/photos/1*.png"])) == [f"mem://bucket/photos/{i}.png" for i in (1, 10, 11)]
    found = pictures(open_source(["mem://bucket/list.csv"]))
    assert found[0].load() == (tmp_path / "bucket/photos/3.png").read_bytes()
    assert found[2].load() == (tmp_path / "bucket/photos/4.png").read_bytes()
    with pytest.raises(ImageError, match=r"^none\.png: no such file"):
        found[1].load()
    with pytest.raises(ConfigError, match="^mem://bucket/nothing: no such file or folder"):
        open_source(["mem://bucket/nothing"])


def test_an_unknown_address_is_refused_without_its_password() -> None:
    with pytest.raises(ConfigError, match="^what://host/x: pyarrow cannot open this address") as refused:
        open_source(["what://me:secret@host/x"])
    assert "secret" not in str(refused.value)


def test_parts_are_the_same_for_the_same_source(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "photos", 100)
    first, second = open_source([str(folder)]), open_source([str(folder)])
    assert first.parts == second.parts
    assert first.identity == second.identity
    assert [part.count for part in first.parts] == [16] * 6 + [4]
    (folder / "3.png").write_bytes(picture(77))
    assert open_source([str(folder)]).identity != first.identity
    assert open_source([str(folder)]).parts == first.parts


def test_tar_shards_have_a_row_for_each_picture_with_its_texts(tmp_path: Path) -> None:
    files = dict[str, bytes]()
    for i in range(40):
        files |= {f"d/{i:03d}.jpg": picture(i), f"d/{i:03d}.json": b'{"id": %d}' % i, f"d/{i:03d}.txt": b"caption"}
    files |= {"x.cls": b"4", "._y.jpg": b"", "z.left.png": picture(1), "z.right.png": picture(2)}
    for name, mode in (("a.tar", "w"), ("b.tar.gz", "w:gz"), ("c.tar", "w:")):
        write_tar(tmp_path / name, files, mode)
    source = open_source([f"{tmp_path}/a.tar"])
    assert [part.count for part in source.parts] == [16, 16, 10]
    found = pictures(source)
    assert [one.load() for one in found] == [*map(picture, range(40)), picture(1), picture(2)]
    assert found[17].name == f"{tmp_path}/a.tar/d/017.jpg"
    assert found[17].extra.to_pylist() == [{"key": "d/017", "json": '{"id": 17}', "txt": "caption", "cls": None}]
    assert found[-1].extra.to_pylist() == [{"key": "z", "json": None, "txt": None, "cls": None}]
    packed = open_source([f"{tmp_path}/b.tar.gz"])
    assert packed.count is None
    assert [one.load() for one in pictures(packed)] == [one.load() for one in found]
    assert len(pictures(open_source([f"{tmp_path}/*.tar"]))) == 84


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_damaged_tar_shard_has_a_row_with_its_error(tmp_path: Path, mode: str) -> None:
    path = write_tar(
        tmp_path / ("a.tar.gz" if ":" in mode else "a.tar"), {f"{i}.png": os.urandom(3000) for i in range(9)}, mode
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if ":" in mode else 15_000])
    found = pictures(open_source([str(path)]))
    assert 3 <= len(found) <= 5
    assert all(len(one.load()) == 3000 for one in found[:-1])
    with pytest.raises(ImageError, match=f"^{path}: is damaged"):
        found[-1].load()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_links_and_huge_pictures_in_a_tar_are_rows_with_errors(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ("a.tar.gz" if ":" in mode else "a.tar")
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, kind, content in (
            ("0.png", tarfile.REGTYPE, picture(0)),
            ("1.png", tarfile.LNKTYPE, b""),
            ("2.png", tarfile.SYMTYPE, b""),
            ("2.txt", tarfile.LNKTYPE, b""),
            ("3.png", tarfile.FIFOTYPE, b""),
            ("4.png", tarfile.DIRTYPE, b""),
            ("5.png", tarfile.REGTYPE, bytes(5000)),
            ("6.png", tarfile.REGTYPE, picture(6)),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(content)
            member.linkname = "0.png" if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE) else ""
            tar.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(photo, "MAX_FILE_BYTES", 4999)
    source = open_source([str(path)])
    assert source.count == (6 if mode == "w" else None)
    found = pictures(source)
    assert [one.name for one in found] == [f"{path}/{i}.png" for i in (0, 1, 2, 3, 5, 6)]
    assert (found[0].load(), found[5].load()) == (picture(0), picture(6))
    for one, reason in zip(
        found[1:5],
        ["a link to 0.png; write the shard with tar --d", "a link to 0.png;", "not a regular file;", "larger than"],
        strict=True,
    ):
        with pytest.raises(ImageError, match=f"^{one.name}: is {reason}"):
            one.load()


def test_a_file_that_is_no_tar_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"nothing" * 300)
    (found,) = pictures(open_source([str(tmp_path / "a.tar")]))
    with pytest.raises(ImageError, match="is damaged"):
        found.load()


def table(count: int, **columns: Any) -> pa.Table:
    return pa.table(
        {"id": pa.array(range(count), pa.uint16()), "tags": [["a", str(i)] for i in range(count)], **columns}
    )


def test_parquet_with_contents_keeps_ids_and_other_columns(tmp_path: Path) -> None:
    rows = table(50, image=[picture(i) for i in range(50)])
    parquet.write_table(rows, tmp_path / "a.parquet", row_group_size=7)
    source = open_source([str(tmp_path / "a.parquet")])
    assert [part.count for part in source.parts] == [14, 14, 14, 8]
    found = pictures(source)
    assert [one.load() for one in found] == [picture(i) for i in range(50)]
    assert found[30].name == f"{tmp_path}/a.parquet#30"
    assert pa.concat_tables(one.extra for one in found).combine_chunks() == rows.select(["id", "tags"])


@pytest.mark.parametrize("groups", [[1000], [3, 600, 2, 0, 2, 393], [500, 500], [1, 999]])
def test_large_row_groups_are_cut_and_small_ones_joined(tmp_path: Path, groups: list[int]) -> None:
    paths = [f"{i}.png" for i in range(1000)]
    rows = pa.table({"path": paths, "id": range(1000)})
    with parquet.ParquetWriter(tmp_path / "a.parquet", rows.schema) as writer:
        for count, end in zip(groups, accumulate(groups), strict=True):
            writer.write_table(rows.slice(end - count, count))
    source = open_source([str(tmp_path / "a.parquet")])
    assert all(part.count is not None and 0 < part.count <= 16 for part in source.parts)
    found = pictures(source)
    assert [one.name for one in found] == paths
    assert [one.extra["id"].to_pylist() for one in found] == [[i] for i in range(1000)]


def test_parts_of_a_group_with_large_pictures_have_more_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(200, image=[bytes(1000)] * 200)
    parquet.write_table(rows, tmp_path / "a.parquet", use_dictionary=False)
    content = parquet.read_metadata(tmp_path / "a.parquet").row_group(0).total_byte_size
    monkeypatch.setattr(sources, "_CUT", content // 50)
    assert [part.count for part in open_source([str(tmp_path / "a.parquet")]).parts] == [50] * 4


def test_rows_of_a_parquet_file_that_became_shorter_are_errors(tmp_path: Path) -> None:
    parquet.write_table(table(40, path=["a.png"] * 40), tmp_path / "a.parquet")
    source = open_source([str(tmp_path / "a.parquet")])
    parquet.write_table(table(20, path=["a.png"] * 20), tmp_path / "a.parquet")
    assert names(source) == ["a.png"] * 20 + [f"{tmp_path}/a.parquet#{i}" for i in range(20, 40)]


def test_parquet_with_paths_or_both(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "photos", 3)
    cells = [{"bytes": None, "path": "photos/0.png"}, {"bytes": picture(5), "path": "x"}, None]
    parquet.write_table(table(3, image=cells), tmp_path / "a.parquet")
    found = pictures(open_source([str(tmp_path / "a.parquet")]))
    assert found[0].load() == (folder / "0.png").read_bytes()
    assert found[1].load() == picture(5)
    with pytest.raises(ImageError, match=r"a\.parquet#2: has no picture; its cell is empty"):
        found[2].load()
    parquet.write_table(table(1, other=[str(folder / "1.png")]), tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match=r"a column of paths or pictures is missing; it has id, tags, other; give"):
        open_source([str(tmp_path / "b.parquet")])
    (one,) = pictures(open_source([str(tmp_path / "b.parquet")], "other"))
    assert one.load() == (folder / "1.png").read_bytes()


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (pa.array([7]), "int"),
        (pa.array([list(picture(1))], pa.list_(pa.uint8())), "list"),
        (pa.array([{"content": "0.png"}]), "dict"),
        (pa.array([{"bytes": None, "path": 7}]), "int"),
    ],
    ids=["integer", "list", "struct", "path"],
)
def test_cells_of_another_type_are_rows_that_name_it(tmp_path: Path, cells: Any, kind: str) -> None:
    parquet.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    (found,) = pictures(open_source([str(tmp_path / "a.parquet")]))
    with pytest.raises(ImageError, match=rf"a\.parquet#0: has no picture; its cell is a value of type {kind}, neither"):
        found.load()


def test_a_path_that_is_not_utf8_costs_its_own_row_alone(tmp_path: Path) -> None:
    texts = pa.array([b"0.png", b"\xff\xfe.png", b"2.png"]).view(pa.string())
    parquet.write_table(pa.table({"path": texts}), tmp_path / "a.parquet")
    source = open_source([str(tmp_path / "a.parquet")])
    assert names(source) == ["0.png", f"{tmp_path}/a.parquet#1", "2.png"]


def test_damaged_pages_of_parquet_are_rows_with_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(
        table(60, image=[os.urandom(400) for _ in range(60)]), path, row_group_size=30, compression="zstd"
    )
    content = bytearray(path.read_bytes())
    content[2000:2400] = bytes(400)
    path.write_bytes(content)
    found = pictures(open_source([str(path)]))
    assert len(found) == 60
    with pytest.raises(ImageError, match=r"a\.parquet#0: cannot be read"):
        found[0].load()
    assert len(found[59].load()) == 400


def test_csv_with_paths_contents_and_odd_cells(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "photos", 3)
    encoded = base64.b64encode(picture(3) * 40).decode()
    lines = [
        '\ufeffid,path,"a ""note""\nin two lines"',
        "007,photos/0.png,",
        f'8,{folder}/1.png,"x, y\nz"',
        "",
        f"9,{encoded},b",
        f'10,"data:image/png;base64,{base64.b64encode(picture(4)).decode()}",b',
        "11,photos/2.png",
        "12,,empty",
    ]
    (tmp_path / "a.csv").write_text("\r\n".join(lines), newline="")
    found = pictures(open_source([str(tmp_path / "a.csv")], "path"))
    note = 'a "note"\nin two lines'
    assert [one.extra.to_pylist()[0] for one in found] == [
        {"id": "007", note: ""},
        {"id": "8", note: "x, y\nz"},
        {"id": "9", note: "b"},
        {"id": "10", note: "b"},
        {"id": "11", note: None},
        {"id": "12", note: "empty"},
    ]
    assert [one.load() for one in found[:4]] == [
        (folder / "0.png").read_bytes(),
        (folder / "1.png").read_bytes(),
        picture(3) * 40,
        picture(4),
    ]
    with pytest.raises(ImageError, match="it has 2 cells, not 3"):
        found[4].load()
    with pytest.raises(ImageError, match="its cell is empty"):
        found[5].load()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("start", ["", "sep=;\r\n"])
def test_csv_as_spreadsheets_write_it(tmp_path: Path, encoding: str, start: str) -> None:
    rows = [f'photos/{i}.png;"é\n{i}, ""x"""\r\n' for i in range(40)]
    (tmp_path / "a.csv").write_bytes((start + "path;a note\r\n" + "".join(rows)).encode(encoding))
    source = open_source([str(tmp_path / "a.csv")])
    assert [part.count for part in source.parts] == [16, 16, 8]
    found = pictures(source)
    assert [one.name for one in found] == [f"photos/{i}.png" for i in range(40)]
    assert [one.extra.to_pylist() for one in found] == [[{"a note": f'é\n{i}, "x"'}] for i in range(40)]


def test_a_damaged_or_binary_csv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"path\0\0\0\1\n")
    with pytest.raises(DataError, match=r"a\.csv: is not a CSV text file \(it is binary\)"):
        open_source([str(tmp_path / "a.csv")])
    (tmp_path / "a.csv").write_bytes("path\na.png\n".encode("utf-16") + b"\0")
    with pytest.raises(DataError, match=r"a\.csv: not a readable CSV file"):
        open_source([str(tmp_path / "a.csv")])
    (tmp_path / "a.tsv").write_text("path\na,b.png\n")
    assert names(open_source([str(tmp_path / "a.tsv")])) == ["a,b.png"]


def test_long_csv_files_are_read_in_parts(tmp_path: Path) -> None:
    rows = [f'{i},"photos/{i}.png","line\n{i}"\n' for i in range(200)]
    (tmp_path / "a.csv").write_text("id,path,note\n" + "".join(rows))
    source = open_source([str(tmp_path / "a.csv")])
    assert [part.count for part in source.parts] == [16] * 12 + [8]
    assert names(source) == [f"photos/{i}.png" for i in range(200)]


def test_paths_that_could_be_base64_are_paths(tmp_path: Path) -> None:
    paths = [f"{folder}/{'0123456789abcdef' * 4}" for folder in ("img", "pictures", "data/xy")]
    for i, path in enumerate(paths):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(picture(i))
    encoded = base64.b64encode(PORTRAITS[1].read_bytes()).decode()
    (tmp_path / "a.csv").write_text("path\n" + "\n".join([*paths, encoded]))
    found = pictures(open_source([str(tmp_path / "a.csv")]))
    assert [one.name for one in found] == [*paths, f"{tmp_path}/a.csv#3"]
    assert [one.load() for one in found] == [*map(picture, range(3)), PORTRAITS[1].read_bytes()]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", 'path\ttext\n0.png\tok\n1.png\t"hello world\n2.png\tok\n'),
        ("a.csv", 'path,text\n0.png,ok\n1.png,"hello world\n2.png,"ok"\n'),
    ],
)
def test_an_open_quote_does_not_swallow_rows(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=f"{name}, line 3: the row that begins there cannot be read"):
        open_source([str(tmp_path / name)])


def test_rows_that_changed_after_the_start_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,text\n0.png,ab\n1.png,cd\n2.png,ef\n")
    source = open_source([str(tmp_path / "a.csv")])
    (tmp_path / "a.csv").write_text('path,text\n0.png,ab\n1.png,"d\n2.png,ef\n')
    assert names(source) == ["0.png", f"{tmp_path}/a.csv#1", f"{tmp_path}/a.csv#2"]


def test_sources_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or folder, or an empty one"):
        open_source([str(tmp_path / "none")])
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"no pictures, tar shards, Parquet or CSV files, only \.txt"):
        open_source([str(tmp_path / "only")])
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"a\.parquet: not a readable Parquet file"):
        open_source([str(tmp_path / "a.parquet")])
    (tmp_path / "a.csv").write_text("id,path,id\n")
    with pytest.raises(DataError, match="has two columns 'id'"):
        open_source([str(tmp_path / "a.csv")])
    with pytest.raises(ConfigError, match="has csv and parquet files; name one kind"):
        open_source([str(tmp_path / "a.csv"), str(tmp_path / "a.parquet")])
    (tmp_path / "b.csv").write_text("path\n")
    with pytest.raises(ConfigError, match=r"b\.csv: has no pictures"):
        open_source([str(tmp_path / "b.csv")])
    with pytest.raises(ConfigError, match="--column names a column of a Parquet or CSV file"):
        open_source([str(write_pictures(tmp_path / "photos", 1))], "path")
    (tmp_path / "c.csv").write_text("path,id\nx,1\n")
    (tmp_path / "d.csv").write_text("path\nx\n")
    with pytest.raises(DataError, match=r"d\.csv: has other columns"):
        open_source([str(tmp_path / "c.csv"), str(tmp_path / "d.csv")])


def test_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.png"
    with open(name, "wb") as file:
        file.write(picture(1))
    (found,) = pictures(open_source([str(tmp_path)]))
    assert found.load() == picture(1)
