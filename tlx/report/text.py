"""Text from strangers, such as class and file names, made fit to be shown."""


def printable(text: str) -> str:
    """Return text in which whatever could control a terminal, or cannot be encoded, stands as its escape code."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
