"""`python -m twofold.cli`."""

from twofold.cli import main

if __name__ == "__main__":
    main()
