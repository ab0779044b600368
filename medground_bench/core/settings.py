"""Settings as they are given (``NAME=VALUE``), and whether two runs had the same: a folder is made in one way."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from medground_bench.core.errors import MedGroundError, nearest
from medground_bench.core.files import atomic_write

__all__ = ["parse_settings", "parse_settings_for", "parse_settings_of", "require_same", "same_as_before"]


def require_same(what: str, before: Mapping[str, Any], now: Mapping[str, Any], *, where: object) -> None:
    """Refuse to mix results of different settings.

    Parameters
    ----------
    what : str
        What is there already, for the message ("the verdicts in this folder").
    before, now : mapping
        The settings it was made with, as read from JSON, and those of this run.
    where : path
        Where the earlier ones are written down.

    Raises
    ------
    MedGroundError
        If any setting differs, is new, or is gone; each is named with both values.
    """
    now = json.loads(json.dumps(dict(now)))  # a tuple equals the list it was stored as
    changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if changed:
        raise MedGroundError(
            f"{what} were made with other settings: "
            + "; ".join(f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in changed),
            where=where,
            expected="one folder, one way of making what is in it",
            remedy="give the earlier run's options to resume it, use another --out, or delete the folder",
        )


def same_as_before(what: str, path: Path, now: Mapping[str, Any], *, unasked: Mapping[str, Any] | None = None) -> None:
    """:func:`require_same` with the settings in a JSON file, which the first run writes.

    ``unasked`` has what a run went by that an earlier version did not write down: the defaults of later settings.

    Raises
    ------
    MedGroundError
        If any setting differs, or the file is damaged: what is beside it might be anything's.
    """
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(before, dict):
                raise ValueError("no JSON object")
        except (ValueError, RecursionError) as error:
            raise MedGroundError(
                f"what {what} were made with cannot be read: {error}",
                where=path,
                remedy="delete the folder it lies in, and what is there is made again",
            ) from error
        require_same(what, {**(unasked or {}), **before}, now, where=path)
        return
    with atomic_write(path) as file:
        json.dump(dict(now), file, indent=2, sort_keys=True)


def parse_settings(option: str, pairs: list[str]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs of an option -> settings.

    Raises
    ------
    MedGroundError
        If a pair is not of that form.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise MedGroundError(f"--{option} {pair!r} is not understood", expected="NAME=VALUE, e.g. steps=50")
        settings[name] = _value(text)
    return settings


def parse_settings_of(owners: Mapping[str, Collection[str]], pairs: list[str]) -> dict[str, dict[str, Any]]:
    """``--set`` pairs -> owner -> settings: ``OWNER.NAME=VALUE``, or ``NAME=VALUE`` for every owner that has it.

    Parameters
    ----------
    owners : mapping of str to collection of str
        Who runs (methods, an editor, a localizer) -> the names of its settings.
    pairs : list of str
        As on the command line; a setting given for its owner counts more than one given for all.

    Raises
    ------
    MedGroundError
        If a pair is not of that form, nobody of that name runs, or nobody has the setting.
    """
    for_all: dict[str, dict[str, Any]] = {}
    for_one: dict[str, dict[str, Any]] = {}
    for key, value in parse_settings("set", pairs).items():
        owner, dot, name = key.rpartition(".")
        if dot and owner not in owners:
            raise MedGroundError(
                f"--set {key}: no {owner!r} runs here",
                expected=f"OWNER.NAME=VALUE with OWNER one of {', '.join(owners)}, or NAME=VALUE for all",
                remedy=nearest(owner, owners),
            )
        having = [one for one, names in owners.items() if name in names]
        if not dot and not having:
            known = sorted({one for names in owners.values() for one in names})
            raise MedGroundError(
                f"--set {key}: none of {', '.join(owners)} has a setting {name!r}",
                expected=f"one of {', '.join(known)}" if known else "no setting",
                remedy=nearest(name, known),
            )
        for one in [owner] if dot else having:
            (for_one if dot else for_all).setdefault(one, {})[name] = value
    return {one: {**for_all.get(one, {}), **for_one.get(one, {})} for one in owners if one in {*for_all, *for_one}}


def parse_settings_for(owner: str, pairs: list[str]) -> dict[str, Any]:
    """``--set`` pairs of the one thing that takes settings here: ``NAME=VALUE`` or ``OWNER.NAME=VALUE``.

    Raises
    ------
    MedGroundError
        If a pair is not of that form, or names another owner.
    """
    settings = {}
    for key, value in parse_settings("set", pairs).items():
        named, dot, name = key.rpartition(".")
        if dot and named != owner:
            raise MedGroundError(f"--set {key}: no {named!r} runs here", expected=f"NAME=VALUE or {owner}.NAME=VALUE")
        settings[name] = value
    return settings


def _value(text: str) -> Any:
    """A value as JSON where it parses, else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
