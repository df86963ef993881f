"""What several tasks share: shares of right answers, and constant answers."""

from __future__ import annotations

import numpy as np

from jaxbench.data.synthetic.event import IGNORE, Examples


def said_where(asked_nt: np.ndarray, answer_nt: np.ndarray) -> np.ndarray:
    """Answers where they are asked for, int32 [N, T], `IGNORE` elsewhere."""
    return np.where(asked_nt, answer_nt, IGNORE).astype(np.int32)


def numbers_from(first: int, vocabulary: int) -> np.ndarray:
    """`Event.values_v` of tokens that count up from 0 at the first answer's id."""
    number_v = np.arange(vocabulary, dtype=np.float64) - first
    return np.where(number_v >= 0, number_v, np.nan)


def last_answers(targets_nt: np.ndarray) -> np.ndarray:
    """The last target of each sequence, [N]; `IGNORE` where nothing is asked."""
    asked_nt = targets_nt != IGNORE
    last_n = targets_nt.shape[1] - 1 - np.argmax(asked_nt[:, ::-1], axis=1)
    return np.take_along_axis(targets_nt, last_n[:, None], axis=1)[:, 0]


def most_common(answers: np.ndarray) -> int:
    """The most frequent of some answers; of several, the smallest."""
    found, counts = np.unique(answers, return_counts=True)
    return int(found[np.argmax(counts)])


def share_right(said_nt: np.ndarray, targets_nt: np.ndarray, scored: str) -> float:
    """The share of right answers.

    Args:
      said_nt: int [N, T], read only where something is asked.
      targets_nt: int32 [N, T]; every sequence asks something.
      scored: what counts, see `Event.scored`.
    """
    asked_nt = targets_nt != IGNORE
    assert asked_nt.any(axis=1).all(), "a sequence asks nothing"
    right_nt = (said_nt == targets_nt) & asked_nt
    if scored == "labels":
        return float(right_nt.sum() / asked_nt.sum())
    if scored == "sequence":
        return float((right_nt == asked_nt).all(axis=1).mean())
    assert scored == "last", scored
    last_n = asked_nt.shape[1] - 1 - np.argmax(asked_nt[:, ::-1], axis=1)
    return float(np.take_along_axis(right_nt, last_n[:, None], axis=1).mean())


def mode_share(examples: Examples, train: Examples, scored: str) -> float:
    """How often the answer is right that is most frequent in other examples.

    Of scored "labels" all answers are counted, of "last" the last of each sequence.
    """
    answers = (
        train.targets_nt[train.targets_nt != IGNORE]
        if scored == "labels"
        else last_answers(train.targets_nt)
    )
    said_nt = np.full_like(examples.targets_nt, most_common(answers))
    return share_right(said_nt, examples.targets_nt, scored)
