"""Text that is fit to be shown: of strangers, such as class and file names, and of numbers."""


def printable(text: str) -> str:
    """Return text in which whatever could control a terminal, or cannot be encoded, stands as its escape code."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def amount(value: float) -> str:
    """Return a number to four digits, or whole where it is larger than these."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
