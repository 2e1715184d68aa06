"""The page of a run in a real browser: classes that are clicked off vanish, frames can be stepped through."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from vps_jax.datasets.classes import ClassTable
from vps_jax.evaluation.protocol import CLASSES as CLASS_TABLE
from vps_jax.evaluation.protocol import Table
from vps_jax.types import PanopticFrame
from vps_jax.viz import run_page
from vps_jax.viz.overlay import track_color

pytestmark = pytest.mark.acceptance

CLASSES = ClassTable(
    ("sky", "grass", "cat", "dog"), ((0, 0, 255), (0, 255, 0), (200, 0, 0), (90, 80, 70)), (False, False, True, True)
)
SKY, GRASS, CAT, DOG = range(4)
GREY, WHITE = 120, 255
HEIGHT, WIDTH, LENGTH, SIDE = 96, 160, 4, 24
SECONDS = 60
ANYWHERE = {"sky": (10, 80), "grass": (80, 150)}  # y, x far from all borders


def frames():
    """Sky above grass; cat 3, a square, moves to the right and is gone in the last frame; a dog without a track."""
    for i in range(LENGTH):
        categories, tracks = np.full((HEIGHT, WIDTH), SKY, np.uint8), np.zeros((HEIGHT, WIDTH), np.int32)
        categories[HEIGHT // 2 :], categories[-4:, -4:] = GRASS, DOG
        if i < LENGTH - 1:
            place = np.s_[40 : 40 + SIDE, 20 * i : 20 * i + SIDE]
            categories[place], tracks[place] = CAT, 3
        yield PanopticFrame(f"{i:03d}", categories, tracks)


def png():
    """A picture of 30 times 20 pixels."""
    data = io.BytesIO()
    Image.new("RGB", (30, 20)).save(data, "PNG")
    return data.getvalue()


def video(name, *, images):
    page = run_page.VideoPage(LENGTH, range(LENGTH), side=640)
    for i, frame in enumerate(frames()):
        image = np.full((HEIGHT, WIDTH, 3), GREY, np.uint8) if images else None
        page.add(frame, image, i / 5 if images else None)
    return page.content(name, CLASSES)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A page of two videos, the second without images, and a table of scores."""
    names = ("with images", "<i>colours</i>")
    scores = Table(CLASS_TABLE, "Scores of classes", ("id", "class", "kind", "vpq"), [
        (0, "sky", "stuff", 40.0), (1, "grass", "stuff", None), (2, "cat", "thing", 90.5),
    ])  # fmt: skip
    head = run_page.Head(
        "a run", run_page.class_rows(CLASSES), [{"name": name, "frames": LENGTH} for name in names],
        tables=[run_page.table(scores, "Scores")], plots=[run_page.plot("bars", png())],
    )  # fmt: skip
    path = tmp_path_factory.mktemp("page") / "report.html"
    with path.open("w") as out:
        run_page.write_page(out, head, [video(names[0], images=True), video(names[1], images=False)])
    return path


@pytest.fixture
def page(driver, file):
    """The page, just opened; nothing was complained of and nothing asked for when the test is over."""
    driver.get_log("performance")
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    driver.get(file.as_uri())
    drawn(driver, "with images", 0)
    yield driver
    # the browser remarks on the test's own reading of the canvas
    assert [row["message"] for row in driver.get_log("browser") if "getImageData" not in row["message"]] == []
    asked = [row["message"] for row in driver.get_log("performance") if "Network.requestWillBeSent" in row["message"]]
    assert not [message for message in asked if file.name not in message and '"url":"data:' not in message]


def drawn(driver, name, index):
    """Wait until a picture is on the canvas."""
    end = time.monotonic() + SECONDS
    while (
        found := driver.execute_script("return document.getElementById('canvas').dataset.drawn")
    ) != f"{name} {index}":
        assert time.monotonic() < end, f"{found} instead of {name} {index}"
        time.sleep(0.05)


def pixels(driver):
    """What the canvas holds, RGBA `[h, w, 4]`."""
    code = """const canvas = document.getElementById('canvas');
              const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
              return [canvas.height, canvas.width, Array.from(data)];"""
    height, width, data = driver.execute_script(code)
    return np.array(data, np.uint8).reshape(height, width, 4)


def settled(driver, is_so):
    """The canvas when it is as wanted; it is drawn a moment after a click."""
    end = time.monotonic() + SECONDS
    while not is_so(found := pixels(driver)):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def box_of(driver, name):
    return driver.find_element("xpath", f"//ul[@id='classes']//label[span[contains(., '{name}')]]/input")


def inside(index):
    """The inner pixels of the cat in a frame."""
    return np.s_[44 : 36 + SIDE, 20 * index + 4 : 20 * index + SIDE - 4, :3]


def over_grey(color, opacity=0.55):
    return np.round(GREY + opacity * (np.array(color) - GREY))


def test_a_class_that_is_clicked_off_vanishes(page, tmp_path):
    cat = track_color(3)
    before = settled(page, lambda found: abs(found[inside(0)] - over_grey(cat)).max() < 4)
    assert abs(before[ANYWHERE["sky"]][:3] - over_grey(CLASSES.colors[SKY])).max() < 4
    page.save_screenshot(str(tmp_path / "all.png"))
    box_of(page, "cat").click()
    after = settled(page, lambda found: abs(found[inside(0)].astype(int) - GREY).max() < 4)
    assert np.array_equal(after[ANYWHERE["sky"]], before[ANYWHERE["sky"]])
    assert page.find_elements("css selector", "#areas path[data-class='2']") == []
    assert "off" in page.find_element("css selector", ".track[data-track='3']").get_attribute("class")
    page.save_screenshot(str(tmp_path / "without_cat.png"))
    seen = [
        np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int) for name in ("all.png", "without_cat.png")
    ]
    assert (abs(seen[0] - seen[1]).max(-1) > 30).sum() > 500  # on the screen too
    box_of(page, "cat").click()
    settled(page, lambda found: np.array_equal(found, before))


def test_all_classes_at_once(page):
    page.find_element("id", "none").click()
    settled(page, lambda found: abs(found[..., :3].astype(int) - GREY).max() < 4)
    assert not page.find_elements("css selector", "#areas path")
    page.find_element("id", "all").click()
    assert len(page.find_elements("css selector", "#areas path")) == 4


def test_a_click_in_the_picture_hides_what_is_there(page):
    from selenium.webdriver import ActionChains

    canvas = page.find_element("id", "canvas")
    ActionChains(page).move_to_element_with_offset(canvas, 0, canvas.size["height"] // 3).click().perform()
    settled(page, lambda found: abs(found[ANYWHERE["grass"]][:3].astype(int) - GREY).max() < 4)
    assert not box_of(page, "grass").is_selected() and box_of(page, "sky").is_selected()
    assert page.find_element("id", "pointed").text.startswith("grass: ")


def test_keys_step_through_frames_and_videos(page):
    body = page.find_element("tag name", "body")
    for key, index in (("\ue014", 1), ("\ue014", 2), ("\ue012", 1), ("\ue010", 3), ("\ue011", 0)):
        body.send_keys(key)  # right, right, left, end, home
        drawn(page, "with images", index)
    assert page.find_element("id", "place").text == "000 (frame 1 of 4, 0.00 s)"
    body.send_keys("n")
    drawn(page, "<i>colours</i>", 0)
    assert page.find_element("id", "player-title").text == "<i>colours</i>"
    assert pixels(page)[ANYWHERE["grass"]].tolist() == [0, 255, 0, 255]  # without images the colours are whole
    body.send_keys("p")
    drawn(page, "with images", 0)


def test_the_timeline_shows_a_thing_and_goes_to_it(page):
    page.find_element("tag name", "body").send_keys("\ue010")
    drawn(page, "with images", 3)
    (span,) = page.find_elements("css selector", ".track[data-track='3'] .span")
    assert span.get_attribute("style").startswith("left: 0%; width: 75%")
    page.find_element("css selector", ".track[data-track='3'] button").click()
    drawn(page, "with images", 0)
    edge = settled(page, lambda found: found[40 + SIDE - 1, 10].tolist() == [255, 255, 0, 255])
    assert edge[50, 10].tolist() != [255, 255, 0, 255]


def test_classes_have_the_colours_of_the_picture(page):
    for name, color in (("sky", "0, 0, 255"), ("dog", "90, 80, 70"), ("cat", ", ".join(map(str, track_color(3))))):
        swatch = box_of(page, name).find_element("xpath", "following-sibling::span[@class='swatch']")
        assert f"rgb({color})" in swatch.get_attribute("style")


def test_it_plays(page):
    page.find_element("id", "play").click()
    drawn(page, "with images", 2)
    page.find_element("id", "play").click()
    assert page.find_element("id", "play").get_attribute("aria-pressed") == "false"


def test_tables_are_sorted_by_a_click(page):
    def names():
        return [cell.text for cell in page.find_elements("css selector", "#evaluation tbody td:nth-child(2)")]

    assert names() == ["sky", "grass", "cat"]
    button = page.find_element("css selector", "#evaluation thead th:nth-child(4) button")
    button.click()
    assert names() == ["cat", "sky", "grass"]
    button.click()
    assert names() == ["grass", "sky", "cat"]


def test_plots_are_unfolded_by_a_click(page):
    image = page.find_element("css selector", "#evaluation img")
    assert not image.is_displayed()
    page.find_element("xpath", "//summary[.='Plot: bars']").click()
    assert image.is_displayed() and image.accessible_name == "Plot: bars"
    assert image.size == {"width": 30, "height": 20}


def test_light_and_dark(page):
    colors = {}
    for theme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        style = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color];"
        colors[theme] = [sum(map(int, text[4:-1].split(","))) for text in page.execute_script(style)]
    assert colors["light"][0] > 700 > 150 > colors["light"][1] and colors["dark"][0] < 150 < 600 < colors["dark"][1]


def test_everything_that_can_be_used_has_a_name(page):
    for tree in page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]:
        role = tree.get("role", {}).get("value")
        if role in ("button", "checkbox", "slider", "combobox", "image", "img") and not tree.get("ignored"):
            assert tree["name"]["value"].strip(), tree
