"""Where devices files arrive."""

from dedp_assets import settings
from dedp_assets.landing.dated import DatedFolder


def landing_folder() -> DatedFolder:
    """The landing folder of the devices."""
    return DatedFolder(settings.landing() / "devices", "dataset.csv")
