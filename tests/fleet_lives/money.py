"""What was posted, and who consented to what: nothing may be paid for twice."""

from __future__ import annotations

import attrs
from fleet_lives.players import Player
from fleet_lives.table import Row, Table

from finevoice_async.core.ledger import MAY_BE_PAID, EffectState


@attrs.define(eq=False)
class Post:
    """A POST that left.

    Attributes:
        row_id: Whose.
        claim: What it names.
        sender: Who sent it.
        fate: `air`, `refused` (certainly not accepted), `doubt` (nobody will tell), `known`.
        covered: Somebody consented to another one in its place.
        given_back: The journal was told in time that it was not accepted: no budget counts it.
    """

    row_id: int
    claim: int
    sender: Player
    fate: str = "air"
    covered: bool = False
    given_back: bool = False


@attrs.frozen
class Told:
    """The journal was told what became of a POST."""

    post: Post
    fate: str
    given_back: bool = False


@attrs.frozen
class Consented:
    """A caller accepts to pay again; by a player, or by whoever sends next."""

    row_id: int
    by: Player | None


@attrs.frozen
class Sent:
    """A POST leaves."""

    row_id: int
    claim: int
    by: Player


Event = Told | Consented | Sent
_ORDER = (Told, Consented, Sent)


class Money:
    """Owns what was posted."""

    def __init__(self) -> None:
        # All mutable state:
        self.posts: dict[int, Post] = {}  # by claim
        self.ids: set[str] = set()  # of tasks that the journal was told of
        self._consents: dict[int, set[Player]] = {}

    def in_air(self, player: Player | None = None, row_id: int | None = None) -> list[Post]:
        """Return the POSTs whose answers are to come."""
        return [
            post
            for post in self.posts.values()
            if post.fate == "air"
            and (player is None or post.sender is player)
            and (row_id is None or post.row_id == row_id)
        ]

    def died(self, player: Player) -> None:
        """A player has gone: nobody hears its answers, and its consents are void."""
        for post in self.in_air(player):
            post.fate = "doubt"
        for players in self._consents.values():
            players.discard(player)

    def take_in(self, events: list[Event], before: Table, after: Table) -> None:
        """Note what happened in one step, facts first: what happens at once has no order."""
        for event in sorted(events, key=lambda event: _ORDER.index(type(event))):
            if isinstance(event, Told):
                event.post.fate, event.post.given_back = event.fate, event.given_back
            elif isinstance(event, Consented):
                self._consent(event)
            else:
                self._send(event)
        for row in after.rows.values():
            was = before.rows.get(row.id)
            if was is not None and (was.has_earlier, row.has_earlier) == (True, False) and _needs_consent(row):
                self._uncover(row.id)  # the try came to nothing: the next one needs a consent of its own
            if row.state in MAY_BE_PAID and was is not None and was.claim != row.claim:
                self._consents.pop(row.id, None)  # of the POST before

    def _consent(self, event: Consented) -> None:
        if event.by is None:
            self._cover(event.row_id)
        else:
            self._consents.setdefault(event.row_id, set()).add(event.by)

    def _send(self, event: Sent) -> None:
        earlier = self.posts.get(event.claim)
        assert earlier is None or earlier.fate == "refused", "two POSTs of one claim may be accepted"
        if event.by in self._consents.get(event.row_id, ()):
            self._consents.pop(event.row_id)
            self._cover(event.row_id)
        unsettled = [post for post in self._of_row(event.row_id) if post.fate != "refused" and not post.covered]
        assert not unsettled, f"{event.by} pays twice for row {event.row_id}: {unsettled}"
        self.posts[event.claim] = Post(event.row_id, event.claim, event.by)

    def _of_row(self, row_id: int) -> list[Post]:
        return [post for post in self.posts.values() if post.row_id == row_id]

    def _cover(self, row_id: int) -> None:
        for post in self._of_row(row_id):
            post.covered = True

    def _uncover(self, row_id: int) -> None:
        for post in self._of_row(row_id):
            post.covered = False

    def counted(self) -> set[int]:
        """Return the claims of the POSTs that a budget counts."""
        return {post.claim for post in self.posts.values() if not post.given_back}


def _needs_consent(row: Row) -> bool:
    return row.state in (*MAY_BE_PAID, EffectState.FAILED)
