"""Documents and pictures: pages read, cut and predicted, their regions and words found."""

from samonai.core.errors import InputError

try:
    import defusedxml  # noqa: F401
    import pycocotools  # noqa: F401
    import pypdfium2  # noqa: F401
except ImportError as error:
    raise InputError(
        f"documents need {error.name}, which is not installed: pip install 'samonai[documents]'"
    ) from error

from samonai.domains.documents.domain import DocumentsDomain
from samonai.domains.documents.page import Page

__all__ = ["DocumentsDomain", "Page"]
