"""The table of docs/shards.md, from the results of `shard_readers.py`."""

from typing import Any

from benchmarks.markdown import made, table

_AS = {"bytes": "bytes, `b'3'`", "int": "a number"}


def readers(name: str, result: dict[str, Any]) -> str:
    """What each reader finds in our shards; ways to pack in which it finds the same share a column."""
    env, rows = result["environment"], []
    ways = list(dict.fromkeys(way for row in result["readers"].values() for way in row.get("ways", ())))
    for reader, row in result["readers"].items():
        if "missing" in row:
            rows.append([reader, row["missing"], *([""] * (len(ways) + 1))])
            continue
        versions = ", ".join(f"{package} {number}" for package, number in row["versions"].items())
        kinds = {each["label_type"] for each in row["ways"].values() if "label_type" in each}
        labels = ", ".join(_AS.get(kind, kind) for kind in sorted(kinds))
        rows.append(
            [f"{reader}: `{row['call']}`", versions, *(cell(row["ways"][way]) for way in ways), labels]
        )
    columns = "|".join(["reader", "versions", *ways, "labels come as"])
    return f"{made(name, env, '../')}:\n\n{table(columns, rows)}"


def cell(found: dict[str, Any]) -> str:
    """What it found of one set."""
    if "error" in found:
        return f"refused: {found['error']}"
    count = found["samples"]
    said = [] if found["photos"] == count else [f"{found['photos']} of {count} photos"]
    said += [f"{found['none']} come as `None` or empty"] if found["none"] else []
    said += [] if found["labels"] == count else [f"{found['labels']} of {count} labels"]
    said += [] if found["in_order"] else ["in another order"]
    return ", ".join(said) or "all"
