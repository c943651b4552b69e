#!/usr/bin/env python3
"""Puts an exported network into one HTML file in which it balances a cart-pole, offline.

  .venv/bin/python tools/make_page.py output/quickstart/export [OUTPUT.html]

reads policy_8bit.bin and controller.json of a folder that export_policy wrote, compiles the C
controller, the plant and the expert to WebAssembly (needs clang and lld), and puts both into
tools/page/page.html. Without OUTPUT.html it writes page.html into the folder.
"""
import argparse
import base64
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# There is no C library for this target, and page.cpp brings what is needed of one. Products are not
# contracted into sums: the plant computes what it computes elsewhere.
FLAGS = [
    "--target=wasm32", "-O3", "-msimd128", "-mbulk-memory", "-nostdlib", "-ffreestanding",
    "-ffp-contract=off"
]
CXX_FLAGS = [
    "-std=c++20", "-fno-exceptions", "-fno-rtti", "-DINSTRUCTION_SET=control_wasm",
    "-I" + str(ROOT / "src")
]
SOURCES = [
    "src/controller/cartpole_policy.c", "src/controller/policy_kernel.c", "src/cartpole/kernel.cpp",
    "tools/page/page.cpp"
]


def fail(text):
    sys.exit(f"make_page.py: {text}")


def run(command):
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        fail(f"{' '.join(map(str, command))} failed:\n{result.stderr.strip()}")


def compile_to_wasm():
    for tool in ("clang", "wasm-ld"):
        if not shutil.which(tool):
            fail(f"{tool} is missing: apt-get install clang lld")
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for source in SOURCES:
            objects.append(Path(folder) / (Path(source).stem + ".o"))
            language = CXX_FLAGS if source.endswith(".cpp") else ["-std=c11"]
            run(["clang", *FLAGS, *language, "-c", ROOT / source, "-o", objects[-1]])
        result = Path(folder) / "page.wasm"
        run(["clang", *FLAGS, "-Wl,--no-entry,--strip-all", *objects, "-o", result])
        return result.read_bytes()


def read(path):
    try:
        return path.read_bytes()
    except OSError as error:
        fail(f"{path}: {error.strerror}; export_policy writes it")


def make_page(export):
    """Returns the page of an export folder, as text."""
    policy = read(export / "policy_8bit.bin")
    try:
        controller = json.loads(read(export / "controller.json"))
        known = controller["format"] == 1
    except (ValueError, TypeError, KeyError):
        known = False
    if not known:
        fail(f"{export / 'controller.json'} is not what this version's export_policy writes")
    page = (ROOT / "tools/page/page.html").read_text(encoding="utf-8")
    for name, value in {
            "wasm": base64.b64encode(compile_to_wasm()).decode(),
            "policy": base64.b64encode(policy).decode(),
            # A name in it may not end the script element.
            "controller": json.dumps(controller).replace("<", "\\u003c")
    }.items():
        page = page.replace("{{" + name + "}}", value)
    return page


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path, help="a folder of export_policy")
    parser.add_argument("output", nargs="?", type=Path, help="the page (default: in that folder)")
    options = parser.parse_args()
    output = options.output or options.export / "page.html"
    page = make_page(options.export).encode()
    try:
        output.write_bytes(page)
    except OSError as error:
        fail(f"{output}: {error.strerror}")
    print(f"{output}: {len(page) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
