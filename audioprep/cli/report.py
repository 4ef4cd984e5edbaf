"""Prints summaries for people."""

from __future__ import annotations

from typing import Any


def describe(summary: dict[str, Any]) -> str:
    """A summary as aligned lines; nested values are indented."""
    return "\n".join(_lines(summary, indent=2))


def calibration_table(summary: dict[str, Any]) -> str:
    """What `audioprep dedup --calibrate` found: a row a kind of copies; two columns a method, of which the first is
    for the threshold in use, and the second for the recommended one."""
    methods: dict[str, dict[str, Any]] = summary["methods"]
    columns = [found[which] for found in methods.values() for which in ("in_use", "recommended")]
    kinds = list(next(column for column in columns if column)["recall"])

    def row(label: str, values: list[Any], form: str) -> str:
        return f"  {label:12}" + "".join(f"{'-' if value is None else format(value, form):>8}" for value in values)

    lines = [
        f"  {summary['copies']} copies of {summary['recordings']} recordings; of each method, what is found at the",
        f"  threshold in use, and at the lowest one with a precision of {summary['aim']}",
        "",
        "  " + " " * 12 + "".join(f"{name:>16}" for name in methods),
        row("threshold", [column and column["threshold"] for column in columns], ".4f"),
        row("precision", [column and column["precision"] for column in columns], ".4f"),
        *(row(kind, [column and column["recall"][kind] for column in columns], ".2f") for kind in kinds),
        "",
    ]
    if recommended := methods[summary["best"]]["recommended"]:
        lines.append(f"  best: {summary['best']} --similarity-threshold {recommended['threshold']:.4f}")
    else:
        lines.append("  no threshold has this precision")
    if pairs := summary["most_similar_strangers"][:3]:
        lines.append("  most similar of different recordings; if they are copies, leave one out, and calibrate again:")
        lines += [f"    {pair['similarity']:.4f}  {pair['one']}, {pair['other']}" for pair in pairs]
    return "\n".join([*lines, f"  picture     {summary['picture']}"])


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
