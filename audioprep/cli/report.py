"""Prints summaries for people."""

from __future__ import annotations

from typing import Any


def describe(summary: dict[str, Any]) -> str:
    """A summary as aligned lines; nested values are indented."""
    return "\n".join(_lines(summary, indent=2))


def _lines(summary: dict[str, Any], indent: int) -> list[str]:
    width = max((len(name) for name in summary), default=0)
    lines = []
    for name, value in summary.items():
        label = " " * indent + f"{name.replace('_', ' '):{width}}"
        if isinstance(value, dict) and (_is_nested(value) or len(_text(value)) > 80):
            lines += [label.rstrip(), *_lines(value, indent + 2)]
        elif isinstance(value, list) and value:
            lines += [label.rstrip(), *(" " * (indent + 2) + _text(item) for item in value)]
        else:
            lines.append(f"{label}  {_text(value)}")
    return lines


def _is_nested(value: dict[str, Any]) -> bool:
    return any(isinstance(inner, (dict, list)) for inner in value.values())


def _text(value: Any) -> str:
    if isinstance(value, dict) and value:
        return ", ".join(f"{name.replace('_', ' ')} {_text(inner)}" for name, inner in value.items())
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".") if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, (list, dict)) and not value:
        return "none"
    return "yes" if value is True else "no" if value is False else str(value)
