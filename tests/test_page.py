"""Promises of the web page, its script run by node on a stand-in for the browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
BROWSER = """
const handlers = {}, elements = {}, calls = [], texts = [];
const node = (id) => ({
  id, hidden: false, value: "x", textContent: "", files: [], classList: { add() {}, remove() {} },
  addEventListener(type, handler) { (handlers[`${id}:${type}`] ||= []).push(handler); },
  replaceChildren() {}, append(...parts) { texts.push(...parts.filter((part) => typeof part === "string")); },
});
globalThis.document = {
  getElementById: (id) => elements[id] ||= node(id), createElement: () => node("new"),
  addEventListener(type, handler) { (handlers[`document:${type}`] ||= []).push(handler); },
};
globalThis.Option = function () {};
globalThis.FormData = class { set(name, value) { this[name] = value; } };
globalThis.URL = { createObjectURL: (file) => `blob:${file.name}` };
globalThis.fetch = async (path, options) => {
  if (options?.body?.image) calls.push(options.body.image.name);
  const answer = { indexes: globalThis.served || [], hits: globalThis.found || [], took_ms: { total: 1 } };
  return { ok: true, json: async () => answer };
};
const pause = () => new Promise((done) => setTimeout(done, 10));
const dropFiles = (files) => handlers["drop:drop"][0]({ preventDefault() {}, dataTransfer: { files } });
const pasteFiles = (files, target) => handlers["document:paste"][0]({ target, clipboardData: { files } });
"""


pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="the page was not tested: node is not installed")


def run_page(folder: Path, scenario: str, before: str = "") -> Any:
    """What a scenario prints as JSON, run after the page's script."""
    script = folder / "page.js"
    page = (ROOT / "api" / "web" / "page.js").read_text(encoding="utf-8")
    script.write_text(f"{BROWSER}\n{before}\n{page}\n(async () => {{ {scenario} }})();", encoding="utf-8")
    ended = subprocess.run(["node", script], capture_output=True, text=True, check=True)
    return json.loads(ended.stdout)


def test_what_is_dropped_or_pasted_and_is_no_file_asks_nothing(tmp_path: Path) -> None:
    scenario = """
      dropFiles([{ name: "first.png" }]); await pause();
      dropFiles([]); await pause();
      const dropped = elements.status.textContent;
      elements.status.textContent = "";
      pasteFiles([], { matches: () => true }); await pause();
      const typed = elements.status.textContent;
      pasteFiles([]); await pause();
      console.log(JSON.stringify({ calls, dropped, typed, pasted: elements.status.textContent }));
    """
    said = run_page(tmp_path, scenario)
    assert said["calls"] == ["first.png"]
    assert "not an image file" in said["dropped"]
    assert said["typed"] == ""
    assert "not an image file" in said["pasted"]


def test_the_space_that_is_chosen_first_is_the_default(tmp_path: Path) -> None:
    before = """
      globalThis.served = [{ name: "x", count: 1, spaces: [
        { name: "layer11", default: false }, { name: "layer7", default: true }] }];
      globalThis.Option = function (text, value, _, selected) { Object.assign(this, { text, value, selected }); };
    """
    scenario = """
      document.getElementById("space").replaceChildren = (...options) => { elements.space.options = options; };
      await pause();
      console.log(JSON.stringify(elements.space.options));
    """
    assert [(one["text"], one["value"], one["selected"]) for one in run_page(tmp_path, scenario, before)] == [
        ("layer11", "layer11", False),
        ("layer7", "layer7", True),
    ]


def test_a_hit_says_how_probable_it_is_where_that_is_known(tmp_path: Path) -> None:
    hit = {"id": "a" * 64, "score": 0.5, "fmr": None, "path": "/x.png", "probability": None}
    found = json.dumps([hit | {"probability": 0.934}, hit, hit | {"probability": 0}])
    scenario = """
      dropFiles([{ name: "first.png" }]); await pause();
      console.log(JSON.stringify(texts.filter((text) => text.startsWith("0.5"))));
    """
    assert run_page(tmp_path, scenario, before=f"globalThis.found = {found};") == ["0.500 (93%)", "0.500", "0.500 (0%)"]
