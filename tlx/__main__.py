"""`python -m tlx` is `tlx`."""

from tlx.cli import entry

if __name__ == "__main__":
    entry()
