"""Named protocols: a table of predictions in, blocks of ``result.json`` out."""
