"""Rewriting models.config: an entry changes, all other text stays."""

from dataclasses import replace
from pathlib import Path

from emotion_ai_export.registry.config_text import entry_spans
from emotion_ai_export.registry.model_config import read_config, replace_config

OURS = """config { name: "face" # ours { "
    base_path: "/a/face" model_version_policy { specific { versions: [1, 2] } }
    version_labels { key: "st{able" value: 1 } }"""
TEXT = f"""# all models: don't {{ touch
model_config_list: {{  # list
  config < name: 'other' # keep "this
     base_path: '/b/x\\'y}}' >,
  {OURS}
  config: {{ name: "third" base_path: "/a/third" logging_config {{ sampling_config {{ sampling_rate: 0.5 }} }} }}
}}
# end }}
"""


def test_the_text_of_other_entries_and_comments_stay(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text(TEXT)
    other, face, third = read_config(tmp_path)
    replace_config(tmp_path, [other, face, third])
    assert file.read_text() == TEXT
    replace_config(tmp_path, [other, replace(face, versions=(1, 2, 3), labels={"stable": 3}), third])
    before, after = TEXT.split(OURS)
    text = file.read_text()
    assert text.startswith(before)
    assert text.endswith(after)
    found = read_config(tmp_path)
    assert (found[0], found[2]) == (other, third)
    assert (found[1].versions, found[1].labels) == ((1, 2, 3), {"stable": 3})


def test_another_layout_is_rendered_anew(tmp_path: Path) -> None:
    text = 'model_config_list { config: [{ name: "face" base_path: "/a" }, { name: "b" base_path: "/b" }] }'
    assert entry_spans(text) is None
    file = tmp_path / "models.config"
    file.write_text(text)
    face, other = read_config(tmp_path)
    replace_config(tmp_path, [replace(face, versions=(1,)), other])
    found = read_config(tmp_path)
    assert [config.name for config in found] == ["face", "b"]
    assert found[0].versions == (1,)


def test_a_new_entry_is_rendered_with_the_others(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text(TEXT)
    listed = read_config(tmp_path)
    replace_config(tmp_path, [*listed, replace(listed[0], name="fourth")])
    assert [config.name for config in read_config(tmp_path)] == ["other", "face", "third", "fourth"]
