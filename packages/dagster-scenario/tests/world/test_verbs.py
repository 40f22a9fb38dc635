"""A verb of one's own is a sentence in the timeline, once it has happened."""

import inspect
from collections.abc import Iterator
from datetime import date

import pytest
from dagster_scenario import Scenario, ScenarioError, verb


def told(scenario: Scenario) -> list[str]:
    return [event.text for event in scenario.timeline.events if event.kind == "world"]


@verb("{supplier} delivers {day:%d %B} in {files[0]}, {count} in all")
def deliver(scenario: Scenario, supplier: str, day: date, *files: str, count: int = 2) -> list[str]:
    """Drop the files of a day."""
    scenario.happened(f"it is {supplier}'s turn")
    return [f"{supplier} {day} {name}" for name in files]


def test_the_sentence_has_the_arguments_and_the_defaults(scenario: Scenario) -> None:
    deliver(scenario, "acme", date(2024, 1, 5), "a.csv")
    assert told(scenario)[-1] == "acme delivers 05 January in a.csv, 2 in all"


def test_it_is_told_after_what_it_did_itself(scenario: Scenario) -> None:
    deliver(scenario, "acme", date(2024, 1, 5), "a.csv")
    assert told(scenario) == ["it is acme's turn", "acme delivers 05 January in a.csv, 2 in all"]


def test_a_verb_is_still_the_function_it_was(scenario: Scenario) -> None:
    assert deliver(scenario, "acme", date(2024, 1, 5), "a", count=1) == ["acme 2024-01-05 a"]
    assert deliver.__doc__ == "Drop the files of a day."
    assert list(inspect.signature(deliver).parameters) == ["scenario", "supplier", "day", "files", "count"]
    with pytest.raises(TypeError, match="day"):
        deliver(scenario, "acme")  # type: ignore[call-arg]


def test_a_failure_is_told_and_goes_on(scenario: Scenario) -> None:
    @verb("{supplier} delivers")
    def refuse(scenario: Scenario, supplier: str, error: Exception) -> None:
        raise error

    for error in (KeyError("no such supplier"), ValueError()):
        with pytest.raises(type(error)) as raised:
            refuse(scenario, "acme", error)
        assert raised.value is error
    assert told(scenario) == ["acme delivers failed: 'no such supplier'", "acme delivers failed: ValueError"]


def test_methods_of_a_scenario_and_of_other_objects_can_be_verbs(scenario: Scenario) -> None:
    class Supplier:
        name = "acme"

        @verb("{self.name} delivers {day}")
        def deliver(self, scenario: Scenario, day: str) -> None: ...

    class Shop(Scenario):
        @verb("the shop opens at {hour}")
        def opens(self, hour: int = 8) -> None: ...

    Supplier().deliver(scenario, "2024-01-05")
    assert told(scenario) == ["acme delivers 2024-01-05"]
    scenario.close()
    shop = Shop()
    with shop:
        shop.opens()
        assert told(shop) == ["the shop opens at 8"]


def test_arguments_that_the_verb_uses_up_are_told_as_they_were(scenario: Scenario) -> None:
    @verb("{files} arrive")
    def arrive(scenario: Scenario, files: list[str]) -> None:
        files.clear()

    arrive(scenario, ["a", "b"])
    assert told(scenario) == ["['a', 'b'] arrive"]


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ("{suplier} delivers", r"has \{suplier\}, which is none of its parameters \(scenario, supplier\)"),
        ("{} delivers", r"has \{\}, which is none"),
        ("{0} delivers", r"has \{0\}, which is none"),
        ("{supplier:{width}} delivers", r"has \{width\}, which is none"),
        ("{supplier delivers", "is not a format string"),
    ],
)
def test_a_sentence_that_does_not_fit_fails_where_the_verb_is_defined(sentence: str, message: str) -> None:
    def deliver(scenario: Scenario, supplier: str) -> None: ...

    with pytest.raises(ScenarioError, match=message):
        verb(sentence)(deliver)


def test_a_function_that_does_nothing_when_called_is_no_verb() -> None:
    async def later(scenario: Scenario) -> None: ...

    def bit_by_bit(scenario: Scenario) -> Iterator[int]:
        yield 1

    for function in (later, bit_by_bit):
        with pytest.raises(ScenarioError, match="write a plain function"):
            verb("it happens")(function)


def test_a_sentence_that_can_not_be_formed_keeps_the_verb_from_happening(scenario: Scenario) -> None:
    done = []

    @verb("it is {day:%d}")
    def deliver(scenario: Scenario, day: object) -> None:
        done.append(day)

    with pytest.raises(ScenarioError, match=r"the sentence of .*deliver can't be formed: ValueError"):
        deliver(scenario, "2024-01-05")
    assert not done
    assert told(scenario) == []


def test_a_verb_without_a_scenario_says_so() -> None:
    with pytest.raises(ScenarioError, match="its first argument is the scenario"):
        deliver("acme", "acme", date(2024, 1, 5), "a.csv")  # type: ignore[arg-type]
