import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from reports import report as script
from reports.report import MOST_BYTES, jpeg_data_url, write_report
from utils.files.scans import save_mask
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
    urls = [jpeg_data_url(path, most) for most in (14_000_000, 400_000, 80_000)]
    sizes = [len(url) for url in urls]
    assert sizes == sorted(sizes, reverse=True) and sizes[1] <= 400_000 and sizes[2] <= 80_000
    assert Image.open(io.BytesIO(base64.b64decode(urls[1].partition(",")[2]))).format == "JPEG"
    assert jpeg_data_url(path, 700) is None
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match=f"{path.name}: damaged"):
        assert jpeg_data_url(path, 14_000_000) is None


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


def test_a_run_that_goes_on_has_a_page_without_a_test(make_run):
    folder = make_run("run", cases(1), epochs=20)
    (folder / "test_metrics.json").unlink()
    text = write_report(folder).read_text(encoding="utf-8")
    assert "Not tested yet" in text and "3 epochs of at most 20, best so far after epoch 2" in text
    assert text.count("<svg") == 2 and "Test metrics" not in text and len(text) < 100_000
    (folder / "metrics.csv").write_text(
        "epoch,train_loss,validation_loss,validation_dice,full_validation_dice,left_out,chosen_by\n"
        "1,nan,0.6,0.5,,sub-1 (2); sub-2 (1),\n2,nan,0.5,0.4,,,\n",
        encoding="utf-8",
    )
    text = write_report(folder).read_text(encoding="utf-8")
    assert "2 epochs of at most 20" in text and "best" not in text.split("</header>")[0].split("<header>")[1]
    assert "sub-1 (2), sub-2 (1)" in text
    (folder / "metrics.csv").unlink()
    assert "no history" in write_report(folder).read_text(encoding="utf-8")


def test_a_folder_that_is_no_run_is_one_line(make_run):
    folder = make_run("run", cases(1))
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"^[^\n]*not a run[^\n]*$"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_the_command(make_run, monkeypatch, capsys):
    folder = make_run("run", cases(1))
    monkeypatch.setattr("sys.argv", ["report", str(folder)])
    script.main()
    assert capsys.readouterr().out.strip() == str(folder / "report.html")


def test_in_a_browser(make_run, open_page):
    """No error, every picture and surface there, nothing from elsewhere, and nothing to scroll sideways on a phone."""
    name = "a_run_with_a_name_that_is_far_too_long_for_a_phone"
    folder = make_run(
        name, cases(2), data_path=f"preprocessed/{name}.h5", model_args={"channels": [8, 16, 64, 128, 192]}
    )
    for case in cases(2):
        add_picture(folder, case, noise=False)
        add_masks(folder, case)
    page, console = open_page(write_report(folder))
    surface = page.locator("[data-figure]").last
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    surface.scroll_into_view_if_needed()  # drawn when it is seen
    surface.locator("canvas").first.wait_for()
    assert console == []
    assert page.evaluate("[...document.images].map((image) => image.naturalWidth)") == [1080, 1080]
    for width in (1400, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    loaded = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert not [name for name in loaded if not name.startswith("data:")]
