"""0-1 knapsack: the largest value of items whose weights fit a capacity."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxbench.data.synthetic.event import IGNORE, Event, Examples
from jaxbench.data.synthetic.rules import last_answers, most_common, numbers_from

TARGETS = ("direct", "digits", "dp")
# Capacities asked after each item under "dp": these quarters of C, rounded down.
QUARTERS = (1, 2, 3, 4)


class _Law(NamedTuple):
    """Ranges, both ends included; weights and values begin at 1.

    `weight` 0 stands for C // 2 - 1.
    """

    items: tuple[int, int]
    capacity: tuple[int, int]
    weight: int
    value: int


_LEVELS = {
    "L1": _Law((4, 4), (5, 10), 5, 5),
    "L2": _Law((6, 6), (8, 16), 8, 9),
    "L3": _Law((8, 8), (12, 24), 12, 9),
    "L4": _Law((10, 10), (16, 32), 16, 19),
    "L5": _Law((5, 14), (10, 49), 0, 99),
}
_LENGTHS = {
    f"length_{items}": _Law((items, items), (24, 48), 16, 19) for items in (16, 24, 32)
}
_LAWS = _LEVELS | _LENGTHS
MOST_CAPACITY = max(law.capacity[1] for law in _LAWS.values())
MOST_ITEMS = max(law.items[1] for law in _LAWS.values())
MOST_WEIGHT = max(law.weight or law.capacity[1] // 2 - 1 for law in _LAWS.values())
MOST_VALUE = max(law.value for law in _LAWS.values())
MOST_ANSWER = max(law.items[1] * law.value for law in _LAWS.values())
DIGITS = max(3, len(str(MOST_ANSWER)))
# Token ids: padding, the question, then a range of numbers for each role.
PAD, ASK = 0, 1
CAPACITY = 2
COUNT = CAPACITY + MOST_CAPACITY + 1
WEIGHT = COUNT + MOST_ITEMS + 1
VALUE = WEIGHT + MOST_WEIGHT + 1
ANSWER = VALUE + MOST_VALUE + 1


class Instances(NamedTuple):
    """Capacities [N], and weights and values [N, items], 0 for no item."""

    capacity_n: np.ndarray
    weight_ni: np.ndarray
    value_ni: np.ndarray


@dataclasses.dataclass(frozen=True)
class Knapsack(Event):
    """max sum_i x_i v_i subject to sum_i x_i w_i <= C, x_i in {0, 1}.

    Tokens: C, n, w_1, v_1 .. w_n, v_n and the question; capacities, counts, weights,
    values and answers have token ids of their own. Padded with 0 on the right. The
    optimum is exact, by f_j(c) = max(f_{j-1}(c), f_{j-1}(c - w_j) + v_j).

    Levels: 4, 6, 8 and 10 items (L1 to L4), and 5 to 14 items of weights below C // 2
    and values up to 99, the law of the report that the task is from (L5). Tests at 16,
    24 and 32 items. Supervising f_j is the lesson of KNARsack, arXiv:2509.15239.

    Attributes:
      target: "direct": the optimum, a token for each number. "digits": its decimal
        digits, the most significant first, four for every law (the largest possible
        answer has four) and each read before the next is asked; all must be right.
        "dp": after each item four tokens, capacities c = C/4, C/2, 3C/4 (rounded down)
        and C, each of which asks f_j(c); then the optimum, which alone is scored. No
        answer of these is read.

    Raises:
      InputError: an unknown target.
    """

    target: str = "direct"

    name = "knapsack"
    laws = _LAWS
    levels = tuple(_LEVELS)

    def __post_init__(self) -> None:
        self.require_option("target", TARGETS)

    @property
    def vocabulary(self) -> int:
        return ANSWER + (10 if self.target == "digits" else MOST_ANSWER + 1)

    @property
    def scored(self) -> str:
        return "sequence" if self.target == "digits" else "last"

    @property
    def values_v(self) -> np.ndarray | None:
        digits = self.target == "digits"
        return None if digits else numbers_from(ANSWER, self.vocabulary)

    def splits(self, level: str) -> tuple[int, int]:
        return 2000, 5000

    def length(self, law: str) -> int:
        fed_back = DIGITS - 1 if self.target == "digits" else 0
        return 3 + self._stride * self.law(law).items[1] + fed_back

    def answers(self, law: str) -> int:
        of_items = len(QUARTERS) * self.law(law).items[1] + 1
        return {"direct": 1, "digits": DIGITS, "dp": of_items}[self.target]

    def draw(self, law: str, count: int, generator: np.random.Generator) -> Examples:
        items_n, drawn = _draw(self.law(law), count, generator)
        capacity_n, weight_ni, value_ni = drawn
        here_ni = weight_ni > 0
        tokens_nt = np.full((count, self.length(law)), PAD, np.int32)
        targets_nt = np.full_like(tokens_nt, IGNORE)
        tokens_nt[:, 0], tokens_nt[:, 1] = CAPACITY + capacity_n, COUNT + items_n
        best_nc = np.zeros((count, MOST_CAPACITY + 1), np.int32)
        asked_nq = capacity_n[:, None] * np.array(QUARTERS)[None] // 4
        for index in range(weight_ni.shape[1]):
            here_n, weight_n, value_n = (
                array[:, index] for array in (here_ni, weight_ni, value_ni)
            )
            best_nc = add_item(best_nc, weight_n, value_n)
            start = 2 + self._stride * index
            tokens_nt[:, start] = np.where(here_n, WEIGHT + weight_n, PAD)
            tokens_nt[:, start + 1] = np.where(here_n, VALUE + value_n, PAD)
            if self.target == "dp":
                slots = slice(start + 2, start + 2 + len(QUARTERS))
                row_nq = ANSWER + np.take_along_axis(best_nc, asked_nq, axis=1)
                here_n1 = here_n[:, None]
                tokens_nt[:, slots] = np.where(here_n1, CAPACITY + asked_nq, PAD)
                targets_nt[:, slots] = np.where(here_n1, row_nq, IGNORE)
        optimum_n = np.take_along_axis(best_nc, capacity_n[:, None], axis=1)[:, 0]
        rows, ask_n = np.arange(count), 2 + self._stride * items_n
        tokens_nt[rows, ask_n] = ASK
        if self.target != "digits":
            targets_nt[rows, ask_n] = ANSWER + optimum_n
            return Examples(tokens_nt, targets_nt)
        for index in range(DIGITS):
            digit_n = ANSWER + _digit(optimum_n, index)
            targets_nt[rows, ask_n + index] = digit_n
            if index < DIGITS - 1:
                tokens_nt[rows, ask_n + index + 1] = digit_n
        return Examples(tokens_nt, targets_nt)

    def solve(self, tokens_nt: np.ndarray, asked_nt: np.ndarray) -> np.ndarray:
        """Dynamic programming over the tokens, one by one."""
        said_nt = np.full(tokens_nt.shape, IGNORE, np.int32)
        count = len(tokens_nt)
        capacity_n, weight_n, since_n = np.zeros((3, count), np.int64)
        best_nc = np.zeros((count, MOST_CAPACITY + 1), np.int32)
        rows = np.arange(count)
        for place, token_n in enumerate(tokens_nt.T):
            held_n = (token_n >= CAPACITY) & (token_n < COUNT)
            wanted_n = np.where(held_n, token_n - CAPACITY, capacity_n)
            if place == 0:
                capacity_n = wanted_n
            weighs_n = (token_n >= WEIGHT) & (token_n < VALUE)
            is_value_n = (token_n >= VALUE) & (token_n < ANSWER)
            if is_value_n.any():
                value_n = np.where(is_value_n, token_n - VALUE, 0)
                best_nc = add_item(best_nc, weight_n * is_value_n, value_n)
            weight_n = np.where(weighs_n, token_n - WEIGHT, 0)
            since_n = np.where(token_n == ASK, 0, since_n + 1)
            answer_n = best_nc[rows, wanted_n]
            if self.target == "digits":
                answer_n = _digit(answer_n, np.minimum(since_n, DIGITS - 1))
            said_nt[:, place] = np.where(asked_nt[:, place], ANSWER + answer_n, IGNORE)
        return said_nt

    def floors(self, law: str, examples: Examples, train: Examples) -> dict[str, float]:
        """Guesses: any optimum seen, the most frequent one, items by value density."""
        seen_n = self._optima(train.targets_nt)
        optimum_n = self._optima(examples.targets_nt)
        greedy_n = greedy(self._read(examples.tokens_nt))
        return {
            "uniform": 1 / len(np.unique(seen_n)),
            "mode": float((optimum_n == most_common(seen_n)).mean()),
            "greedy": float((optimum_n == greedy_n).mean()),
        }

    @property
    def _stride(self) -> int:
        """Tokens of an item."""
        return 2 + (len(QUARTERS) if self.target == "dp" else 0)

    def _optima(self, targets_nt: np.ndarray) -> np.ndarray:
        """The optimum of each sequence, [N], from its targets."""
        if self.target != "digits":
            return last_answers(targets_nt) - ANSWER
        digit_nd = targets_nt[targets_nt != IGNORE].reshape(-1, DIGITS) - ANSWER
        return digit_nd @ 10 ** np.arange(DIGITS - 1, -1, -1)

    def _read(self, tokens_nt: np.ndarray) -> Instances:
        """The instance that each sequence shows."""
        weight_ni = tokens_nt[:, 2 :: self._stride]
        value_ni = tokens_nt[:, 3 :: self._stride]
        weight_ni = weight_ni[:, : value_ni.shape[1]]
        here_ni = (weight_ni >= WEIGHT) & (weight_ni < VALUE)
        return Instances(
            tokens_nt[:, 0] - CAPACITY,
            np.where(here_ni, weight_ni - WEIGHT, 0),
            np.where(here_ni, value_ni - VALUE, 0),
        )


def add_item(
    best_nc: np.ndarray, weight_n: np.ndarray, value_n: np.ndarray
) -> np.ndarray:
    """f(c) <- max(f(c), f(c - w) + v) for every capacity c = 0, 1, .. at once."""
    left_nc = np.arange(best_nc.shape[1])[None] - weight_n[:, None]
    with_nc = np.take_along_axis(best_nc, np.maximum(left_nc, 0), axis=1)
    with_nc = with_nc + value_n[:, None].astype(best_nc.dtype)
    return np.where(left_nc >= 0, np.maximum(best_nc, with_nc), best_nc)


def greedy(instances: Instances) -> np.ndarray:
    """The value, [N], of taking each item that still fits, the densest first."""
    left_n = instances.capacity_n.copy()
    taken_n = np.zeros_like(left_n)
    for weight_n, value_n in _by_density(instances):
        fits_n = weight_n <= left_n
        left_n = left_n - fits_n * weight_n
        taken_n = taken_n + fits_n * value_n
    return taken_n


def _by_density(instances: Instances) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Weights and values, [N] each, in order of v / w; of equal ones the first."""
    _, weight_ni, value_ni = instances
    density_ni = value_ni / np.maximum(weight_ni, 1)
    order_ni = np.argsort(-density_ni, axis=1, kind="stable")
    weight_in = np.take_along_axis(weight_ni, order_ni, axis=1).T
    value_in = np.take_along_axis(value_ni, order_ni, axis=1).T
    yield from zip(weight_in, value_in, strict=True)


def _draw(
    law: _Law, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, Instances]:
    """How many items there are, [N], and instances; items past them are 0."""
    items_n = generator.integers(*law.items, size=count, endpoint=True)
    capacity_n = generator.integers(*law.capacity, size=count, endpoint=True)
    shape = (count, law.items[1])
    heaviest_n = np.full(count, law.weight) if law.weight else capacity_n // 2 - 1
    weight_ni = generator.integers(1, heaviest_n[:, None], size=shape, endpoint=True)
    value_ni = generator.integers(1, law.value, size=shape, endpoint=True)
    here_ni = np.arange(shape[1])[None] < items_n[:, None]
    return items_n, Instances(capacity_n, weight_ni * here_ni, value_ni * here_ni)


def _digit(number_n: np.ndarray, index: int | np.ndarray) -> np.ndarray:
    """Decimal digit `index` of numbers, the most significant of `DIGITS` first."""
    return number_n // 10 ** (DIGITS - 1 - np.asarray(index)) % 10
