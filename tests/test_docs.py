"""Promises of the documents: they are complete, their links lead somewhere, and their examples can be run."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import run_cli, start_server, stop_server

from search.index import Index

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "client" / "README.md")
    if path.name != "CHANGELOG.md"
)
GUIDES = [path for path in PAGES if path.name != "cli.md"]
"""Pages that people wrote."""


def written(pages: list[Path] = GUIDES) -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    sys.path.append(str(ROOT / "docs"))
    import reference

    return {name: make() for name, make in reference.GENERATED.items()}


@pytest.mark.parametrize("name", ["cli.md", "openapi.json"])
def test_what_is_written_from_the_code_is_up_to_date(generated: dict[str, str], name: str) -> None:
    held = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert held == generated[name], f"run: python docs/reference.py, and look at what it changes in docs/{name}"


def test_every_command_and_flag_stands_in_a_page_that_people_wrote(generated: dict[str, str]) -> None:
    pages = written()
    commands = re.findall(r"^## lookalike (\S+)$", generated["cli.md"], re.MULTILINE)
    assert "build" in commands
    assert [name for name in commands if f"lookalike {name}" not in pages and f"`{name}`" not in pages] == []
    flags = set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", generated["cli.md"], re.MULTILINE))
    assert "--exclude" in flags
    assert sorted(flag for flag in flags - {"--help"} if not re.search(rf"{flag}(?![\w-])", pages)) == []


def test_every_setting_stands_in_http_md() -> None:
    from api.settings import Settings

    page = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    assert [name for name in Settings.model_fields if f"`{name.upper()}`" not in page] == []


def test_every_error_code_stands_in_errors_md() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    source = (ROOT / "api" / "http" / "problems.py").read_text(encoding="utf-8")
    codes = set(re.findall(r'HTTPStatus\.\w+,\s*"([a-z-]+)"', source))
    assert {"overloaded", "invalid-filter"} <= codes
    assert sorted(code for code in codes if f"`{code}`" not in page) == []


def test_every_metric_stands_in_deployment_md() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    names = set()
    for path in (ROOT / "api").rglob("*.py"):
        names |= set(re.findall(r'(?:Counter|Gauge|Histogram)\(\s*"(lookalike_\w+)"', path.read_text(encoding="utf-8")))
    assert "lookalike_request_seconds" in names
    assert sorted(name for name in names if name not in page) == []


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+:", target):
                yield page, target


def anchors(page: Path) -> set[str]:
    """The names that headings have as links, as the large hosts of repositories make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere() -> None:
    broken = []
    for page, target in links():
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(f"{page.name}: {target}")
    assert broken == []


def test_the_pages_name_no_file_that_is_not_there() -> None:
    missing = []
    for page in GUIDES:
        rooms = r"(?:search|indexer|api|benchmarks|data|docs|tests|torture|client|findings)"
        text = page.read_text(encoding="utf-8")
        named = re.findall(rf"(?<![\w/.-])({rooms}/[\w/.-]+\.(?:py|md|png|json|sh))", text)
        missing += [f"{page.name}: {name}" for name in named if not (ROOT / name).exists()]
    assert missing == []


def blocks(language: str) -> list[tuple[str, str]]:
    found = []
    for page in GUIDES:
        text = page.read_text(encoding="utf-8")
        found += [(page.name, code) for code in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]
    return found


def test_every_python_block_can_be_parsed_and_imports_what_there_is() -> None:
    assert blocks("python")
    for page, code in blocks("python"):
        tree = ast.parse(code, filename=page, type_comments=False)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lookalike_client"):
                module = __import__(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), f"{page}: {ast.unparse(node)}"


def test_every_command_line_in_the_pages_has_commands_and_flags_that_there_are(generated: dict[str, str]) -> None:
    sections = dict(re.findall(r"^## lookalike (\S+)\n\n```\n(.*?)```", generated["cli.md"], re.MULTILINE | re.DOTALL))
    wrong = []
    for page in GUIDES:
        if page.name in ("decisions.md", "benchmarks.md"):  # what was, and other programs
            continue
        for line in re.findall(r"(?:^\$ |`)lookalike ([a-z][^`\n]*)", page.read_text(encoding="utf-8"), re.MULTILINE):
            name = line.split()[0]
            if name not in sections:
                wrong.append(f"{page.name}: lookalike {line}")
                continue
            flags = re.findall(r"(?<!\S)(--[a-z][a-z-]*)", re.split(r"[;|&(]|, ", line)[0])
            wrong += [f"{page.name}: {flag} of {name}" for flag in flags if flag not in sections[name]]
    assert wrong == []


def test_the_spelling_is_checked() -> None:
    checked = subprocess.run([sys.executable, "-m", "codespell_lib"], cwd=ROOT, capture_output=True, text=True)
    assert checked.stdout + checked.stderr == ""


def test_continuous_integration_runs_what_the_classifiers_claim() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    claimed = [line.rpartition(" :: ")[2] for line in project["classifiers"]]
    versions = {name for name in claimed if re.fullmatch(r"3\.\d+", name)}
    assert set(re.findall(r'python: "(3\.\d+)"', workflow)) == versions
    systems = {"Linux": "ubuntu", "MacOS": "macos", "Windows": "windows"}
    assert {name for name, runner in systems.items() if f"{runner}-latest" in workflow} == systems.keys() & claimed


def test_no_page_has_lines_that_cannot_be_read_in_a_diff() -> None:
    long = []
    for page in GUIDES:
        in_block = False
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
            in_block ^= line.startswith("```")
            if len(line) > 120 and not in_block and not line.startswith(("|", "[")):
                long.append(f"{page.name}:{number}")
    assert long == []


STUMBLES = re.compile(
    r"design page|\bsession before|(?<![tT]here )\bis no (?!longer|more\b)|\banew\b|\bto be had\b|\bat hand\b"
    r"|\b[wW]ho (?:asks|writes|calls)\b|\bso (?:many|much)\b|[aA] (?:strict )?reader (?:found|tried)|new\s+engineer"
)
"""Words over which a first-time reader stumbles; `so many` stands for a number that has a name."""


def test_no_page_has_words_over_which_a_reader_stumbles() -> None:
    found = []
    for page in (*PAGES, ROOT / "CHANGELOG.md", ROOT / "data" / "README.md"):
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        found += [f"{page.name}: {match[0]}" for match in STUMBLES.finditer(text)]
    assert found == []


def test_no_paragraph_is_longer_than_120_words() -> None:
    long = []
    for page in GUIDES:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        paragraphs = [
            part for part in re.split(r"\n\s*\n|\n(?=[-#|]|\d+\. )", text) if not part.lstrip().startswith("|")
        ]
        long += [f"{page.name}: {part.strip()[:60]}" for part in paragraphs if len(part.split()) > 120]
    assert long == []


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_file_is_short_and_begins_with_its_purpose() -> None:
    packages = ("search", "indexer", "analysis", "api", "client/lookalike_client")
    files = {path: path.read_text("utf-8") for name in packages for path in (ROOT / name).rglob("*.py")}
    assert len(files) > 100
    assert [path.name for path, text in files.items() if text.count("\n") > 350] == []
    assert [path.name for path, text in files.items() if text and ast.get_docstring(ast.parse(text)) is None] == []


def test_the_boxes_of_the_readme_are_folders() -> None:
    drawing = README.partition("## How it is made\n\n```\n")[2].partition("```")[0]
    named = set(re.findall(r"\b(?:search|indexer|api)(?:/\w+)?(?= )", drawing))
    assert {"indexer/encoders", "search/catalog", "api/http"} <= named
    assert sorted(name for name in named if not (ROOT / name).is_dir()) == []


SCORE = r"\b0\.\d{4}\b"


def check_alike(printed: list[str], said: list[str], precision: str) -> None:
    """Compare lines but for what differs from one machine to the next: rates, and scores, in bf16 more than in fp32."""
    masked = [
        [re.sub(r"at [\d.]+ a second", "", re.sub(SCORE, "", line)) for line in lines] for lines in (printed, said)
    ]
    assert masked[0] == masked[1]
    scores = [[float(score) for line in lines for score in re.findall(SCORE, line)] for lines in (printed, said)]
    assert scores[0] == pytest.approx(scores[1], abs=0.03 if precision == "bf16" else 0.006)


@pytest.mark.slow
def test_the_readmes_blocks_print_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("indexer.progress.LINE_SECONDS", 3_600)  # of a busy machine
    here = README.replace("/home/ann/lookalike/data", f"{ROOT}/data").replace(" data/", f" {ROOT}/data/")
    here = here.replace("/home/ann/lookalike", str(tmp_path))
    shell = re.findall(r"```\n(\$ (?:lookalike|cp) .*?)```", here, re.DOTALL)
    commands = [part.splitlines() for block in shell for part in re.split(r"^\$ lookalike ", block, flags=re.M)[1:]]
    assert [lines[0].split()[0] for lines in commands] == ["build", "search", "search", "serve", "build", "dups"]

    def check(command: str, *said: str) -> None:
        ended = run_cli(*shlex.split(command))
        printed = [line for line in (ended.stdout + ended.stderr).splitlines() if "dinov2" not in line]
        first, second = (sorted(lines, key=lambda line: re.sub(SCORE, "", line)) for lines in (printed, said))
        with Index.open(tmp_path / "lookalike.index") as index:
            check_alike(first, second, index.space().encoding.precision)

    for lines in commands[:3]:
        check(*lines)
    (code, said_by_code), *_ = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", here, re.DOTALL)
    process, url = start_server(tmp_path / "lookalike.index")
    try:
        exec(code.replace("http://localhost:8000", url).replace('"data/', f'"{ROOT}/data/'), {})
        with Index.open(tmp_path / "lookalike.index") as index:
            precision = index.space().encoding.precision
        check_alike(capsys.readouterr().out.splitlines(), said_by_code.splitlines(), precision)
    finally:
        assert stop_server(process) == 0
    (copy,) = re.findall(r"^\$ cp (\S+) (\S+)$", here, re.M)
    shutil.copyfile(*copy)
    for lines in commands[4:]:
        check(*lines)
