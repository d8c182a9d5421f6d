#!/usr/bin/env python3
"""A report in headless Chromium (Debian's package chromium): its figures against metrics.jsonl, its
keyboard, and pictures at two widths in both themes.

    tools/report/check.py PAGE.html RUN PICTURES

PAGE was made by `trident report RUN` of one run. Checks that the page asks for nothing from any
network and has no error; that the rows of each curve hold every step of the run, its least, most
and mean; that arrow keys on a chart read its values; that a click sorts the ledger. Leaves
PICTURES/{360,1400}_{light,dark}.png. Prints what was compared; exits 1 when something differs.
Speaks to the browser through its debugging pipe: Python alone is needed.
"""
import base64
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from browser import Browser  # noqa: E402

SERIES = {"train": "loss", "rate": "learning_rate", "gradient": "grad_norm",
          "speed": "tokens_per_second"}

READ_FIGURES = """JSON.stringify([...document.querySelectorAll('table.figures')].map(table => ({
    series: table.dataset.series, last: table.querySelector('b').textContent,
    rows: [...table.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.textContent))})))"""
PRESS_KEYS = """(() => {
    const svg = document.querySelector('#loss .plot svg');
    svg.focus();
    const said = [];
    for (const key of ['Home', 'ArrowRight', 'End', 'ArrowLeft', 'End']) {
        svg.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
        said.push(document.querySelector('#loss output').textContent);
    }
    return JSON.stringify({focused: document.activeElement === svg, said});
})()"""
SORT = """(() => {
    const table = document.querySelector('table.ledger') || document.querySelector('table.load');
    table.closest('details')?.setAttribute('open', '');
    const heads = [...table.tHead.rows[0].cells];
    const column = heads.findIndex(head => /^(bytes|at last)$/.test(head.textContent));
    const number = row => Number(row.cells[column].textContent);
    const values = () => [...table.tBodies[0].rows].map(number);
    const button = heads[column].querySelector('button');
    button.focus();
    button.click();
    const down = values(), first = heads[column].getAttribute('aria-sort');
    button.click();
    const then = heads[column].getAttribute('aria-sort');
    return JSON.stringify({down, first, up: values(), then});
})()"""


def shoot(browser, folder):
    for width in (360, 1400):
        for theme in ("light", "dark"):
            browser.call("Emulation.setEmulatedMedia",
                         features=[{"name": "prefers-color-scheme", "value": theme}])
            browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900,
                         deviceScaleFactor=1, mobile=width < 500)
            size = browser.evaluate("JSON.stringify([document.documentElement.scrollWidth, "
                                    "document.documentElement.scrollHeight])")
            if size[0] > width:
                yield f"at {width} pixels the page is {size[0]} wide"
            clip = {"x": 0, "y": 0, "width": width, "height": min(size[1], 6000), "scale": 1}
            data = browser.call("Page.captureScreenshot", format="png", clip=clip,
                                captureBeyondViewport=True)["data"]
            (folder / f"{width}_{theme}.png").write_bytes(base64.b64decode(data))


def compare_figures(figures, lines):
    """Each table's rows against the lines of metrics.jsonl; four digits that count."""
    compared = 0
    for table in figures:
        key = SERIES.get(table["series"], "valid_loss")
        points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
        seen = 0
        for span, mean, least, most in table["rows"]:
            first, last = (int(word) for word in span.split("–"))
            values = [value for step, value in points if first <= step <= last]
            seen += len(values)
            expected = (sum(values) / len(values), min(values), max(values))
            for found, value in zip((mean, least, most), expected):
                compared += 1
                if abs(float(found) - value) > 1e-3 * abs(value) + 1e-12:
                    yield f"{key}, steps {span}: found {found}, expected {value}"
        if seen != len(points):
            yield f"{key}: {seen} values in the rows, expected {len(points)}"
        if abs(float(table["last"]) - points[-1][1]) > 1e-3 * abs(points[-1][1]):
            yield f"{key}: the last is {table['last']}, expected {points[-1][1]}"
    print(f"{compared} figures of {len(figures)} curves compared with metrics.jsonl")


def main():
    page, run, folder = (pathlib.Path(word) for word in sys.argv[1:4])
    folder.mkdir(parents=True, exist_ok=True)
    with open(run / "metrics.jsonl", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    browser = Browser()
    for domain in ("Page", "Network", "Log", "Runtime"):
        browser.call(f"{domain}.enable")
    browser.call("Page.navigate", url=page.resolve().as_uri())
    browser.wait_for("Page.loadEventFired")
    faults = list(compare_figures(browser.evaluate(READ_FIGURES), lines))
    keys = browser.evaluate(PRESS_KEYS)
    losses = [(line["step"], line["loss"]) for line in lines if line.get("loss") is not None]
    if not keys["focused"] or len(set(keys["said"])) < 3 or keys["said"][2] != keys["said"][4]:
        faults.append(f"keyboard: {keys}")
    if len(losses) < 512 and f"step {losses[-1][0]}: {losses[-1][1]:.4g}" not in keys["said"][2]:
        faults.append(f"keyboard: End says {keys['said'][2]!r}, expected {losses[-1]}")
    print("keyboard: End says " + keys["said"][2].replace("\n", "; "))
    order = browser.evaluate(SORT)
    if (order["down"] != sorted(order["down"], reverse=True) or order["first"] != "descending" or
            order["up"] != sorted(order["up"]) or order["then"] != "ascending"):
        faults.append(f"sorting: {order}")
    faults += shoot(browser, folder)
    for event in browser.events:
        if event.get("method") == "Network.requestWillBeSent":
            url = event["params"]["request"]["url"]
            if url != page.resolve().as_uri():
                faults.append(f"asks for {url}")
        if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            faults.append(f"error: {event['params']}")
    browser.close()
    for fault in faults:
        print(fault)
    print(f"{page}: {len(faults)} faults; pictures in {folder}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
