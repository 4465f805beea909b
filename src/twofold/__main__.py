"""`python -m twofold`: the command line, where the script is not on the path."""

from twofold.cli import main

main()
