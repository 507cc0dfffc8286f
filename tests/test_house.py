"""The house: imports run one way, between folders and between files, and the documents name files that exist."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("runtime", "passes", "kcompiler")
"""From the ground up."""
DOCUMENTS = ("CONTRIBUTING.md", "README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
Arrows = Mapping[str, Set[str]]


def modules() -> dict[str, Path]:
    """Files by the names that they are imported as."""
    found = {}
    for floor in FLOORS:
        for path in (ROOT / floor).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts if floor == "kcompiler" else ("kcompiler", *parts))
            found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: Set[str]) -> Iterator[str]:
    """The modules that a file imports, also inside functions and for type checking only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            inner = {f"{node.module}.{name.name}" for name in node.names}
            yield from inner & known or {node.module}


def file_arrows() -> Arrows:
    files = modules()
    return {name: set(imports(path, set(files))) - {name} for name, path in files.items()}


def folder_arrows() -> Arrows:
    """Between the packages that hold them; a file beside a package's folders is a room of its own."""
    files = modules()
    packages = {name for name, path in files.items() if path.name == "__init__.py"}

    def room(name: str) -> str:
        parent = name.rpartition(".")[0]
        if name in packages and name not in ("kcompiler", "kcompiler.passes", "kcompiler.runtime"):
            return name
        return name if parent in ("kcompiler.passes", "kcompiler.runtime") or not parent else parent

    arrows: dict[str, set[str]] = defaultdict(set)
    for name, others in file_arrows().items():
        arrows[room(name)] |= {room(other) for other in others} - {room(name)}
    return arrows


def circle(arrows: Arrows) -> list[str]:
    """Names along one circle, empty if there is none."""
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name not in done:
            for other in sorted(arrows.get(name, ())):
                if found := visit(other, [*trail, name]):
                    return found
            done.add(name)
        return []

    return next((found for name in sorted(arrows) if (found := visit(name, []))), [])


def test_circles_are_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_files_do_not_import_each_other():
    # the API imports the command line's pipeline when it is called, and that the API's errors: through the package itself
    arrows = {name: others - {"kcompiler"} for name, others in file_arrows().items()}
    assert circle(arrows) == []


def test_folders_are_not_imported_from_below():
    inner = {name: {other for other in others if other != "kcompiler"} for name, others in folder_arrows().items()}
    assert circle({name: others for name, others in inner.items() if name != "kcompiler"}) == []


@pytest.mark.parametrize("floor", FLOORS)
def test_floors_import_only_what_is_under_them(floor):
    above = tuple("kcompiler" if name == "kcompiler" else f"kcompiler.{name}" for name in FLOORS[FLOORS.index(floor) + 1 :])
    lower = tuple(f"kcompiler.{name}" for name in FLOORS[: FLOORS.index(floor) + 1])
    for name, others in file_arrows().items():
        if not name.startswith(f"kcompiler.{floor}"):
            continue
        for other in others:
            assert other.startswith(lower), f"{name} imports {other}, of {above}"


def test_imports_point_down_the_table_of_the_house():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = [row for row in re.findall(r"^\| `((?:passes|runtime)/[\w./]*)` \|", text, re.MULTILINE) if row != "runtime/"]
    files, arrows = modules(), file_arrows()

    def room(name: str) -> int | None:
        path = files[name].relative_to(ROOT).as_posix()
        return next((number for number, row in enumerate(rooms) if path.startswith(row)), None)

    assert {room(name) for name in files} >= set(range(len(rooms))), "every row is of files that are there"
    for name, others in arrows.items():
        for above, under in ((room(name), room(other)) for other in others):
            assert above is None or under is None or above <= under, f"{rooms[above]} imports {rooms[under]}, above it ({name})"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_files_that_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:kcompiler|passes|runtime|tests|models|docs|examples)/[\w./-]*)`", text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_folder_is_described():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in modules().values():
        if path.name == "__init__.py" and path.parent.parent.name in ("passes", "runtime"):
            assert f"`{path.parent.relative_to(ROOT)}/`" in text, path.parent
