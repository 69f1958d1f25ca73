"""Tables of settings: group, name, default, range, unit and meaning, for terminals and the docs."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from samonai.core.settings import Setting
from samonai.settings import DOMAINS, flat, settings_of

VERBS = {"train.json": "train", "evaluate.json": "evaluate", "inference.json": "predict"}
"""A bundle's configuration, and the verb that reads it."""

Configs = Mapping[str, Mapping[str, Any]]
"""Name of a configuration to its content."""

_PAGE = """# Settings

Generated from the descriptions in `samonai/settings/` by `python tools/settings_page.py`.

A setting has one name: `--set NAME=VALUE` on the command line, `NAME=VALUE` in Python,
`--NAME VALUE` to `python -m monai.bundle run`, and `NAME` in `run.json`. A name with a point is a
setting of one block: `--set sampler.box_jitter=0.1`, in Python `sampler={"box_jitter": 0.1}`, and
`--sampler#box_jitter 0.1` to MONAI. Where a setting has an option of its own, the samonai command
line takes that option instead of `--set`. A default of
null in prediction and evaluation means that the run's own value holds.

What another value affects: **pixels** (what the encoder sees; other embeddings, another run),
**weights** (the learned weights; another run), **results** (predictions and measurements), or
nothing (how and where something is computed). `samonai settings DOMAIN` prints the same table.
"""


def settings_lines(domain: str, configs: Configs) -> Iterator[str]:
    """Yield the settings of a domain for a terminal, group by group, with the verbs that take them.

    Args:
        domain: The domain.
        configs: Its bundle's configurations.
    """
    known = {
        name: what
        for name, what in settings_of(domain).items()
        if _verbs(name, configs) and not what.internal
    }
    defaults = {name: what.default_of(domain) for name, what in known.items()}
    verbs = {name: ", ".join(_verbs(name, configs)) for name in known}
    yield from value_lines(defaults, known, verbs)


def value_lines(
    values: Mapping[str, Any],
    described: Mapping[str, Setting],
    notes: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Yield settings and values for a terminal, group by group: range, unit, option, meaning.

    Args:
        values: Full name to value.
        described: The descriptions; entries without one come last, under the title "Others".
        notes: Full name to a further fact.
    """
    titles = {name: what.group for name, what in described.items() if name in values}
    titles |= dict.fromkeys(values.keys() - titles.keys(), "Others")
    for title in dict.fromkeys(titles.values()):
        names = [name for name, group in titles.items() if group == title]
        yield f"{title}:"
        for name in names:
            yield from _setting_lines(
                name, values[name], described.get(name), (notes or {}).get(name)
            )
        yield ""


def _setting_lines(name: str, value: Any, about: Setting | None, note: str | None) -> Iterator[str]:
    line = f"  {name} = {json.dumps(value, default=str)}"
    if about is None:
        yield line
        return
    facts = [about.range_text() or about.type_text(), about.unit, about.option, note]
    yield f"{line}  ({'; '.join(filter(None, facts))})"
    yield from textwrap.wrap(
        about.help,
        96,
        initial_indent=" " * 6,
        subsequent_indent=" " * 6,
        break_on_hyphens=False,
    )


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
    titles = dict.fromkeys(what.group for what in known.values())
    return [
        (title, [what for what in known.values() if what.group == title and not what.internal])
        for title in titles
    ]


def _verbs(name: str, configs: Configs) -> list[str]:
    return [verb for file, verb in VERBS.items() if name in flat(configs.get(file, {}))]


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
