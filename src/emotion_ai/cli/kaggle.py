"""A submission to Kaggle's Facial Keypoints Detection, from its `test.csv` and `IdLookupTable.csv`."""

from pathlib import Path

import numpy as np
from rich.progress import track

from emotion_ai import files
from emotion_ai.contract import CROP_SIZE
from emotion_ai.data.loaders import load, load_image_ids, load_lookup
from emotion_ai.errors import ConfigError, DataError
from emotion_ai.inference.results import CropReader
from emotion_ai.terminal import Console

_BATCH = 64


def write_submission(test: Path, lookup: Path, reader: CropReader, path: Path) -> int:
    """Writes the coordinates listed in `lookup`: columns RowId and Location, in its order.

    Locations are clipped to 0-96, since Kaggle's labels lie within the image. The file is written whole or not at all.

    Args:
        test: Kaggle's `test.csv`, plain, .zip, .gz or .xz.
        lookup: Kaggle's `IdLookupTable.csv`, likewise.
        reader: reads the crops.
        path: the submission.

    Returns:
        The number of rows.

    Raises:
        DataError: a file cannot be read, or `lookup` lists an image that is not in `test`.
        ConfigError: `path` cannot be written.
        ClientError: a request to the server fails.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; --csv must be a file")
    faces = load(test, "keypoints").images
    positions = {image: position for position, image in enumerate(load_image_ids(test).tolist())}
    rows, ids, features = load_lookup(lookup)
    for row, image in zip(rows, ids.tolist(), strict=True):
        if image not in positions:
            raise DataError(f"{lookup}, RowId {row}: the ImageId {image} is not in {test}; use files of one download")
    console = Console(stderr=True)
    starts = track(
        range(0, len(faces), _BATCH), "reading", console=console, transient=True, disable=not console.is_terminal
    )
    points = np.concatenate([reader.read_crops(faces[start : start + _BATCH]).keypoints for start in starts])
    chosen = points.reshape(len(faces), -1)[[positions[image] for image in ids.tolist()], features]
    lines = [f"{row},{location:.4f}\n" for row, location in zip(rows, chosen.clip(0, CROP_SIZE), strict=True)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, "RowId,Location\n" + "".join(lines))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); choose another --csv") from error
    return len(lines)
