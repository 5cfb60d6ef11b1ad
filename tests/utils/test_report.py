import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from utils import report as script
from utils.report import MOST_BYTES, write_report
from utils.scans import save_mask
from utils.visualize import jpeg_within
from verse_utils.errors import UserError


def cases(count):
    return {f"sub-{n:03d}": {"dice": 0.9 - n / 1000, "hd95_mm": 1.0 + n} for n in range(count)}


def add_picture(folder, case, noise=True, size=1080):
    """A picture as wide as training's; JPEG can't make noise small."""
    (folder / "images").mkdir(exist_ok=True)
    shape = (size, size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8) if noise else np.full(shape, 200, np.uint8)
    Image.fromarray(pixels).save(folder / "images" / f"test_{case}.png", compress_level=1)


def add_masks(folder, case):
    x, y, z = np.indices((14, 14, 14))
    for name, radius in (("prediction", 4.5), ("target", 5)):
        ball = (x - 7) ** 2 + (y - 7) ** 2 + (z - 7) ** 2 < radius**2
        save_mask(ball.astype(np.uint8) * 20, np.eye(4), folder / "test" / f"{case}_{name}.nii.gz")


class Page(HTMLParser):
    """Addresses, texts, cases and scripts of a page."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.texts, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.addresses += [value for key, value in attributes if key in ("src", "href", "srcset", "data")]

    def handle_data(self, data):
        self.texts.append(data)

    def ids(self, tag):
        return [attributes.get("id") for name, attributes in self.tags if name == tag]


def test_everything_is_in_the_page_worst_case_first(make_run):
    folder = make_run("run", cases(3))
    for case in cases(3):
        add_picture(folder, case, noise=False)
    add_masks(folder, "sub-002")
    text = write_report(folder).read_text(encoding="utf-8")
    page = Page(text)
    inlined = [address for address in page.addresses if address.startswith("data:image/jpeg;base64,")]
    local = {address for address in page.addresses if not address.startswith(("data:", "#"))}
    assert len(inlined) == 3
    assert local == {f"images/test_{case}.png" for case in cases(3)} | {
        f"test/sub-002_{name}.nii.gz" for name in ("prediction", "target")
    }
    assert all((folder / address).is_file() for address in local)
    assert re.findall(r"<h3>(.*?)</h3>", text) == ["sub-002", "sub-001", "sub-000"]
    assert "Dice 0.899 (95 % interval 0.898 to 0.900) on 3 test cases" in text
    assert "3 epochs, best after epoch 2" in text and "the worst 1 of 3 cases" in text
    assert 'href="#case-1">sub-002' in text and "url(" not in text.split("</style>")[0]


def test_a_table_of_classes(make_run):
    folder = make_run("run", {"a": {"dice": 0.5, "dice_L1": 0.25, "dice_L2": 0.75}, "b": {"dice": 0.4, "dice_L2": 0.4}})
    text = write_report(folder).read_text(encoding="utf-8")
    assert "Means of each class" in text and '<th scope="row">L2</th><td>0.575</td>' in text
    assert "Dice L1" not in text


def test_names_and_settings_are_text(make_run):
    evil = '<img src=x onerror="alert(1)">&'
    folder = make_run(f"run {evil}", {f"sub {evil}": {"dice": 0.5}}, model_args={"note": f"</script>{evil}"})
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert not [tag for tag, _ in page.tags if tag == "img"] and not page.ids("script")
    texts = "".join(page.texts)
    assert f"run {evil}" in texts and f"sub {evil}" in texts and f"</script>{evil}" in texts


def test_a_hundred_cases_stay_under_the_bound(make_run):
    folder = make_run("run", cases(100))
    for case in cases(100):
        path = folder / "images" / f"test_{case}.png"
        if case == "sub-000":
            add_picture(folder, case, size=320)
            first = path
        else:
            path.hardlink_to(first)
    add_masks(folder, "sub-099")
    page = write_report(folder)
    assert MOST_BYTES / 2 < page.stat().st_size < MOST_BYTES
    found = Page(page.read_text(encoding="utf-8"))
    assert len(found.ids("article")) == len(found.ids("img")) == 100


def test_a_picture_gets_smaller_until_it_fits(tmp_path):
    add_picture(tmp_path, "a")
    path = tmp_path / "images" / "test_a.png"
    sizes = [len(jpeg_within(path, most)) for most in (10_000_000, 300_000, 60_000)]
    assert sizes == sorted(sizes, reverse=True) and sizes[1] <= 300_000 and sizes[2] <= 60_000
    assert jpeg_within(path, 500) is None


def test_surfaces_are_for_the_worst_cases_only(make_run, monkeypatch):
    monkeypatch.setattr(script, "MOST_SURFACES", 2)
    folder = make_run("run", cases(4))
    for case in cases(4):
        add_masks(folder, case)
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    figures = [attributes["aria-label"][:7] for _, attributes in page.tags if "data-figure" in attributes]
    assert figures == ["sub-003", "sub-002"]


def test_a_localiser_and_a_run_without_masks(make_run):
    localiser = make_run("localiser", {"a": {"box_iou": 0.5}}, task="heatmap")
    assert "Box IoU 0.500 on 1 test case<" in write_report(localiser).read_text(encoding="utf-8")
    text = write_report(make_run("segmenter", cases(1))).read_text(encoding="utf-8")
    assert "holds no masks" in text and len(text) < 100_000


def test_an_unfinished_run_is_one_line(make_run):
    folder = make_run("run", cases(1))
    (folder / "test_metrics.json").unlink()
    with pytest.raises(UserError, match=r"^[^\n]*unfinished[^\n]*$"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_the_command(make_run, monkeypatch, capsys):
    folder = make_run("run", cases(1))
    monkeypatch.setattr("sys.argv", ["report", str(folder)])
    script.main()
    assert capsys.readouterr().out.strip() == str(folder / "report.html")


# Put at the end of a page, it scrolls to the last surface, waits until it is drawn, and tells its parent what is there.
PROBE = """<script>
const box = [...document.querySelectorAll("[data-figure]")].at(-1);
document.querySelectorAll("details").forEach((one) => { one.open = true; });
box.scrollIntoView();
const clock = setInterval(() => {
  const drawn = box.querySelectorAll("canvas").length;
  if (!drawn && performance.now() < 15000) return;
  clearInterval(clock);
  parent.postMessage({
    width: innerWidth,
    pictures: [...document.images].map((image) => image.naturalWidth),
    drawn,
    overflow: document.documentElement.scrollWidth - innerWidth,
    loaded: performance.getEntriesByType("resource").map((entry) => entry.name),
  }, "*");
}, 100);
</script>"""
FRAMES = """<body><script>
const found = [];
addEventListener("message", (event) => {
  found.push(event.data);
  document.body.dataset.found = JSON.stringify(found);
});
</script>
<iframe width="1400" height="900" src="probed.html"></iframe>
<iframe width="390" height="900" src="probed.html"></iframe>
</body>"""


def test_in_a_browser(make_run, open_page, tmp_path):
    """At the widths of a desktop and a phone: no error, every picture and surface there, nothing to scroll sideways."""
    name = "a_run_with_a_name_that_is_far_too_long_for_a_phone"
    folder = make_run(
        name, cases(2), data_path=f"preprocessed/{name}.h5", model_args={"channels": [8, 16, 64, 128, 192]}
    )
    for case in cases(2):
        add_picture(folder, case, noise=False)
        add_masks(folder, case)
    text = write_report(folder).read_text(encoding="utf-8")
    (tmp_path / "probed.html").write_text(text.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    # A browser's own window can't be as narrow as a phone.
    (tmp_path / "frames.html").write_text(FRAMES, encoding="utf-8")
    page = open_page(tmp_path / "frames.html", 1900, 1100)
    assert page.console == []
    found = json.loads(html.unescape(re.search('data-found="(.*?)"', page.dom)[1]))
    assert sorted(frame["width"] for frame in found) == [390, 1400]
    for frame in found:
        assert frame["pictures"] == [1080, 1080]
        assert frame["drawn"] and frame["overflow"] <= 0
        assert not [name for name in frame["loaded"] if not name.startswith("data:")]
