"""Text as bytes: corpora of any size, their splits, and windows cut out of them.

`read` opens a corpus: `sources` says what a path means and unpacks it, `decompress`
reads compressed files and notices when they were cut off, `store` keeps what was
unpacked, `splits` says which bytes train, validate and test. `windows` cuts the batches
of a step out of them. A document ends with the byte 0x1e.
"""

from jaxbench.data.corpus.read import Corpus, open_corpus
from jaxbench.data.corpus.windows import (
    RandomWindows,
    SequentialChunks,
    byte_counts,
    consecutive_windows,
    unigram_nats,
)

__all__ = [
    "Corpus",
    "RandomWindows",
    "SequentialChunks",
    "byte_counts",
    "consecutive_windows",
    "open_corpus",
    "unigram_nats",
]
