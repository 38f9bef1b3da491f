"""Reads the body of a submission as strictly as a documented service would."""

from __future__ import annotations

import json
from typing import Any

from finevoice_async.core.requests import WIRE_NAMES, SfxRequest
from finevoice_async.errors import InvalidRequestError


class InvalidSubmissionError(ValueError):
    """The body breaks a rule of the endpoint.

    Attributes:
        detail: What is wrong, as the service's web framework says it.
    """

    def __init__(self, where: list[str], message: str, kind: str) -> None:
        super().__init__(message)
        self.detail: dict[str, Any] = {"detail": [{"loc": ["body", *where], "msg": message, "type": kind}]}


def read_submission(body: bytes) -> SfxRequest:
    """Read a submission. Unknown fields are ignored, as such frameworks do; null is no value of any field.

    Raises:
        InvalidSubmissionError: It breaks a rule.
    """
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidSubmissionError([], "JSON decode error", "json_invalid") from None
    if not isinstance(payload, dict):
        raise InvalidSubmissionError([], "Input should be an object", "model_type")
    fields: dict[str, Any] = {"use_async": False}  # absent, it may answer with the result itself
    for ours, theirs in WIRE_NAMES.items():
        if theirs in payload:
            if payload[theirs] is None:
                raise InvalidSubmissionError([theirs], "Input should not be null", "value_error")
            fields[ours] = payload[theirs]
    try:
        # Plain construction, not structuring: a converter would turn a number into a prompt.
        return SfxRequest(**fields)
    except InvalidRequestError as error:
        ours, _, rule = error.message.removesuffix(" Nothing was sent.").partition(" ")
        raise InvalidSubmissionError([WIRE_NAMES.get(ours, ours)], f"Value {rule}", "value_error") from None
