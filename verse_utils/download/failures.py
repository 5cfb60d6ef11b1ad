"""How a source of VerSe can fail. None of these is the user's mistake, so the next source is tried."""


class SourceError(Exception):
    """A source can't give the data, and repeating would not help."""


class BadArchiveError(SourceError):
    """A zip is damaged, holds what VerSe's zips don't hold, or is no zip."""


class InterruptedTransferError(Exception):
    """An attempt failed, but the next one may succeed.

    Attributes:
        retry_after_s: how long the server asks to wait; 0 if it doesn't say.
        unreachable: no connection was made at all.
    """

    def __init__(self, reason: str, retry_after_s: float = 0.0, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.unreachable = unreachable
