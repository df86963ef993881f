"""A trained run used for real: it acts frame by frame, plays games, is exported."""
