"""Pose: the mean face in three dimensions, and how far heads are turned in a keypoint dataset.

    python -m emotion_ai.benchmarks.pose --training training.csv --faces validation.csv

Weak-perspective factorisation: each face is a scaled, turned and shifted copy of one symmetric face, seen along the
camera's axis. Cameras and the face are fitted in turn until the face stays the same.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import FLIP, KEYPOINTS, MEAN_FACE
from emotion_ai.data.loaders import load
from emotion_ai.evaluation.tables import Cell, Column, ReportTable
from emotion_ai.terminal import Console
from emotion_ai.vision.pose import MEAN_FACE_3D, fit_pose

Floats = NDArray[np.float64]

_MIRROR = np.array([-1.0, 1.0, 1.0])


def factorise(points: NDArray[np.float32], tolerance: float = 1e-6, rounds: int = 1000) -> Floats:
    """The mean face of points (N, 15, 2): float64 (15, 3), x right, y down, z away from the camera, centred.

    Its frontal view is that of the mean camera; its scale that of the median face.
    """
    mirrored = points[:, FLIP] * np.array([-1.0, 1.0])
    faces = np.concatenate([points, mirrored]).astype(np.float64)
    faces -= faces.mean(1, keepdims=True)
    face = np.column_stack([np.array(MEAN_FACE), np.zeros(len(KEYPOINTS))])
    face[KEYPOINTS.index("nose_tip"), 2] = -20  # any start with the nose in front
    face -= face.mean(0)
    for _ in range(rounds):
        cameras, scales = _cameras(faces, face)
        weights = 1 / scales**2  # errors as shares of a face
        seen = cameras * scales[:, None, None]
        normal = np.einsum("n,nij,nik->jk", weights, seen, seen)
        target = np.einsum("n,nij,npi->pj", weights, seen, faces)
        fitted = np.linalg.solve(normal, target.T).T
        fitted = _symmetric(fitted - fitted.mean(0)) * np.median(scales)
        moved = np.abs(fitted - face).max()
        face = fitted
        if moved < tolerance:
            break
    left, _, right = np.linalg.svd(_cameras(faces, face)[0].mean(0), full_matrices=False)
    frontal = left @ right
    return _symmetric(face @ np.vstack([frontal, np.cross(frontal[0], frontal[1])]).T)


def _cameras(faces: Floats, face: Floats) -> tuple[Floats, Floats]:
    """For each of N centred faces the two rows of a rotation, (N, 2, 3), and the scale, (N,)."""
    affine = np.einsum("npi,pj->nij", faces, face) @ np.linalg.inv(face.T @ face)
    left, strength, right = np.linalg.svd(affine, full_matrices=False)
    return left @ right, strength.mean(1)


def _symmetric(face: Floats) -> Floats:
    mean: Floats = (face + face[list(FLIP)] * _MIRROR) / 2
    return mean


def face_table(face: Floats) -> ReportTable:
    """The points of a mean face beside those of `MEAN_FACE_3D`."""
    rows: list[tuple[Cell, ...]] = [
        (name, *(f"{value:.1f}" for value in new), *(f"{value:.1f}" for value in kept))
        for name, new, kept in zip(KEYPOINTS, face, MEAN_FACE_3D, strict=True)
    ]
    columns = tuple(map(Column, ("point", "x", "y", "z", "kept x", "kept y", "kept z")))
    return ReportTable("Mean face, pixels of the crop", columns, tuple(rows))


def pose_table(points: dict[str, NDArray[np.float32]]) -> ReportTable:
    """Percentiles of roll and yaw of some datasets, points (N, 15, 2)."""
    rows: list[tuple[Cell, ...]] = []
    for name, faces in points.items():
        poses = [fit_pose(face) for face in faces]
        for angle, values in (("roll", [pose.roll for pose in poses]), ("yaw", [pose.yaw for pose in poses])):
            rows.append((name, len(faces), angle, *map(float, np.percentile(values, (0, 5, 50, 95, 100)))))
    measures = (Column(name, ".0f") for name in ("least", "5 %", "median", "95 %", "largest"))
    return ReportTable("Degrees", (Column("faces"), Column("n"), Column("angle"), *measures), tuple(rows))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.benchmarks.pose", description=__doc__)
    parser.add_argument("--training", type=Path, required=True, help="a keypoint CSV to fit the mean face to")
    parser.add_argument("--faces", type=Path, help="another one, to measure poses in")
    options = parser.parse_args()
    points = {}
    for name in ("training", "faces"):
        if path := getattr(options, name):
            every = load(path, "keypoints").points
            points[name] = every[~np.isnan(every).any((1, 2))]
    console = Console(width=120)
    console.print(face_table(factorise(points["training"])).as_rich())
    console.print(pose_table(points).as_rich())


if __name__ == "__main__":
    main()
