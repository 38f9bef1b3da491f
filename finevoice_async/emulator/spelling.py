"""How the emulated service says things: either dialect, or a new mixture of both with every answer."""

from __future__ import annotations

import random
from functools import cache
from typing import Any, Literal, get_args

from cattrs import Converter

from finevoice_async.core.dialects import Answer, make_quickstart_converter, make_reference_converter
from finevoice_async.core.tasks import TaskStatus

Dialect = Literal["reference", "quickstart", "mixed"]
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)

# What programs in the field have met; the client knows more words than the service is known to use.
_WORDS = {
    TaskStatus.PENDING: ("pending", "queued"),
    TaskStatus.PROCESSING: ("processing", "running", "in_progress"),
    TaskStatus.COMPLETED: ("completed", "success", "succeeded", "done", "finished"),
    TaskStatus.FAILED: ("failed",),
}
_CASES = (str.lower, str.upper, str.capitalize)
_LINK_NAMES = ("url", "audio_url", "audioUrl", "file_url", "fileUrl", "download_url", "downloadUrl")
_NO_ERRORS: tuple[Any, ...] = (
    None,
    {},
    {"code": None, "message": None},
    {"code": "", "message": ""},
    {"code": "0001", "message": None},  # older pages show it on a success
)


@cache
def _converters() -> tuple[Converter, Converter]:
    """Return the two dialects' converters. They take longer to make than a test's whole emulator, so all share them."""
    return make_reference_converter(), make_quickstart_converter()


class Speller:
    """Turns answers into JSON objects, in one dialect."""

    def __init__(self, dialect: Dialect, rng: random.Random) -> None:
        """Set it up.

        Raises:
            ValueError: There is no such dialect.
        """
        if dialect not in DIALECTS:
            raise ValueError(f"dialect must be one of {', '.join(DIALECTS)}, not {dialect!r}")
        self._dialect = dialect
        self._rng = rng
        self._reference, self._quickstart = _converters()

    def speaks_quickstart(self) -> bool:
        """Choose the dialect of the next thing to say: for a mixture, by chance."""
        return self._dialect == "quickstart" or (self._dialect == "mixed" and self._rng.random() < 0.5)

    def spell(self, answer: Answer, now: float, *, to_submission: bool = False) -> dict[str, Any]:
        """Return the JSON object of an answer.

        Args:
            answer: What to say. Links beside a task that runs are said only in mixtures: older services hand them
                out before the file exists.
            now: The time, for the `timestamp` that the reference has.
            to_submission: It answers a submission, not a poll.
        """
        if self._dialect == "mixed":
            return self._mix(answer, now, to_submission=to_submission)
        if not answer.status.ended:
            answer = Answer(task_id=answer.task_id, status=answer.status)
        if self._dialect == "quickstart":
            if to_submission and not answer.status.ended:
                return {"task_id": answer.task_id}
            return dict(self._quickstart.unstructure(answer))
        return self._in_reference(answer, now)

    def _in_reference(self, answer: Answer, now: float) -> dict[str, Any]:
        more = {"service": "sfx-generation", "port": "8080", "timestamp": str(int(now * 1000))}
        return {**self._reference.unstructure(answer), **more}

    def _mix(self, answer: Answer, now: float, *, to_submission: bool) -> dict[str, Any]:
        """Say it in one of the mixtures that programs in the field have met."""
        rng = self._rng
        quickstart = self.speaks_quickstart()
        if to_submission and quickstart and not answer.status.ended:
            return {"task_id": answer.task_id}
        if not answer.status.ended and rng.random() < 0.8:
            answer = Answer(task_id=answer.task_id, status=answer.status)  # mostly no link before its time
        body = dict(self._quickstart.unstructure(answer)) if quickstart else self._in_reference(answer, now)
        self._respell_status(answer, body)
        self._respell_links(answer, body)
        if answer.status is not TaskStatus.FAILED:
            body["error"] = rng.choice(_NO_ERRORS)
            if rng.random() < 0.3:
                del body["error"]
        if rng.random() < 0.2:
            return {rng.choice(("result", "data")): body}
        return body

    def _respell_status(self, answer: Answer, body: dict[str, Any]) -> None:
        rng = self._rng
        chance = rng.random()
        if chance < 0.4:
            body["status"] = rng.choice(_CASES)(rng.choice(_WORDS[answer.status]))
        elif chance < 0.6:
            body["status"] = str(body["status"])  # numbers may arrive as text
        elif chance < 0.7 and answer.urls and answer.status is TaskStatus.COMPLETED:
            del body["status"]  # a link without a status means done

    def _respell_links(self, answer: Answer, body: dict[str, Any]) -> None:
        if not answer.urls:
            return
        if self._rng.random() < 0.3:
            body.update(url="", urls=list(answer.urls))
        else:
            del body["url"]
            body[self._rng.choice(_LINK_NAMES)] = answer.urls[0]
