"""Write docs/settings.md from the descriptions of the settings."""

from pathlib import Path

from samonai.settings import DOMAINS
from samonai.settings.table import settings_page
from samonai.workflows.bundle_files import find_bundle, plain_configs

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"


def page() -> str:
    """Return the page as it should be."""
    return settings_page({domain: plain_configs(find_bundle(domain)) for domain in DOMAINS})


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
