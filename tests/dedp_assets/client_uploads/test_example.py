"""The example of a settings file that ships, and the reference of its settings."""

from importlib import resources
from pathlib import Path

from dedp_assets.client_uploads.settings_file import ClientFinder, Rule, read_settings

EXAMPLE = resources.files("dedp_assets.client_uploads").joinpath("uploads.example.yaml")
REFERENCE = Path(__file__).parents[3] / "docs" / "client_uploads.md"


def test_the_example_that_ships_can_be_read_and_means_what_its_comments_say(tmp_path: Path) -> None:
    settings = read_settings(EXAMPLE.read_text(encoding="utf-8"), "uploads.example.yaml")
    for folder in ("archive/old", "clients/south"):
        (tmp_path / folder).mkdir(parents=True)
    found = ClientFinder(settle_seconds=2).find(settings, tmp_path)
    assert found.problems == []
    acme, north, old, south = (found.by_name[name] for name in ("acme", "north", "old", "south"))
    assert acme.directory.marker_of("orders-1.csv") == "orders-1.csv.done"
    assert (acme.directory.priority, acme.directory.timeout_seconds) == (10, 86_400)
    assert (north.directory.gives_up, north.directory.timeout_seconds) == (True, 7 * 86_400)
    assert north.directory.path == tmp_path / "suppliers/north/incoming"
    assert [column.name for column in north.format.columns] == ["article_number", "article", "price"]
    assert old.target == "uploads/received"
    assert (south.directory.settle_seconds, south.target) == (30, "uploads/records")


def test_the_reference_explains_each_setting() -> None:
    reference = REFERENCE.read_text(encoding="utf-8")
    for name in Rule.model_fields:
        assert f"| `{name}` |" in reference
