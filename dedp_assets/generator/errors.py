"""What can go wrong, as sentences for the person who asked for a dataset."""

from dedp_assets.errors import PermanentError


class GeneratorError(PermanentError):
    """A dataset could not be generated; the message says why and what to do."""


class ConfigError(GeneratorError):
    """A configuration file is wrong; the message has one ``FILE:LINE: problem`` line per problem."""


class OutputError(GeneratorError):
    """The output folder or file cannot be cleaned, extended or written."""
