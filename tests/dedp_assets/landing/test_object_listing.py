"""A listing in parts: whatever happens in the store, everything is seen in time, and nothing settles unseen."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedp_assets.landing import object_listing
from dedp_assets.landing.object_listing import ROUNDS, Listing, NoOrder
from dedp_assets.resources.object_store import Page, StoredObject

SETTLE = 2.0


class Store:
    """Objects with a number that each write raises, listed three at a time, as a store of pages of three does it."""

    def __init__(self, names: list[str]) -> None:
        self.objects = {name: StoredObject(1, 0, "0") for name in names}
        self.writes, self.asked = 0, 0

    def put(self, name: str) -> None:
        self.writes += 1
        self.objects[name] = StoredObject(1, 0, str(self.writes))

    def page(self, after: str) -> Page:
        self.asked += 1
        names = sorted(name for name in self.objects if name > after)
        return Page({name: self.objects[name] for name in names[:3]}, len(names) < 3)


@pytest.fixture(autouse=True, scope="module")
def pages_of_three() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_listing, "PAGE", 3)
        yield


def rested(store: Store) -> Listing:
    listing = Listing(store.objects, 0.0)
    listing.refresh(store.page, 5.0, SETTLE)
    return listing


NAMES = [f"{number:02}" for number in range(40)]
writes = st.lists(st.tuples(st.sampled_from(["put", "delete", "tick"]), st.sampled_from(NAMES)), max_size=60)


@given(st.sets(st.sampled_from(NAMES)), writes)
def test_every_change_is_seen_within_the_rounds_whatever_was_written_and_deleted(
    names: set[str], writes: list[tuple[str, str]]
) -> None:
    store = Store(sorted(names))
    listing, now = Listing(store.objects, 0.0), 0.0
    for what, name in writes:
        if what == "put":
            store.put(name)
        elif what == "delete":
            store.objects.pop(name, None)
        else:
            now += 5
            listing.refresh(store.page, now, SETTLE)
    for _ in range(ROUNDS + 1):
        now += 5
        listing.refresh(store.page, now, SETTLE)
    assert listing.objects == store.objects


def test_what_comes_after_the_last_name_is_seen_at_once() -> None:
    store = Store(NAMES)
    listing = rested(store)
    for name in ("40", "41", "42", "43", "44"):
        store.put(name)
    listing.refresh(store.page, 10.0, SETTLE)
    assert listing.objects == store.objects


def test_a_change_is_looked_at_again_each_time_until_it_has_settled() -> None:
    store = Store(NAMES)
    listing = rested(store)
    store.put("20")
    now = 10.0
    while listing.objects != store.objects:
        now += 5
        listing.refresh(store.page, now, SETTLE)
    store.put("20")  # before it has been seen twice
    listing.refresh(store.page, now + 1, SETTLE)
    assert listing.objects == store.objects
    store.put("20")  # before it has been seen for long enough
    listing.refresh(store.page, now + 2, SETTLE)
    assert listing.objects == store.objects


def test_a_prefix_at_rest_costs_a_share_of_the_requests() -> None:
    store = Store([f"{number:04}" for number in range(360)])  # 120 pages
    listing = rested(store)
    store.asked = 0
    for turn in range(ROUNDS):
        listing.refresh(store.page, 10.0 + turn, SETTLE)
    assert store.asked <= 120 + 2 * ROUNDS  # each page once, and the end each time


@pytest.mark.parametrize(
    "page",
    [
        Page({"b": StoredObject(1, 0, ""), "a": StoredObject(1, 0, "")}, True),
        Page({"00": StoredObject(1, 0, "")}, True),
        Page({"40/deeper": StoredObject(1, 0, "")}, True),
    ],
    ids=["not by name", "not from a name on", "a folder in between"],
)
def test_a_store_that_lists_otherwise_is_told_from_one_that_lists_by_name(page: Page) -> None:
    listing = rested(Store(NAMES))
    with pytest.raises(NoOrder):
        listing.refresh(lambda _: page, 10.0, SETTLE)
