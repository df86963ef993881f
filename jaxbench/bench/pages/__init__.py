"""A page for each backbone: what it is, what it computes, costs, how to run it."""

from jaxbench.bench.pages.board import read_boards
from jaxbench.bench.pages.page import page
from jaxbench.bench.pages.write import write_pages

__all__ = ["page", "read_boards", "write_pages"]
