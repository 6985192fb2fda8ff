"""What the documents point to is there, and each promise names the test that holds it."""

import ast
import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.shrunk import REPOSITORY

DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
DOCUMENTS += sorted((REPOSITORY / "docs").glob("*.md"))
LINK = re.compile(r"\[[^]]*\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
FILE = re.compile(r"\b(?:experiments|tests|benchmarks)/[\w/.-]+\.(?:yaml|sh|py)\b")
BENCHMARK = re.compile(r"python -m benchmarks\.(\w+)")


def anchors(document: Path) -> set[str]:
    """The names of a document's headings in links."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_links_lead_somewhere(document):
    for path, anchor in LINK.findall(document.read_text()):
        target = document.parent / path if path else document
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_files_that_are_named_exist(document):
    text = document.read_text()
    named = [REPOSITORY / name for name in FILE.findall(text) if "my_" not in name]
    assert [file for file in named if not file.exists()] == []
    modules = [f"benchmarks.{name}" for name in BENCHMARK.findall(text)]
    assert [module for module in modules if find_spec(module) is None] == []


def test_each_promise_links_to_a_test():
    text = (REPOSITORY / "README.md").read_text()
    section = text.partition("## What you can rely on\n")[2].partition("\n## ")[0]
    promises = re.split(r"^- ", section, flags=re.MULTILINE)[1:]
    assert promises
    assert [promise for promise in promises if "](tests/" not in promise] == []


def test_the_python_of_the_readme_imports_what_there_is():
    text = (REPOSITORY / "README.md").read_text()
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names)
