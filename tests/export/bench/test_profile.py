"""A trace's operations are counted by kind."""

from types import SimpleNamespace
from typing import Any

from emotion_ai_export.bench.profile import kinds_of


def node(name: str, operation: str, shape: tuple[int, ...], microseconds: float) -> Any:
    dims = [SimpleNamespace(size=size) for size in shape]
    tensor = SimpleNamespace(tensor_description=SimpleNamespace(shape=SimpleNamespace(dim=dims)))
    label = f"{name} = {operation}(a, b)"
    return SimpleNamespace(
        node_name=name, timeline_label=label, output=[tensor] if shape else [], all_end_rel_nanos=1000 * microseconds
    )


def test_operations_are_grouped_and_their_medians_summed() -> None:
    runs = [
        SimpleNamespace(
            dev_stats=[
                SimpleNamespace(
                    node_stats=[
                        node("stem", "_MklNativeFusedConv2D", (1, 48, 48, 32), 100 + extra),
                        node("head", "_MklNativeConv2D", (1, 12, 12, 15), 20),
                        node("se/reduce", "_MklNativeFusedConv2D", (1, 1, 1, 4), 9),
                        node("mean", "Mean", (1, 1, 1, 32), 3),
                        node("check", "Assert", (), 1),
                    ]
                )
            ]
        )
        for extra in (0, 1, 500)  # one slow run
    ]
    found = {kind.name: (kind.count, kind.microseconds) for kind in kinds_of(runs)}
    expected = {
        "convolutions with bias and ReLU": (2, 121.0),
        "1x1 convolutions of the gates": (1, 9.0),
        "pooling and means": (1, 3.0),
        "checks, shapes and the rest": (1, 1.0),
    }
    assert found == expected
    assert next(iter(found)) == "convolutions with bias and ReLU", "the longest first"
