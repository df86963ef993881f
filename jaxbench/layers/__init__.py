"""Small linen parts that several mixers and blocks share."""
