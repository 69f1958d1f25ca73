"""Tables of settings: group, name, default, range, unit and meaning, for terminals and the docs."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from samonai.core.settings import Setting, describe
from samonai.settings import COMMON, DOMAINS, settings_of

VERBS = {"train.json": "train", "evaluate.json": "evaluate", "inference.json": "predict"}
"""A bundle's configuration, and the verb that reads it."""

Configs = Mapping[str, Mapping[str, Any]]
"""Name of a configuration to its content."""

_PAGE = """# Settings

Generated from the descriptions in `samonai/settings/` by `python tools/settings_page.py`.

A setting has one name: `--set NAME=VALUE` on the command line, `NAME=VALUE` in Python,
`--NAME VALUE` to `python -m monai.bundle run`, and `NAME` in `run.json`. Where a setting has an
option of its own, the samonai command line takes that option instead of `--set`. A default of
null in prediction and evaluation means that the run's own value holds.

What another value affects: **pixels** (what the encoder sees; other embeddings, another run),
**weights** (the learned weights; another run), **results** (predictions and measurements), or
nothing (how and where something is computed). `samonai settings DOMAIN` prints the same table.
"""


def settings_lines(domain: str, configs: Configs) -> Iterator[str]:
    """Yield the settings of a domain for a terminal, group by group."""
    for title, group in _groups(domain):
        rows = [what for what in group if _verbs(what.name, configs)]
        if not rows:
            continue
        yield f"{title}:"
        for what in rows:
            default = json.dumps(_default(what, domain), default=str)
            facts = [what.range_text() or what.type_text(), what.unit, what.option]
            yield f"  {what.name} = {default}  ({'; '.join(filter(None, facts))})"
            yield from textwrap.wrap(
                what.help, 96, initial_indent=" " * 6, subsequent_indent=" " * 6
            )
        yield ""


def comment(setting: Setting | None) -> str:
    """Return range, unit and meaning of a setting after a comment sign, or nothing."""
    if setting is None:
        return ""
    facts = "; ".join(filter(None, (setting.range_text() or setting.type_text(), setting.unit)))
    return f"  # {facts}. {setting.help}"


def settings_page(configs: Mapping[str, Configs]) -> str:
    """Return the page of the documentation that lists all settings.

    Args:
        configs: Domain to its bundle's configurations.
    """
    parts = [_PAGE]
    domain_titles = {title for domain in DOMAINS for title, _ in _groups(domain)[:1]}
    for domain in DOMAINS:
        title, group = _groups(domain)[0]
        parts.append(f"## {title} (`{domain}`)\n")
        parts.append(_markdown(group, {domain: configs[domain]}))
    for title, group in _groups(next(iter(DOMAINS))):
        if title not in domain_titles:
            parts.append(f"## {title}\n")
            parts.append(_markdown(group, configs))
    return "\n".join(parts)


def _groups(domain: str) -> list[tuple[str, list[Setting]]]:
    known = settings_of(domain)
    groups = ([known[name] for name in describe(group)] for group in (DOMAINS[domain], *COMMON))
    return [(group[0].group, [what for what in group if not what.internal]) for group in groups]


def _verbs(name: str, configs: Configs) -> list[str]:
    return [verb for file, verb in VERBS.items() if name in configs.get(file, {})]


def _default(what: Setting, domain: str) -> Any:
    return what.default_of(domain)


def _markdown(group: list[Setting], configs: Mapping[str, Configs]) -> str:
    head = "| Setting | Default | Range | Unit | Affects | Verbs | Meaning |\n" + "|---" * 7 + "|\n"
    rows = []
    for what in group:
        used = {verb for files in configs.values() for verb in _verbs(what.name, files)}
        verbs = ", ".join(verb for verb in VERBS.values() if verb in used)
        name = f"`{what.name}`" + (f" (`{what.option}`)" if what.option else "")
        cells = [
            name,
            _defaults_text(what, list(configs)),
            what.range_text() or what.type_text(),
            what.unit,
            what.affects.name.lower(),
            verbs,
            what.help,
        ]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return head + "".join(rows)


def _defaults_text(what: Setting, domains: list[str]) -> str:
    if what.is_path:
        return ""
    text = f"`{json.dumps(what.default, default=str)}`"
    own = {name: value for name, value in what.defaults.items() if name in domains}
    return text + "".join(f", {name}: `{json.dumps(value)}`" for name, value in own.items())
