"""Files over HTTP: resumed at the byte where they were cut, and repeated where that can help."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTimeError  # another class than Python's before 3.11
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import ConnectTimeoutError, HTTPError, InvalidHeader, MaxRetryError, NewConnectionError
from urllib3.util import Retry

from verse_utils.download.archives import MOST_BYTES
from verse_utils.download.progress import Progress, say
from verse_utils.errors import InterruptedTransferError, SourceError
from verse_utils.files.disk import in_units, require_free
from verse_utils.files.writing import write_json

# Seconds between attempts: 0, 2, 4, 8, 16, unless the server names a time.
_RETRIES = Retry(total=5, backoff_factor=1.0, status_forcelist=(408, 425, 429, 500, 502, 503, 504))
_RENEWED_BY_BYTES = 2**20  # an attempt that brought as much was worth it, and failures are counted anew
_TIMEOUTS_S = (20.0, 120.0)  # to connect, and between two blocks; OSF takes its time for the first
_ANSWER_S = 300.0  # for all that comes before the first block, redirects too
_BLOCK_BYTES = 2**16
# A connection that brings less in so long is as good as none, though a byte comes now and then.
_LEAST_BYTES, _WINDOW_S = 2**16, 300.0
_MOST_JSON_BYTES = 2**26
_LONGEST_NUMBER = 18  # digits of a length
_WEB_PAGE = re.compile(r"\s*(text/html|application/xhtml)", re.IGNORECASE)
# Of what has no known length, room is looked for each time that so many bytes came; so many stay free for others.
_STRIDE_BYTES, _RESERVE_BYTES = 2**26, 10**9


@dataclass(frozen=True)
class Received:
    """How a file came.

    Attributes:
        in_one_go: without a cut, and with its length told by the server. If such a file is bad, it is bad there.
    """

    in_one_go: bool


@dataclass(frozen=True)
class _Part:
    """What is known of a file that has come in part or whole; kept beside it, so that later runs know it, too.

    Attributes:
        address: where it came from.
        validator: ETag or time of change, by which the server knows this version again; "" if it gave none.
        length: of the whole file in bytes, if known.
    """

    address: str
    validator: str = ""
    length: int | None = None

    @staticmethod
    def _note(path: Path) -> Path:
        return path.with_name(f"{path.name}.part.json")

    @classmethod
    def read(cls, path: Path, address: str) -> _Part:
        """The note beside ``path``; an empty one if there is none for this address."""
        try:
            part = cls(**json.loads(cls._note(path).read_text(encoding="utf-8")))
            is_sound = part.validator.isprintable() and (part.length is None or part.length >= 0)
        except (OSError, ValueError, TypeError, AttributeError):
            return cls(address)
        return part if is_sound and part.address == address else cls(address)

    def write(self, path: Path) -> None:
        write_json(self._note(path), vars(self))


class Client:
    """Connections to one source.

    Args:
        patience_s: longest time that a server may ask to wait; more is a failure of the source.
        token: sent to OSF's hosts only, and to no host that they redirect to.
        advice: added to the message when a server asks to wait.
    """

    def __init__(self, patience_s: float, token: str | None = None, advice: str = "") -> None:
        self.patience_s = patience_s
        self.advice = advice
        self._token = token
        self._session = requests.Session()
        # The bytes as they are: compressed ones could not be resumed, and .nii.gz must stay .gz.
        self._session.headers.update({"Accept-Encoding": "identity", "User-Agent": "spine-segmentation"})

    @contextmanager
    def answer(
        self, address: str, headers: Mapping[str, str] | None = None, fine: tuple[int, ...] = (200,)
    ) -> Iterator[requests.Response]:
        """One attempt to get an address; the body is still to be read.

        Raises:
            InterruptedTransferError: the next attempt may succeed.
            SourceError: it would not.
        """
        response = self._request(address, {**(headers or {}), **self._authorisation(address)})
        with response:
            if response.status_code in fine:
                if _WEB_PAGE.match(response.headers.get("Content-Type", "")):
                    raise SourceError("a web page came in place of the data")
                yield response
                return
            reason = f"answer {response.status_code} {response.reason or ''}".strip()
            if response.status_code == 401 and self._token:
                reason += "; is OSF_TOKEN right?"
            if response.status_code not in (_RETRIES.status_forcelist or ()):
                raise SourceError(reason)
            raise InterruptedTransferError(reason, _retry_after_s(response))

    def _request(self, address: str, headers: Mapping[str, str]) -> requests.Response:
        try:
            return self._get_in_time(address, headers)
        except NotInTimeError:
            raise InterruptedTransferError(f"no whole answer in {in_minutes(_ANSWER_S)}") from None
        except requests.exceptions.SSLError as error:
            raise SourceError(f"no trusted connection ({_root_cause(error)})") from None
        except requests.Timeout as error:
            raise InterruptedTransferError("no answer in time", unreachable=_is_unreachable(error)) from None
        except requests.ConnectionError as error:
            reason = f"no connection ({_root_cause(error)})"
            raise InterruptedTransferError(reason, unreachable=_is_unreachable(error)) from None
        except (requests.RequestException, HTTPError, ValueError) as error:  # a wrong address, or a redirect to one
            raise SourceError(_root_cause(error)) from None

    def _get_in_time(self, address: str, headers: Mapping[str, str]) -> requests.Response:
        """Get an address, in a thread that is left behind where headers come, but too slowly for any of the timeouts.

        Raises:
            NotInTimeError: there is no whole answer in time.
            Exception: what the attempt raises.
        """
        answer: Future[requests.Response] = Future()

        def get() -> None:
            try:
                answer.set_result(self._session.get(address, headers=headers, stream=True, timeout=_TIMEOUTS_S))
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=get, daemon=True).start()
        return answer.result(_ANSWER_S)

    def _authorisation(self, address: str) -> dict[str, str]:
        host = urlsplit(address).hostname or ""
        return {"Authorization": f"Bearer {self._token}"} if self._token and is_osf(host) else {}

    def json(self, address: str) -> Any:
        """Get an address and read its JSON; repeated where that can help. Raises SourceError."""
        attempts = Attempts(self)
        while True:
            try:
                headers = {"Accept": "application/vnd.api+json, application/json"}
                with self.answer(address, headers) as response:
                    content = bytearray()
                    for block in blocks(response):
                        content += block
                        if len(content) > _MOST_JSON_BYTES:
                            raise SourceError(f"an answer has more than {in_units(_MOST_JSON_BYTES)}")
                    return json.loads(content)
            except (ValueError, RecursionError):
                raise SourceError("an answer is no JSON") from None
            except InterruptedTransferError as error:
                attempts.wait(error)

    def download(
        self, address: str, path: Path, progress: Progress, room: int = 1, hash_is_known: bool = False
    ) -> Received:
        """Get a file; what has come stays on disk for the next attempt, and for the next run.

        Args:
            address: of the file.
            path: where it is written.
            progress: told each block.
            room: the disk must have room for the file this many times.
            hash_is_known: the caller compares the file with its hash, so it may be resumed although the server can't
                tell that it has not changed.

        Raises:
            SourceError: the file can't be had here.
            UserError: the disk has too little room.
        """
        attempts = Attempts(self)
        in_one_go = not path.exists()
        furthest = _size(path)
        while True:
            part = _Part.read(path, without_password(address))
            if part.length is not None and part.length == _size(path):
                return Received(in_one_go)
            try:
                known = self._attempt(address, path, part, progress, room, hash_is_known)
                return Received(in_one_go and known)
            except InterruptedTransferError as error:
                in_one_go = False
                if _size(path) >= furthest + _RENEWED_BY_BYTES:
                    furthest = _size(path)
                    attempts = Attempts(self)
                attempts.wait(error, after_data=furthest > 0 or _size(path) > 0)

    def _attempt(
        self, address: str, path: Path, part: _Part, progress: Progress, room: int, hash_is_known: bool
    ) -> bool:
        """Ask for what is missing and append it; returns whether the server told the length."""
        kept = _size(path) if part.validator or hash_is_known else 0
        headers = {"Range": f"bytes={kept}-"} if kept else {}
        if kept and part.validator:
            headers["If-Range"] = part.validator
        with self.answer(address, headers, fine=(200, 206, 416)) as response:
            if response.status_code == 416 or (response.status_code == 206 and _first_byte(response) != kept):
                if kept and _total(response) == kept:
                    return True
                path.unlink(missing_ok=True)
                raise InterruptedTransferError("the server no longer has the part that was asked for")
            start = kept if response.status_code == 206 else 0
            total = _total(response)
            if total is not None:
                purpose = f"{path.name} with what is in it" if room > 1 else path.name
                require_free(path.parent, total * room - start, purpose)
            progress.start(start, total)
            validator = _validator(response) or (part.validator if start else "")
            with path.open("ab" if start else "wb") as file:  # emptied before the note speaks of another version
                _Part(part.address, validator, total).write(path)
                source = blocks(response)
                try:
                    for block in source if total is not None else bounded(source, path, room):
                        file.write(block)
                        file.flush()  # so that a kill loses nothing
                        progress.add(len(block))
                except SourceError:
                    path.unlink()
                    raise
        if total is not None and _size(path) > total:
            path.unlink()
            raise SourceError(f"more than the {total} bytes came that the server told")
        if total is not None and _size(path) != total:
            raise InterruptedTransferError(f"{_size(path)} of {total} bytes came")
        return total is not None


class Attempts:
    """Failed attempts at one thing: counted, and with a pause after each."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._retries = _RETRIES

    def wait(self, error: InterruptedTransferError, after_data: bool = False) -> None:
        """Pause before the next attempt, and say so.

        Args:
            error: why the last one failed.
            after_data: a connection was there before; if not, one that can't be made is not tried again.

        Raises:
            SourceError: there were enough attempts, or the pause would be too long.
        """
        if error.unreachable and not after_data:
            raise SourceError(str(error))
        try:
            self._retries = self._retries.increment("GET", error=error)
        except MaxRetryError:
            raise SourceError(f"{error}, {len(self._retries.history) + 1} times") from None
        pause_s = error.retry_after_s or self._retries.get_backoff_time()
        if pause_s > self._client.patience_s:
            raise SourceError(f"{error}, and asks to wait {in_minutes(pause_s)}")
        advice = self._client.advice if error.retry_after_s else ""
        say(f"{error}; going on {f'in {in_minutes(pause_s)}' if pause_s else 'now'}{advice}")
        time.sleep(pause_s)


def blocks(response: requests.Response) -> Iterator[bytes]:
    """The body as it comes. Raises InterruptedTransferError where it is cut, or hardly comes."""
    came, since = 0, time.monotonic()
    try:
        while block := response.raw.read1(_BLOCK_BYTES, decode_content=False):
            yield block
            came += len(block)
            if time.monotonic() - since > _WINDOW_S:
                if came < _LEAST_BYTES:
                    raise InterruptedTransferError(f"only {in_units(came)} came in {in_minutes(_WINDOW_S)}")
                came, since = 0, time.monotonic()
    except HTTPError as error:
        raise InterruptedTransferError(f"the connection was cut ({_root_cause(error)})") from None


def bounded(source: Iterator[bytes], path: Path, room: int = 1) -> Iterator[bytes]:
    """Pass on what has no known length, and so maybe no end, while the disk has room for it.

    Args:
        source: the blocks.
        path: of the file or folder that they are written to.
        room: the disk must have room for them this many times.

    Raises:
        SourceError: they are more than any file of VerSe has.
        UserError: the disk has too little room for them, or would have for others.
    """
    came = checked = 0
    for block in source:
        yield block
        came += len(block)
        if came >= checked + _STRIDE_BYTES:
            checked = came
            if came > MOST_BYTES:
                raise SourceError(f"more than {in_units(MOST_BYTES)} came, without an end")
            require_free(path.parent, came * (room - 1) + _RESERVE_BYTES, f"{path.name}, whose length is not told,")


def is_osf(host: str) -> bool:
    """Whether a host is one of OSF's."""
    return host == "osf.io" or host.endswith(".osf.io")


def without_password(address: str) -> str:
    """An address as it may be shown: without user name, password and query."""
    try:
        parts = urlsplit(address)
    except ValueError:  # no address at all
        return re.sub(r"//.*@", "//", address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def in_minutes(seconds: float) -> str:
    """A time for people: 40 s, 54 min, 1 h 30 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _total(response: requests.Response) -> int | None:
    """Bytes of the whole file; None if the server doesn't say."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() and len(length) <= _LONGEST_NUMBER else None
    match = re.fullmatch(rf"bytes .*/(\d{{1,{_LONGEST_NUMBER}}})", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _first_byte(response: requests.Response) -> int | None:
    match = re.match(rf"bytes (\d{{1,{_LONGEST_NUMBER}}})-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _validator(response: requests.Response) -> str:
    """What ``If-Range`` takes: a strong ETag, or the time of the last change (RFC 9110, section 13.1.5)."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _retry_after_s(response: requests.Response) -> float:
    header = response.headers.get("Retry-After")
    try:
        return float(_RETRIES.parse_retry_after(header)) if header else 0.0
    except (InvalidHeader, ValueError, OverflowError):
        return 0.0


def _is_unreachable(error: requests.RequestException) -> bool:
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(reason, NewConnectionError | ConnectTimeoutError)


def _root_cause(error: BaseException) -> str:
    """The innermost reason of a chain of errors, in one line."""
    while (inner := getattr(error, "reason", None) or (error.args[-1] if error.args else None)) is not None:
        if not isinstance(inner, BaseException):
            break
        error = inner
    return " ".join(str(error).split()) or type(error).__name__
