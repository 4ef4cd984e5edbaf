"""`python -m audioprep`."""

from audioprep.cli import main

main()
