"""Makes a page from its template, which has the style of all pages as `page_style`."""

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from dedp_assets.wording import counted, duration, in_utc, printable

if TYPE_CHECKING:
    from jinja2 import Template

# A page that loads nothing may stand anywhere. Should text of others ever get into it as markup, it is not executed.
SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


@cache
def template(package: str, name: str) -> "Template":
    """The template of a page. What it inserts is escaped, and a name that it is not given is an error.

    Args:
        package: The package that has the template.
        name: The name of its file.
    """
    # Not at the top: a code location need not wait for the import.
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"printable": printable, "utc": in_utc, "duration": duration}
    environment.globals["counted"] = counted
    style = Markup(resources.files("dedp_assets.pages").joinpath("page.css").read_text(encoding="utf-8"))
    environment.globals |= {"page_style": style, "security_policy": Markup(SECURITY_POLICY)}
    return environment.from_string(resources.files(package).joinpath(name).read_text(encoding="utf-8"))
