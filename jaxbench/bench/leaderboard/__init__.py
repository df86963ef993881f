"""A leaderboard from `result.json` files alone: Markdown, CSV and one HTML page.

Nothing here imports jax: a board is made in a second on a laptop.
"""

from jaxbench.bench.leaderboard.write import Leaderboard, write_leaderboard

__all__ = ["Leaderboard", "write_leaderboard"]
