"""The word problem of A5 as the first report posed it: in characters, unmasked."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxbench.data.synthetic.event import Examples
from jaxbench.data.synthetic.groups import group
from jaxbench.data.synthetic.original_event import (
    Instance,
    Law,
    OriginalEvent,
    counting_floors,
)
from jaxbench.data.synthetic.rules import said_where, share_right

ELEMENTS = 10
LENGTH = 64
# The report's ids: the characters in order, then what fills up.
SPACE, ZERO, PAD = 0, 1, 11
_LAWS = {"original": Law(LENGTH, LENGTH, PAD + 1, LENGTH)}


@dataclasses.dataclass(frozen=True)
class OriginalWordProblem(OriginalEvent):
    """g_1 .. g_10 of A5 and their products g_1, g_1 g_2, .., written in digits.

    Ten numbers below 60 and ten products, spaces between the numbers of each, and
    nothing between g_10 and the first product. That text, filled up to 65 characters,
    is its own target, one further: the random elements and what fills up count too.

    The report reads a published file of such lines (github.com/jopetty/word-problem),
    which is not ours to ship. Here elements are drawn from numpy's legacy generator,
    and numbered in the order of `groups.group`; both leave the law of the characters as
    it is but for the names of the elements.

    The ceiling, 0.7549, is that of a predictor that knows the format and the group and
    says what is most probable. It cannot know g_1 .. g_10, nor at once where g_10 ends,
    since a first digit of 1 to 5 may be all of it. Expected errors among 64 characters,
    exactly: 49/60 in each first digit of g_2 .. g_9, 50/60 in each second character of
    g_1 .. g_9, and 1.65 in g_10 and all that follows, the mean over the 3600 pairs of
    g_1 and g_10. Which element bears which number does not matter.
    """

    name = "word_problem"
    ceiling = 1 - (8 * 49 / 60 + 9 * 50 / 60 + 1.65) / LENGTH
    laws = _LAWS

    def instance(self, state: np.random.RandomState, law: str) -> Instance:
        """Ten elements in one draw."""
        text_t = written(state.randint(0, 60, size=(1, ELEMENTS)))[0]
        return Instance(text_t[:-1], text_t[1:], np.ones(LENGTH, bool))

    def solve(self, tokens_nt: np.ndarray, asked_nt: np.ndarray) -> np.ndarray:
        """The most probable next character, given those that were read."""
        said_nt = np.stack([_most_probable(tokens_t) for tokens_t in tokens_nt])
        return said_where(asked_nt, said_nt)

    def floors(self, law: str, examples: Examples, train: Examples) -> dict[str, float]:
        """Any character, the most frequent, and what the format alone tells."""
        said_nt = np.stack([_by_format(tokens_t) for tokens_t in examples.tokens_nt])
        return {
            **counting_floors(examples, train),
            "format": share_right(said_nt, examples.targets_nt, self.scored),
        }


def written(elements_nk: np.ndarray) -> np.ndarray:
    """The texts of sequences of ten elements, as ids, int64 [N, 65]."""
    table_gg = group("A5").table_gg
    products_nk = elements_nk.copy()
    for k in range(1, ELEMENTS):
        products_nk[:, k] = table_gg[products_nk[:, k - 1], elements_nk[:, k]]
    numbers_nj = np.concatenate([elements_nk, products_nk], axis=1)
    spaces_nj = np.full_like(numbers_nj, SPACE)
    digits = ZERO + numbers_nj // 10, ZERO + numbers_nj % 10
    characters_nc = np.stack([*digits, spaces_nj], axis=2).reshape(len(numbers_nj), -1)
    there_njc = np.ones((*numbers_nj.shape, 3), bool)
    there_njc[:, :, 0] = numbers_nj >= 10
    there_njc[:, [ELEMENTS - 1, -1], 2] = False
    there_nc = there_njc.reshape(characters_nc.shape)
    # What is there moves to the front, in its order.
    order_nc = np.argsort(~there_nc, axis=1, kind="stable")
    text_nt = np.full((len(numbers_nj), LENGTH + 1), PAD, np.int64)
    text_nt[:, : characters_nc.shape[1]] = np.where(
        np.take_along_axis(there_nc, order_nc, axis=1),
        np.take_along_axis(characters_nc, order_nc, axis=1),
        PAD,
    )
    return text_nt


def _by_format(tokens_t: np.ndarray) -> np.ndarray:
    """Spaces after numbers, frequent first digits after spaces, and the end.

    A first digit of 1 to 5 is a number of its own as often as each other digit follows
    it, so a space is as good a guess as any.
    """
    said_t = np.where(tokens_t == SPACE, ZERO + 1, SPACE)
    all_there_t = np.cumsum(tokens_t == SPACE) >= 2 * (ELEMENTS - 1)
    said_t[all_there_t & (tokens_t != SPACE)] = PAD
    return said_t


def _most_probable(tokens_t: np.ndarray) -> np.ndarray:
    """What most probably follows each prefix of one text.

    Before g_10 nothing but the format is known. From there on at most 60 texts are
    left, one for each g_10, all as probable; each character read rules some out.
    """
    said_t = _by_format(tokens_t)
    spaces = np.flatnonzero(tokens_t == SPACE)
    if len(spaces) < ELEMENTS - 1:
        return said_t
    start = int(spaces[ELEMENTS - 2])
    elements = _numbers(tokens_t[:start])
    if elements is None:
        return said_t
    known_gk = np.repeat(np.array([elements]), 60, axis=0)
    text_gt = written(np.append(known_gk, np.arange(60)[:, None], axis=1))
    fits_gt = np.logical_and.accumulate(text_gt[:, :-1] == tokens_t[None], axis=1)
    characters_v = np.arange(PAD + 1)
    next_gtv = text_gt[:, 1:, None] == characters_v[None, None]
    count_tv = (next_gtv & fits_gt[:, :, None]).sum(axis=0)
    said_t[start:] = np.argmax(count_tv[start:], axis=1)
    return said_t


def _numbers(tokens_t: np.ndarray) -> list[int] | None:
    """The elements of a text before its tenth; None where it is no such text."""
    words: list[str] = [""]
    for token in tokens_t:
        if token == SPACE:
            words.append("")
        elif token == PAD:
            return None
        else:
            words[-1] += str(token - ZERO)
    found = [int(word) for word in words if word]
    in_range = len(found) == ELEMENTS - 1 and max(found) < 60
    return found if in_range else None
