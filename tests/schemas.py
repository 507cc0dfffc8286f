"""JSON schemas of what is written for others to read, from the records that write it: ``python -m tests.schemas``.

Written are docs/schemas/manifest-FORMAT.json and card-FORMAT.json. A schema that is published may gain optional fields and better
descriptions; whatever else changes takes another format number, and this program then says so instead of writing.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from kcompiler.runtime.bundle.manifest import FORMAT, Manifest
from kcompiler.runtime.deployed import CARD_FORMAT, Card

FOLDER = Path(__file__).parents[1] / "docs" / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
RECORDS: Mapping[str, tuple[type[BaseModel], int]] = {"manifest": (Manifest, FORMAT), "card": (Card, CARD_FORMAT)}
NOTES = ("description", "title", "default", "$id", "$defs")
"""Keys that say nothing about what is valid; definitions are compared where both schemas have them."""
ATTRIBUTES = "Attributes:"


def described(record: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """What the docstring says of a record, and of each of its fields under "Attributes:", as plain lines of text."""
    about, _, listed = (inspect.getdoc(record) or "").partition(ATTRIBUTES)
    fields: dict[str, str] = {}
    for entry in re.split(r"\n {4}(?=\S)", listed)[1:]:
        names, _, meaning = entry.partition(": ")
        fields.update(dict.fromkeys(re.split(r",\s*", names), plain(meaning)))
    return plain(about), fields


def plain(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


class _Described(GenerateJsonSchema):
    """Schemas whose descriptions are those of the docstrings."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        made = super().model_schema(schema)
        made["description"], fields = described(schema["cls"])
        for name, field in made.get("properties", {}).items():
            if name in fields:
                field["description"] = fields[name]
        return made


def schema_of(name: str) -> dict[str, Any]:
    """The schema of the record that ``name`` stands for, as it is now."""
    record, number = RECORDS[name]
    made = record.model_json_schema(schema_generator=_Described)
    made["properties"]["format"] |= {"const": number}
    return {"$schema": DIALECT, "$id": f"urn:kcompiler:{name}:{number}", **made}


def published(name: str, folder: Path = FOLDER) -> Path:
    """The file of the schema."""
    return folder / f"{name}-{RECORDS[name][1]}.json"


def written(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def incompatible(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """Differences that a reader by ``old`` could stumble over in what is valid by ``new``, or the other way round."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        if old != new:
            yield f"{at or 'the schema'}: {old!r} became {new!r}"
        return
    properties, added = old.get("properties", {}), new.get("properties", {})
    yield from (f"{at}/{name}: is gone" for name in properties if name not in added)
    required, needed = set(old.get("required", ())), set(new.get("required", ()))
    yield from (f"{at}/{name}: became {'required' if name in needed else 'optional'}" for name in sorted(required ^ needed))
    for group in ("properties", "$defs"):
        before, after = old.get(group, {}), new.get(group, {})
        for name in sorted(before.keys() & after.keys()):
            yield from incompatible(before[name], after[name], f"{at}/{name}" if group == "properties" else name)
    for key in sorted((old.keys() | new.keys()) - {"properties", "required", *NOTES}):
        yield from incompatible(old.get(key), new.get(key), f"{at}/{key}")


def main(folder: Path = FOLDER) -> int:
    """Writes the schemas that changed; returns 1 where one may not change under its format number."""
    code = 0
    folder.mkdir(exist_ok=True)
    for name in RECORDS:
        path, schema = published(name, folder), schema_of(name)
        old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else schema
        if differences := list(incompatible(old, schema)):
            print(f"{path}: raise the format number of the {name}, or take back:", *differences, sep="\n  ", file=sys.stderr)
            code = 1
        else:
            path.write_text(written(schema), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
