"""How faults are ordered, by number or by chance."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from finevoice_async.emulator import Emulator, Fault, FaultName

if TYPE_CHECKING:
    from emulator.conftest import Caller


async def test_orders_go_in_turn_and_wait_for_good_requests(caller: Caller, emulator: Emulator) -> None:
    """Ordered faults meet requests in the order of ordering; a request that is refused anyway uses none up."""
    emulator.inject("submit.unavailable", 2)
    emulator.inject(Fault("submit.refuse", 409))
    assert (await caller.submit(duration=99)).status == 422
    assert [(await caller.submit()).status for _ in range(4)] == [503, 503, 409, 200]


async def test_healing(caller: Caller) -> None:
    """From then on nothing goes wrong, ordered or by chance."""
    async with Emulator(faults={"submit.reject": 1.0}) as sick:
        sick_caller = type(caller)(sick, caller.http)
        sick.inject("submit.unavailable", 5)
        assert [(await sick_caller.submit()).status for _ in range(2)] == [503, 503]
        sick.heal()
        assert (await sick_caller.submit()).status == 200


async def test_chances_are_seeded(caller: Caller) -> None:
    """The same seed gives the same faults, near the asked share, whatever other faults there are."""

    async def statuses(more: dict[FaultName | Fault, float]) -> list[bool]:
        async with Emulator(seed=5, faults={Fault("submit.refuse", 418): 0.3, **more}) as emulator:
            sick_caller = type(caller)(emulator, caller.http)
            return [(await sick_caller.submit()).status == 418 for _ in range(100)]

    first = await statuses({})
    assert first == await statuses({}) == await statuses({"poll.hang": 0.5, "submit.unavailable": 0.2})
    assert 15 < sum(first) < 45


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("submit.nonsense", None),
        ("lose_reply", None),
        ("submit.lose_reply", 3),
        ("submit.slow", "long"),
        ("poll.slow", -1),
        ("download.cut", True),
    ],
)
def test_orders_that_make_no_sense(name: str, value: float | str | None) -> None:
    """An unknown name or a value that it does not take is refused at once; the names are listed."""
    with pytest.raises(ValueError, match=r"submit\.lose_reply|the fault") as caught:
        Emulator().inject(name, value=value)  # type: ignore[arg-type]  # on purpose
    assert name in str(caught.value)


@pytest.mark.parametrize("chance", [-0.1, 1.1, True])
def test_probabilities_that_make_no_sense(chance: float) -> None:
    """A probability is from 0 to 1."""
    with pytest.raises(ValueError, match="from 0 to 1"):
        Emulator(faults={"task.fail": chance})
    with pytest.raises(ValueError, match="no fault is called"):
        Emulator(faults={"task.flop": 0.5})  # type: ignore[dict-item]  # on purpose


async def test_refusals_explain_themselves(caller: Caller, emulator: Emulator) -> None:
    """An ordered refusal has a body that names it."""
    emulator.inject("submit.no_credits")
    assert json.loads((await caller.submit()).body)["error"]["code"] == "NO_CREDITS"
