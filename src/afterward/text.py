"""Which texts every store can keep."""


def is_storable(text: str) -> bool:
    """Is this text without NUL characters and lone surrogates? No store keeps those."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def storable(text: str) -> str:
    """The same text, with what no store keeps written out."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
