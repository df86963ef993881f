"""Edit distance: the fewest insertions, deletions and substitutions between strings."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxbench.data.synthetic.event import IGNORE, Event, Examples
from jaxbench.data.synthetic.rules import last_answers, mode_share, numbers_from

TARGETS = ("direct", "dp")
LETTERS = 4
# Shortest and longest first string.
_LAWS = {"L1": (4, 6), "L2": (8, 12), "L3": (16, 24), "length_32": (32, 32)}
# Token ids: padding, letters, the separator, the question, then distances from 0 on.
PAD, LETTER = 0, 1
SEPARATOR = LETTER + LETTERS
ASK = SEPARATOR + 1
ANSWER = ASK + 1
MOST_ANSWER = max(longest for _, longest in _LAWS.values())
SUBSTITUTE, INSERT, DELETE, KEEP = range(4)


@dataclasses.dataclass(frozen=True)
class EditDistance(Event):
    """Levenshtein distance of s and t: the tokens s, separator, t, question.

    Letters are uniform over an alphabet of 4. For half of the pairs (a fair coin each)
    t is drawn like s, its length too; for the others t is s after k random edits, k
    uniform in 0 .. |s|. Each edit is a substitution by another letter, an insertion or
    a deletion with equal chances, at a uniform place (of an empty string: an
    insertion), so t has up to 2 |s| letters. Padded with 0 on the right. The distance
    is exact:

        D(i, j) = min(D(i-1, j) + 1, D(i, j-1) + 1, D(i-1, j-1) + [s_i != t_j])

    Levels L1 to L3 have strings s of 4 to 6, 8 to 12 and 16 to 24 letters, the test
    "length_32" of 32. The last answer, at the question, is scored.

    Attributes:
      target: "direct": the distance alone. "dp": also, at each letter t_j, the smallest
        entry min_i D(i, j) of that row of the table. No answer is read.

    Raises:
      InputError: an unknown target.
    """

    target: str = "direct"

    name = "edit_distance"
    vocabulary = ANSWER + MOST_ANSWER + 1
    laws = _LAWS
    levels = ("L1", "L2", "L3")
    scored = "last"
    values_v = numbers_from(ANSWER, vocabulary)

    def __post_init__(self) -> None:
        self.require_option("target", TARGETS)

    def splits(self, level: str) -> tuple[int, int]:
        return 2000, 5000

    def length(self, law: str) -> int:
        return 3 * self.law(law)[1] + 2

    def answers(self, law: str) -> int:
        longest = self.law(law)[1]
        return 2 * longest + 1 if self.target == "dp" else 1

    def draw(self, law: str, count: int, generator: np.random.Generator) -> Examples:
        shortest, longest = self.law(law)
        # Room for the longest string that edits can make.
        shape, width = (count, longest), 2 * longest
        first_ni = generator.integers(LETTERS, size=shape)
        other_ni = generator.integers(LETTERS, size=shape)
        first_n, other_n = generator.integers(
            shortest, longest, size=(2, count), endpoint=True
        )
        edited_ni, edited_n = edit(
            np.pad(first_ni, ((0, 0), (0, width - longest))),
            first_n,
            generator.integers(first_n, endpoint=True),
            generator,
        )
        apart_n = generator.random(count) < 0.5
        second_n = np.where(apart_n, other_n, edited_n)
        other_ni = np.pad(other_ni, ((0, 0), (0, width - longest)))
        second_ni = np.where(apart_n[:, None], other_ni, edited_ni)

        place_t = np.arange(self.length(law))[None]
        start_n1 = first_n[:, None] + 1
        end_n1 = start_n1 + second_n[:, None]
        in_first_nt = place_t < start_n1 - 1
        in_second_nt = (place_t >= start_n1) & (place_t < end_n1)
        tokens_nt = np.full((count, self.length(law)), PAD, np.int32)
        tokens_nt[in_first_nt] = LETTER + first_ni[_upto(first_n, longest)]
        tokens_nt[place_t == start_n1 - 1] = SEPARATOR
        tokens_nt[in_second_nt] = LETTER + second_ni[_upto(second_n, width)]
        tokens_nt[place_t == end_n1] = ASK
        asked_nt = tokens_nt == ASK
        if self.target == "dp":
            asked_nt |= in_second_nt
        return Examples(tokens_nt, self.solve(tokens_nt, asked_nt))

    def solve(self, tokens_nt: np.ndarray, asked_nt: np.ndarray) -> np.ndarray:
        """Dynamic programming over the tokens, one by one.

        Of D it holds one row for each sequence, as wide as the sequence: no entry of
        the first string depends on those past its end, which are not read.
        """
        said_nt = np.full(tokens_nt.shape, IGNORE, np.int32)
        count, length = tokens_nt.shape
        rows, index_i = np.arange(count), np.arange(length + 1)[None]
        first_ni = np.full((count, length), PAD, np.int32)
        first_n = np.zeros(count, np.int64)
        row_ni = np.repeat(index_i, count, axis=0)
        parted_n = np.zeros(count, bool)
        for place, token_n in enumerate(tokens_nt.T):
            letter_n = (token_n >= LETTER) & (token_n < SEPARATOR)
            grows_n = letter_n & ~parted_n
            first_ni[rows[grows_n], first_n[grows_n]] = token_n[grows_n]
            first_n = first_n + grows_n
            parted_n = parted_n | (token_n == SEPARATOR)
            steps_n = letter_n & parted_n
            row_ni[steps_n] = next_row(
                row_ni[steps_n], first_ni[steps_n], token_n[steps_n]
            )
            asked_n = asked_nt[:, place]
            if asked_n.any():
                inside_ni = index_i <= first_n[:, None]
                lowest_n = np.where(inside_ni, row_ni, length).min(axis=1)
                answer_n = np.where(token_n == ASK, row_ni[rows, first_n], lowest_n)
                said_nt[asked_n, place] = ANSWER + answer_n[asked_n]
        return said_nt

    def floors(self, law: str, examples: Examples, train: Examples) -> dict[str, float]:
        """Guesses: any distance, the most frequent one, from the two lengths alone.

        "longer" says the longer length, the most that a distance can be, "difference"
        the difference of the lengths, the least.
        """
        tokens_nt, targets_nt = examples
        first_n = np.argmax(tokens_nt == SEPARATOR, axis=1)
        second_n = np.argmax(tokens_nt == ASK, axis=1) - first_n - 1
        distance_n = last_answers(targets_nt) - ANSWER
        return {
            "uniform": 1 / (self.law(law)[1] + 1),
            "mode": mode_share(examples, train, self.scored),
            "longer": float((distance_n == np.maximum(first_n, second_n)).mean()),
            "difference": float((distance_n == np.abs(first_n - second_n)).mean()),
        }


def _upto(length_n: np.ndarray, width: int) -> np.ndarray:
    """True for the first `length_n` of `width` columns."""
    return np.arange(width)[None] < length_n[:, None]


def next_row(
    row_ni: np.ndarray, first_ni: np.ndarray, letter_n: np.ndarray
) -> np.ndarray:
    """D(., j) from D(., j-1) and the letter t_j."""
    index_i = np.arange(row_ni.shape[1])[None]
    replaced_ni = row_ni[:, :-1] + (first_ni != letter_n[:, None])
    best_ni = row_ni + 1
    best_ni[:, 1:] = np.minimum(best_ni[:, 1:], replaced_ni)
    # D(i, j) <= D(i-1, j) + 1 along the whole row: a running minimum of D(i, j) - i.
    return np.minimum.accumulate(best_ni - index_i, axis=1) + index_i


def edit(
    letters_ni: np.ndarray,
    length_n: np.ndarray,
    edits_n: np.ndarray,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Strings and their lengths after `edits_n` random edits of each."""
    place_i = np.arange(letters_ni.shape[1])[None]
    for step in range(int(edits_n.max(initial=0))):
        kind_n = generator.integers(3, size=len(letters_ni))
        kind_n = np.where(length_n == 0, INSERT, kind_n)
        kind_n = np.where(step < edits_n, kind_n, KEEP)[:, None]
        # An insertion has one place more than there are letters.
        places_n1 = np.maximum(length_n[:, None] + (kind_n == INSERT), 1)
        at_n1 = generator.integers(places_n1)
        drawn_n1 = generator.integers(LETTERS, size=at_n1.shape)
        shift_n1 = generator.integers(1, LETTERS, size=at_n1.shape)
        source_ni = place_i + np.where(
            kind_n == INSERT,
            -(place_i > at_n1).astype(int),
            (kind_n == DELETE) & (place_i >= at_n1),
        )
        source_ni = np.minimum(source_ni, letters_ni.shape[1] - 1)
        letters_ni = np.take_along_axis(letters_ni, source_ni, axis=1)
        here_ni = place_i == at_n1
        letters_ni = np.where(here_ni & (kind_n == INSERT), drawn_n1, letters_ni)
        other_ni = (letters_ni + shift_n1) % LETTERS
        letters_ni = np.where(here_ni & (kind_n == SUBSTITUTE), other_ni, letters_ni)
        length_n = length_n + (kind_n == INSERT)[:, 0] - (kind_n == DELETE)[:, 0]
    return letters_ni, length_n
