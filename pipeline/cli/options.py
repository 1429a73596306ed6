"""Options that several commands share, and how defaults are read from where they live."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def default_of(function: Callable[..., Any], parameter: str) -> Any:
    """The default of a function's parameter, so that the command line never states a second one."""
    return inspect.signature(function).parameters[parameter].default


def option_of(options: type) -> Callable[..., Callable[[Command], Command]]:
    """Makes click options of a dataclass's fields, each with that field's default.

    The result takes the field's name, the help text, and what else click takes.
    """
    defaults = {field.name: field.default for field in fields(options)}

    def option(name: str, help: str, **attributes: Any) -> Callable[[Command], Command]:
        default = defaults[name]
        words = name.replace("_", "-")
        flag = f"--{words}/--no-{words}" if default is True else f"--{words}"
        return click.option(flag, name, default=default, show_default=default is not None, help=help, **attributes)

    return option


def json_option(command: Command) -> Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


def device_option(command: Command) -> Command:
    """`--device`."""
    return click.option(
        "--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps."
    )(command)


def top_option(function: Callable[..., Any]) -> Callable[[Command], Command]:
    """`--top`, the k of a function."""
    return click.option(
        "-k", "--top", "k", type=int, default=default_of(function, "k"), show_default=True, metavar="K",
        help="How many.",
    )  # fmt: skip


def filter_history_option(command: Command) -> Command:
    """`--filter-history`."""
    return click.option("--filter-history", is_flag=True, help="Rank items of the user's history last.")(command)


def cache_root_option(command: Command) -> Command:
    """`--cache-root`."""
    return click.option(
        "--cache-root",
        type=click.Path(file_okay=False),
        help="Folder of all caches.  [default: $SSNA_CACHE, else the user's cache folder]",
    )(command)


def memory_budget_option(default: str) -> Callable[[Command], Command]:
    """`--memory-budget`, with what it is by default."""
    return click.option(
        "--memory-budget", callback=bytes_number, metavar="SIZE",
        help=f"Memory for layer states, such as 4GB; more are streamed from the cache.  [default: {default}]",
    )  # fmt: skip


def whole_numbers(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Any:
    """An option that is given once for all LLMs, or once for each in their order; `all` is None."""
    return one_or_each(tuple(layers_number(context, parameter, value) for value in values))


def one_or_each(values: tuple[Any, ...]) -> Any:
    """What is given once for all LLMs, or once for each in their order; None if it is not given."""
    return (values or (None,))[0] if len(values) < 2 else values


def bytes_number(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """An amount of memory, such as 4GB, 500MB or 2GiB."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", value.strip(), re.IGNORECASE)
    if found is None:
        raise click.BadParameter(f"found '{value}', expected an amount of memory such as 500MB, 4GB or 2GiB.")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " "))


def layers_number(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """`--layers`: a whole number, or `all` (None)."""
    if value is None or value == "all":
        return None
    try:
        return int(value)
    except ValueError as error:
        message = f"found '{value}', expected a whole number or 'all'."
        raise click.BadParameter(message, context, parameter) from error
