"""The pages against the code: options, generated pages, quoted errors, links."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache

import pytest
from support.documentation import PAGES, ROOT, commands, mentions

from builder_host.planexec.arguments import option_parser
from runtime_edge.cli import command_parser, find_commands
from scripts import api_reference, make_cli_reference

PACKAGES = ("planformat", "runtime_edge", "boards", "builder_host")


@cache
def parser_of(name):
    return option_parser() if name == "planexec" else command_parser(name, find_commands()[name])


def split_name(command):
    """Name of the sub-command and the words behind it."""
    if command.words[0] == "planexec":
        return "planexec", command.words[1:]
    two = " ".join(command.words[1:3])
    if two in find_commands():
        return two, command.words[3:]
    return command.words[1], command.words[2:]


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_blocks_parse(page, capsys):
    for command in commands(page):
        name, words = split_name(command)
        assert name == "planexec" or name in find_commands(), str(command)
        if command.is_whole:
            try:
                parser_of(name).parse_args(words)
            except SystemExit:
                pytest.fail(f"{command}\n{capsys.readouterr().err}")


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_in_the_text_exist(page):
    for command in [*mentions(page), *(c for c in commands(page) if not c.is_whole)]:
        name, words = split_name(command)
        if not re.fullmatch(r"[a-z][a-z -]*", name):  # `edgeplan COMMAND --help`
            continue
        if name not in find_commands() and name != "planexec":
            name = name.rstrip("s")
        assert name == "planexec" or name in find_commands(), str(command)
        known = {text for action in parser_of(name)._actions for text in action.option_strings}
        for word in words:
            option = re.match(r"\[?(--?[A-Za-z][\w-]*)", word)
            if option:
                assert option[1] in known, f"{command}: no option {option[1]}"


def test_there_are_commands_to_check():
    assert sum(len(commands(page)) for page in PAGES) > 60
    assert sum(len(mentions(page)) for page in PAGES) > 60


def test_command_line_page_is_what_the_generator_writes():
    written = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    assert written == make_cli_reference.page(), "run scripts/make_cli_reference.py"


def messages_in_code():
    """Every text in the packages, `\\0` where something is filled in."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(
                        str(part.value) if isinstance(part, ast.Constant) else "\0"
                        for part in node.values
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def quoted_errors(page):
    """Texts in the first column of the tables headed `text` or `seen` with a backquoted text."""
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        found = re.match(r"\| `([^`]+)`[^|]*\|[^|]*\|[^|]*\|$", line)
        if found:
            yield found[1]


def test_quoted_errors_are_those_of_the_code():
    texts = list(messages_in_code())
    quoted = list(quoted_errors("docs/troubleshooting.md"))
    assert len(quoted) > 25
    missing = []
    for quote in quoted:
        pieces = re.split(r"\.\.\.|\b[NM]\b|'build'|\d+\.\d+", quote)
        pattern = re.compile(".*".join(re.escape(piece.strip("' ")) for piece in pieces), re.DOTALL)
        if not any(pattern.search(text) for text in texts):
            missing.append(quote)
    assert not missing


def test_site_builds_without_warnings(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra 'docs' is not installed")
    built = build_site(ROOT / "mkdocs.yml", tmp_path / "site")
    assert built.returncode == 0, built.stdout + built.stderr
    page = (tmp_path / "site" / "threat-model.html").read_text(encoding="utf-8")
    assert 'href="planformat/SPEC.html#5-rules-across-sections"' in page
    for name in ("boards/link/PROTOCOL.html", "benchmarks/RESULTS.html", "command-line.html",
                 *(uri.replace(".md", ".html") for uri in api_reference.PAGES)):  # fmt: skip
        assert (tmp_path / "site" / name).stat().st_size > 5000


def test_links_and_pictures_of_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = [*re.findall(r"\]\(([^)#\s]+)", text), *re.findall(r'src="([^"]+)"', text)]
    local = [target for target in found if "://" not in target]
    assert len(local) > 10
    assert [target for target in local if not (ROOT / target).exists()] == []


def test_a_link_to_nothing_fails_the_build(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra 'docs' is not installed")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(
        "[gone](../planformat/NOTHING.md) [code](../planformat/reader.py)\n"
    )
    (tmp_path / "mkdocs.yml").write_text(
        f"site_name: t\nhooks: ['{ROOT / 'scripts' / 'docs_pages.py'}']\n"
        "validation: {omitted_files: ignore, unrecognized_links: ignore}\n"
    )
    built = build_site(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert built.returncode == 1
    assert "link to '../planformat/NOTHING.md': the repository has no such file" in built.stderr
    assert "reader.py" not in built.stderr


def build_site(config, folder):
    return subprocess.run(
        [
            *(sys.executable, "-m", "mkdocs", "build", "--strict"),
            *("--config-file", str(config), "--site-dir", str(folder)),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
