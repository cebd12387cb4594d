"""A report in a real browser: a headless Chromium, and what every page must hold to in it."""

import json
import shutil

import pytest
from leakyrelu_bench.report.drawing import DARK, LIGHT


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium that reaches no network."""
    webdriver = pytest.importorskip("selenium.webdriver")
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no chromium and chromedriver here")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    flags = (
        "headless=new no-sandbox disable-background-networking disable-component-update disable-sync disable-dev-shm-usage"
    )
    for flag in flags.split():
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    session.get("data:,")
    session.get_log("performance")  # what the browser's own first page asked for
    yield session
    session.quit()


def show(browser, path, width, height, scheme):
    metrics = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(path.as_uri())
    return browser.execute_async_script(
        """
        const done = arguments[0], images = [...document.images];
        Promise.all(images.map(image => image.decode().then(() => true, () => false))).then(decoded => done({
          decoded, widths: images.map(image => image.naturalWidth), shown: images.map(image => image.currentSrc),
          alts: images.map(image => image.alt), scroll: document.documentElement.scrollWidth, inner: innerWidth,
          background: getComputedStyle(document.documentElement).backgroundColor,
          resources: performance.getEntriesByType("resource").map(entry => entry.name)}));
        """
    )


def check_page(browser, path, drawn, width, height, scheme):
    """Every figure of ``drawn`` is there in the scheme's colours, nothing is wider than the screen, nothing is fetched."""
    seen = show(browser, path, width, height, scheme)
    # Whatever is folded away is looked at too.
    browser.execute_script("document.querySelectorAll('details').forEach(details => details.open = true)")
    opened = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert seen["inner"] == width
    assert seen["scroll"] <= width
    assert opened[0] <= opened[1] == width
    assert len(seen["decoded"]) == len(drawn)
    assert all(seen["decoded"])
    assert min(seen["widths"]) > 0
    assert all(seen["alts"])
    theme = DARK if scheme == "dark" else LIGHT
    assert seen["background"] == f"rgb({', '.join(str(int(theme.background[i : i + 2], 16)) for i in (1, 3, 5))})"
    assert seen["shown"][0] == drawn[0].data_uri(theme)
    assert not [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"]
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [entry["params"]["request"]["url"] for entry in asked if entry["method"] == "Network.requestWillBeSent"]
    assert {url.split(":")[0] for url in [*urls, *seen["resources"]]} <= {"file", "data"}


def check_that_nothing_runs(browser, path):
    seen = show(browser, path, 360, 800, "light")  # an alert would raise here
    assert seen["scroll"] <= 360
    assert all(seen["decoded"])
    assert browser.execute_script("return document.scripts.length") == 0
