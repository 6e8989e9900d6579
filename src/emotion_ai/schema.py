"""Structured configs: dataclasses whose annotations state type and range, and their values from plain dictionaries."""

import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from emotion_ai.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """Bounds of a number, for `Annotated`: `epochs: Annotated[int, Range(ge=1)]`."""

    ge: float = -math.inf
    gt: float = -math.inf
    le: float = math.inf
    lt: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.ge <= value <= self.le and self.gt < value < self.lt and math.isfinite(value)

    def __str__(self) -> str:
        bounds = ((">=", self.ge), (">", self.gt), ("<=", self.le), ("<", self.lt))
        return " and ".join(f"{sign} {bound}" for sign, bound in bounds if math.isfinite(bound))


Share = Annotated[float, Range(ge=0, le=1)]
Amount = Annotated[float, Range(ge=0)]


def bind(cls: type[T], values: Mapping[str, Any], path: str = "") -> T:
    """An instance of a dataclass from nested dictionaries, every value checked.

    Args:
        cls: a dataclass; a field's `Annotated` range, `Literal` choices and `None` are respected.
        values: by field name. Missing fields take their defaults.
        path: dotted prefix of the keys, for messages.

    Raises:
        ConfigError: an unknown or missing key, or a value of the wrong type or out of range.
    """
    hints = get_type_hints(cls, include_extras=True)
    for key in values:
        if key not in hints:
            raise ConfigError(unknown_key(f"{path}{key}", [f"{path}{name}" for name in hints]))
    for field in fields(cls):  # type: ignore[arg-type]
        if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{path}{field.name} is missing; give {path}{field.name}=...")
    return cls(**{key: _convert(hints[key], value, f"{path}{key}") for key, value in values.items()})


def check(instance: Any, path: str = "") -> None:
    """Checks the fields of a dataclass that was made directly, as `bind` checks values.

    Raises:
        ConfigError: a value of the wrong type or out of range.
    """
    for name, hint in get_type_hints(type(instance), include_extras=True).items():
        _convert(hint, getattr(instance, name), f"{path}{name}")


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The message for an unknown key, which names the most similar known ones."""
    near = get_close_matches(key, list(known), n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(sorted(known))}"
    return f"unknown setting {key}; {hint}"


def _convert(hint: Any, value: Any, key: str) -> Any:
    kind, extras = (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    if isinstance(value, Mapping) and (groups := [option for option in options if is_dataclass(option)]):
        return bind(_chosen(groups, value, key), value, f"{key}.")
    for option in options:
        if _fits(option, value, extras):
            return tuple(value) if get_origin(option) is tuple else value
    words = " or ".join(_describe(option, extras) for option in options)
    raise ConfigError(f"{key} must be {words}, got {'null' if value is None else value}")


def _chosen(groups: list[Any], value: Mapping[str, Any], key: str) -> Any:
    """Of several dataclasses the one whose `name: Literal[...]` is the value's name."""
    if len(groups) == 1:
        return groups[0]
    by_name = {name: group for group in groups for name in get_args(get_type_hints(group)["name"])}
    if value.get("name") not in by_name:
        raise ConfigError(f"{key}.name must be {' or '.join(by_name)}, got {value.get('name', 'null')}")
    return by_name[value["name"]]


def _fits(option: Any, value: Any, extras: tuple[Any, ...]) -> bool:
    origin, inner = get_origin(option), get_args(option)
    if origin is Annotated:
        return _fits(inner[0], value, inner[1:])
    if origin is Literal:
        return value in inner
    if origin is tuple and len(inner) == 2 and inner[1] is ...:
        return isinstance(value, list | tuple) and all(_fits(inner[0], item, ()) for item in value)
    if origin is tuple:
        return (
            isinstance(value, list | tuple)
            and len(value) == len(inner)
            and all(_fits(part, item, ()) for part, item in zip(inner, value, strict=True))
        )
    if origin is dict:
        return isinstance(value, Mapping)
    if option is Any:
        return True
    if option is types.NoneType:
        return value is None
    if option in (int, float):
        number = type(value) is int or (option is float and type(value) is float)
        return number and all(value in extra for extra in extras if isinstance(extra, Range))
    return isinstance(option, type) and type(value) is option


def _describe(option: Any, extras: tuple[Any, ...]) -> str:
    origin, inner = get_origin(option), get_args(option)
    if origin is Annotated:
        return _describe(inner[0], inner[1:])
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin is tuple:
        count = "" if inner[-1] is ... else f"{len(inner)} "
        return f"a list of {count}values, each {_describe(inner[0], ())}"
    if origin is dict or is_dataclass(option):
        return "a group of settings"
    names = {int: "an integer", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}
    bounds = " ".join(str(extra) for extra in extras if isinstance(extra, Range))
    return f"{names.get(option, option)} {bounds}".strip()
