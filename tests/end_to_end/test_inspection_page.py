"""`edgeplan inspect --html`: complete, self-contained, and what a browser draws."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from support.cases import DATA
from support.commands import edgeplan
from support.plans import sample_plan

from builder_host.inspection.operations import operation_rows, packed_bytes
from builder_host.inspection.page import plan_page
from planformat.details import plan_details
from planformat.errors import PlanFormatError
from planformat.reader import open_plan

LENET = (DATA / "caffe/lenet/lenet.prototxt", DATA / "caffe/lenet/lenet_iter_9000.caffemodel")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with lenet.plan of two profiles and its page."""
    made = tmp_path_factory.mktemp("page")
    options = ("--measure", "none", "--no-check", "--batch", "1,4")
    edgeplan("build", *LENET, "-o", "lenet.plan", *options, cwd=made)
    edgeplan("inspect", "lenet.plan", "--html", "lenet.html", cwd=made)
    return made


class Balance(HTMLParser):
    """Checks that every tag is closed by its own kind."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(folder):
    text = (folder / "lenet.html").read_text(encoding="utf-8")
    assert len(text) < 3 << 20
    checker = Balance()
    checker.feed(text)
    assert checker.open == []
    assert not re.search(r"(src|href)=|url\(|@import|https?://", text)


def check_complete(plan, page):
    """Every operation in graph, table and time line; every buffer; the whole fingerprint."""
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size < 3 << 20
    with open_plan(plan) as opened:
        details = plan_details(opened.plan)
        fingerprint = dict(opened.plan.variants[0].fingerprint.fields)
        profiles = opened.plan.variants[0].profiles
    for profile in details.variants[0]:
        for operation in profile.operations:
            assert text.count(operation.name) >= 3
        for buffer in profile.arena:
            assert f"{buffer.num_bytes:,} bytes at {buffer.offset:,}" in text
    for name, value in fingerprint.items():
        assert f"<td>{name}</td><td>{value}</td>" in text
    for name in ("Network after fusion", "Time", "Constants by size", "Arena over time", "Roofs"):
        assert text.count(f"<h3>{name}</h3>") == len(profiles)
    assert text.count("lower bound</text>") == len(profiles)
    assert text.count('class="roof"') >= 2 * len(profiles)
    with open_plan(plan) as opened:
        (variant,) = opened.plan.variants
        for profile, own in zip(variant.profiles, details.variants[0], strict=True):
            rows = operation_rows(profile, own.operations)
            sizes = packed_bytes(opened.plan, profile, rows)
            assert sum(sizes) >= 0.99 * len(opened.plan.weights) / len(profiles)
            for row, size in zip(rows, sizes, strict=True):
                assert (size > 0) == (row.weight_bytes > 0)
                assert not size or f"{size:,} bytes, {row.weight_bytes:,} unpacked" in text
    for file in details.recipe.files:
        assert f"built from {file.name}" in text
        assert file.sha256 in text


def test_every_operation_is_in_graph_table_and_time_line(folder):
    check_complete(folder / "lenet.plan", folder / "lenet.html")


@pytest.fixture(scope="module")
def pages(folder):
    """A function that makes the plan and the page of a large network, once each."""
    models = {
        "squeezenet": [
            DATA / "caffe/squeezenet_v1.1" / name
            for name in ("deploy.prototxt", "squeezenet_v1.1_fp16w.caffemodel")
        ],
        "resnet50": [DATA / "onnx/light/light_resnet50.onnx"],
    }

    def made(name):
        plan, page = folder / f"{name}.plan", folder / f"{name}.html"
        if not page.exists():
            options = ("--measure", "none", "--no-check")
            edgeplan("build", *models.get(name, ()), "-o", plan, *options, cwd=folder)
            edgeplan("inspect", plan, "--html", page, cwd=folder)
        return plan, page

    return made


@pytest.mark.parametrize("name", ["squeezenet", "resnet50"])
def test_pages_of_large_networks_are_complete(name, pages):
    check_complete(*pages(name))


def test_names_are_escaped(folder, tmp_path):
    prototxt = LENET[0].read_text().replace('"conv1"', '"<b>&conv1"')
    (tmp_path / "x.prototxt").write_text(prototxt)
    options = ("-o", "x.plan", "--measure", "none", "--no-check")
    edgeplan("build", "x.prototxt", *options, cwd=tmp_path)
    edgeplan("inspect", "x.plan", "--html", "x.html", cwd=tmp_path)
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<b>&conv1" not in text
    assert "&lt;b&gt;&amp;conv1" in text


def test_a_plan_without_details_is_refused_with_what_to_do(tmp_path):
    golden = DATA.parent / "golden" / "sample_v1.0.plan"
    done = edgeplan("inspect", golden, "--html", "x.html", cwd=tmp_path, status=1)
    assert "carries no details (format before 1.1, or stripped); build it again" in done.stderr
    assert not (tmp_path / "x.html").exists()


def test_details_without_results_are_refused_by_name():
    plan = sample_plan()
    tree = json.loads(bytes(plan.details))
    for outputs in ([], [{**tree["variants"][0][0]["operations"][0]["outputs"][0], "layout": "x"}]):
        tree["variants"][0][0]["operations"][0]["outputs"] = outputs
        changed = replace(plan, details=json.dumps(tree).encode())
        with pytest.raises(PlanFormatError, match=r"operation 'conv1 \+ relu1' has no result"):
            plan_page(changed)


def test_a_trace_tells_of_each_step_what_the_plan_knows(folder):
    options = ("--duration", "0.01", "--trace", "trace.json", "--trace-runs", 1)
    edgeplan("bench", "lenet.plan", "--profile", "batch4", *options, cwd=folder)
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    steps = [event for event in events if event.get("cat") == "step"]
    with open_plan(folder / "lenet.plan") as opened:
        profile = opened.plan.variants[0].profiles[1]
        operations = plan_details(opened.plan).variants[0][1].operations
    assert [step["name"] for step in steps] == [step.name for step in profile.steps]
    assert [step["args"]["tactic"] for step in steps] == [step.tactic for step in profile.steps]
    assert {step["args"]["precision"] for step in steps} == {"f32"}
    for operation in operations:
        moved = sum(t.num_bytes for t in (*operation.inputs, *operation.outputs))
        for index in operation.steps:
            assert steps[index]["args"]["bytes"] == moved > 0
            assert steps[index]["args"]["kind"] == operation.kind


# Every shape of the drawings of one kind: the first line of its tooltip, and whether it has an
# extent and lies within its drawing as the browser laid it out.
SHAPES = """shapes => shapes.map(shape => {
    const box = shape.getBoundingClientRect(), all = shape.closest("svg").getBoundingClientRect();
    const title = (shape.querySelector("title") || shape.parentNode.querySelector("title"));
    return [title.textContent.split("\\n")[0],
            box.width > 0 && box.height > 0 && box.left >= all.left - 1 && box.top >= all.top - 1
            && box.right <= all.right + 1 && box.bottom <= all.bottom + 1];
})"""


PAPER = {"light": (0xFF, 0xFF, 0xFF), "dark": (0x14, 0x17, 0x1D)}
BARS = {"light": (0x2F, 0x6F, 0xD0), "dark": (0x5B, 0x93, 0xE8)}  # of the time line


@pytest.mark.parametrize(
    ("name", "scheme"), [("lenet", "light"), ("squeezenet", "light"), ("resnet50", "dark")]
)
def test_a_browser_draws_every_step(browser, pages, name, scheme):
    plan, file = pages(name)
    with open_plan(plan) as opened:
        details = plan_details(opened.plan).variants[0]
        profiles = opened.plan.variants[0].profiles
    page = browser.new_page(viewport={"width": 1200, "height": 2400}, color_scheme=scheme)
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_load_state("networkidle")

    def shapes(kind, drawing):
        chosen = f"svg[aria-label='{drawing}'] {kind}"
        found = page.locator(chosen).evaluate_all(SHAPES)
        assert all(is_drawn for _, is_drawn in found), (drawing, found)
        return [title for title, _ in found]

    operations = [operation for own in details for operation in own.operations]
    names = [operation.name for operation in operations]
    assert shapes("rect.node", "network after fusion") == names
    assert shapes("rect.bar", "time of each operation") == names
    assert shapes("rect.buffer", "arena over time") == [
        b.name for own in details for b in own.arena
    ]
    constants = shapes("rect.bar", "constants of each operation")
    assert constants == [o.name for o in operations if any(t.is_constant for t in o.inputs)]
    computing = [o.name for o in operations if o.num_operations]
    assert shapes("circle.dot", "rate over intensity") == computing
    edges = page.locator("svg[aria-label='network after fusion'] path.edge").count()
    assert edges >= len(operations) - len(profiles)
    cells = page.locator("table td:nth-child(2)").all_inner_texts()
    rows = [text.removeprefix("↳ ") for text in cells]
    steps = [step.name for profile in profiles for step in profile.steps]
    assert {*names, *steps} <= {*rows}
    # Nothing is wider than the page: wide drawings and tables scroll by themselves.
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    pillow = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    with pillow.open(io.BytesIO(page.screenshot())) as image:
        counts = {colour: n for n, colour in image.convert("RGB").getcolors(1 << 24)}
    assert counts[BARS[scheme]] > 5000
    assert max(counts, key=counts.get) == PAPER[scheme]
    page.close()
    assert errors == []
    assert requests == [file.as_uri()]
