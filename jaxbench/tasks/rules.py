"""What values of a recipe must be, and how its texts are read. Imports no jax."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from jaxbench.errors import InputError, nearest

# `rule(key, value)` raises InputError where the value breaks it.
Rule = Callable[[str, Any], None]

# What a letter behind a count multiplies it by.
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
# Units of a budget.
BYTES = {"kB": 10**3, "MB": 10**6, "GB": 10**9}
SECONDS = {"s": 1, "min": 60, "h": 3600}


# Above what a step counter, a length or a size on a device can be.
LARGEST = 2**31 - 1


def number(key: str, value: Any) -> None:
    """Finite; a whole number of at most 31 bits and a sign."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{key}={value} must be a finite number")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise InputError(f"{key}={value} must be at most {LARGEST}")


def seed(key: str, value: Any) -> None:
    """A whole number from 0 on of which every bit counts.

    Keys of JAX are made of 32 bits, and the streams of published generators begin a few
    numbers further.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{key}={value!r} must be a whole number")
    if not 0 <= value <= LARGEST:
        raise InputError(f"{key}={value} must be from 0 to {LARGEST}")


def positive(key: str, value: float) -> None:
    """Above 0."""
    if not value > 0:
        raise InputError(f"{key}={value} must be positive")


def not_negative(key: str, value: float) -> None:
    """0 or above."""
    if not value >= 0:
        raise InputError(f"{key}={value} must not be negative")


def one_of(*valid: str) -> Rule:
    """One of some words."""

    def rule(key: str, value: str) -> None:
        if value not in valid:
            raise InputError(
                f"{key}={value!r} is unknown; nearest: {nearest(str(value), valid)}"
            )

    return rule


def within(interval: str) -> Rule:
    """In an interval, written as in "[0, 1)": a round bracket leaves out its end."""
    low, high = map(float, interval[1:-1].split(","))
    open_low, open_high = interval[0] == "(", interval[-1] == ")"

    def rule(key: str, value: float) -> None:
        above = low < value if open_low else low <= value
        below = value < high if open_high else value <= high
        if not (above and below):
            raise InputError(f"{key}={value} must lie in {interval}")

    return rule


def each(keys: str, rule: Rule) -> dict[str, Rule]:
    """The same rule for several keys, with spaces between them."""
    return dict.fromkeys(keys.split(), rule)


def parse_count(key: str, text: str) -> int:
    """Reads "200k", "1.5m", "2g" or "2000000" as a number.

    Args:
      key: of the config, for the message.
      text: a number, with k, m or g for thousands, millions or 10^9 of them.

    Raises:
      InputError: anything else, or no whole number of at least 1.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kmg]?)", text.strip().lower())
    value = Decimal(found[1]) * UNITS[found[2]] if found else Decimal(0)
    if value < 1 or value % 1:
        raise InputError(
            f"{key}={text!r} must be a number such as 200k, 1.5m or 2000000"
        )
    return int(value)


def parse_budget(text: str) -> tuple[float, str]:
    """Reads "10min", "90s", "50MB", "2000steps" as a number of a unit, in any case.

    Returns:
      The number in "seconds", "bytes" or "steps", and that word.

    Raises:
      InputError: no positive number, or no unit that is known.
    """
    number = text.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    unit = text.strip()[len(number) :]
    known = [*SECONDS, *BYTES, "steps"]
    unit = next((name for name in known if name.lower() == unit.lower()), unit)
    if unit not in known:
        hint = f"nearest: {nearest(unit, known)}" if unit else f"one of {known}"
        raise InputError(
            f"train.budget={text!r} needs a unit, for example 10min, 50MB or "
            f"2000steps; {hint}"
        )
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(
            f"train.budget={text!r} must be more than nothing, for example 10min, "
            "50MB or 2000steps"
        )
    if unit in SECONDS:
        return value * SECONDS[unit], "seconds"
    return value * BYTES.get(unit, 1), "bytes" if unit in BYTES else "steps"


def parse_options(text: str, key: str = "model.options") -> dict[str, Any]:
    """Reads options of mixers, `field=value` with spaces between.

    Values are numbers, True, False, or words; what type a field has, its mixer says.

    Args:
      text: the options.
      key: of the config, for the messages.

    Raises:
      InputError: an item without `=`, or a field given twice.
    """
    options: dict[str, Any] = {}
    for item in text.split():
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise InputError(
                f"{key}: {item!r} must be field=value, for example heads=8"
            )
        if name in options:
            raise InputError(f"{key}: {name!r} is given twice in {text!r}")
        try:
            options[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            options[name] = value
    return options
