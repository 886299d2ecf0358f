"""Which texts every store can keep."""


def is_storable(text: str) -> bool:
    """Is this text without NUL characters and lone surrogates? No store keeps those."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
