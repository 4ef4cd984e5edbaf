"""Stands before the real one, which pyarrow would import: that takes longer than a whole run of the tests."""

raise ImportError("not here, as in an installation of the core alone")
