"""A large prefix of an object store, of which each tick lists only a part.

A store lists 1,000 objects per request, in the order of their names. So 100,000 old objects cost 100 requests at each
tick. New objects often come last in that order, because their names begin with a date or a number, but nobody promises
it, and a rewritten object keeps its place. Therefore a refresh lists:

1. what comes after the last known name;
2. again, the places in which something changed a moment ago, until it was listed unchanged for the settle time: what
   counts as settled was really looked at;
3. one of ROUNDS shares of the rest, the next one each time. So any change, wherever it is, is seen after at most
   ROUNDS refreshes.

What an object is now is decided by what the store says of it: size, time and ETag. Nothing is downloaded.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping

from dedp_assets.resources.object_store import PAGE, Page, StoredObject

# With a tick every 5 s, everything is listed once a minute.
ROUNDS = 12


class NoOrder(Exception):
    """The store does not list as this needs it: not by name, not from a name on, or there are folders in between."""


class Listing:
    """What lies below one prefix, as it was listed last, part by part.

    Args:
        objects: The whole prefix as it is now.
        now: When it was listed, in s by any clock that the refreshes use, too.
    """

    def __init__(self, objects: Mapping[str, StoredObject], now: float) -> None:
        self.objects = dict(objects)
        self._names = sorted(objects)
        # Objects that have not been listed unchanged for the settle time, and since when they are as they are.
        self._restless = dict.fromkeys(objects, now)
        # The next share begins after this name.
        self._turn = ""

    def refresh(self, list_page: Callable[[str], Page], now: float, settle_seconds: float) -> None:
        """List what has to be listed now.

        Args:
            list_page: Lists the objects that come after a name.
            now: In s.
            settle_seconds: How long an object must be listed unchanged before it need not be listed each time.

        Raises:
            NoOrder: What is known is not worth anything any more: list the whole prefix.
            StorageProblem: As `list_page`. What was listed before it counts, and the next refresh goes on.
        """

        def list_after(name: str) -> str | None:
            return self._note(name, list_page(name), now, settle_seconds)

        end: str | None = ""
        for name in sorted(self._restless):
            if end is not None and name > end:
                end = list_after(self._before(name))
        for _ in range(-(-len(self._names) // (PAGE * ROUNDS))):
            self._turn = list_after(self._turn) or ""
            if not self._turn:
                break
        end = self._names[-1] if self._names else ""
        while end is not None:
            end = list_after(end)

    def _before(self, name: str) -> str:
        place = bisect_left(self._names, name)
        return self._names[place - 1] if place else ""

    def _note(self, after: str, page: Page, now: float, settle_seconds: float) -> str | None:
        """Take over what one answer says of a range of names. Returns the last of them, or None if no others follow."""
        names = list(page.objects)
        if names != sorted(names) or (names and names[0] <= after) or any("/" in name for name in names):
            raise NoOrder
        begin = bisect_right(self._names, after)
        end = len(self._names) if page.is_last or not names else bisect_right(self._names, names[-1])
        for name in self._names[begin:end]:
            if name not in page.objects:
                del self.objects[name]
                self._restless.pop(name, None)
        for name, stored in page.objects.items():
            if self.objects.get(name) != stored:
                self.objects[name] = stored
                self._restless[name] = now
            elif name in self._restless and now - self._restless[name] >= settle_seconds:
                del self._restless[name]
        self._names[begin:end] = names
        return None if page.is_last else names[-1]
