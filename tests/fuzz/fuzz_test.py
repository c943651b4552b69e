"""Gives hostile files to what reads files, with libFuzzer: about 10 s a reader, or 10 minutes.

The longer time is with CHECK_ALL set. Arguments: the folder of the fuzz_* programs, and a dataset.
A file that ends a program is kept next to it; fuzz_READER FILE repeats it. What was found and fixed
is tried first.
"""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS, DATASET = (Path(sys.argv.pop(1)).resolve() for _ in range(2))
SECONDS = 600 if os.environ.get("CHECK_ALL") else 10
MEMORY = Path("/dev/shm")  # no disk is waited for
MANY = 200_000  # calls that no stack holds


def configurations():
    return [
        path.read_bytes()
        for path in sorted((ROOT / "conf").glob("*.yaml")) + [ROOT / "tests/tiny.yaml"]
        if path.name != "conditions.yaml"
    ]


def policy(bits, layers=1, width=4, heads=2, window=8, examples=0):
    """Returns a file as src/controller/README.md describes it, without its checksum."""
    def matrix(inputs, outputs, bits=bits):
        number = struct.pack("<f", 0.01)
        weights = number * inputs * outputs
        if bits == 8:
            groups = -(-inputs // 32)
            weights = b"\1" * inputs * outputs + number * groups * outputs
        return weights + bytes(4 * outputs)

    norm = struct.pack("<f", 1) * width + bytes(4 * width)
    layer = (norm + matrix(width, 3 * width) + matrix(width, width) + norm +
             matrix(width, 4 * width) + matrix(4 * width, width))
    return b"".join([
        b"CARTPOLE",
        struct.pack("<8I", 1, bits, layers, width, heads, window, examples, 4 * width),
        struct.pack("<4d", 0.02, 20, 2.4, 9.8),
        struct.pack("<10f", *[1] * 10), b"of a test".ljust(64, b"\0"),
        matrix(6, width, 32),
        bytes(4 * window * width), layer * layers, norm,
        matrix(width, 11, 32),
        struct.pack("<11d", 0.5, -1, 0.25, 3, *[0] * 7) * examples,
        bytes(8)
    ])


class Fuzz(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz_",
                                            dir=MEMORY if MEMORY.is_dir() else None))
        self.addCleanup(shutil.rmtree, self.folder)

    def files(self, name, contents):
        (self.folder / name).mkdir()
        files = [self.folder / name / str(number) for number in range(len(contents))]
        for file, content in zip(files, contents):
            file.write_bytes(content)
        return files

    def run_on(self, reader, *arguments):
        options = dict(timeout=60, rss_limit_mb=4096, detect_leaks=0,
                       artifact_prefix=f"{PROGRAMS}/{reader}_")
        # Leaks are looked for with ptrace, which some containers forbid.
        environment = dict(os.environ, TMPDIR=str(self.folder), ASAN_OPTIONS="detect_leaks=0")
        done = subprocess.run([
            PROGRAMS / f"fuzz_{reader}", *[f"-{key}={value}" for key, value in options.items()],
            *arguments
        ], capture_output=True, encoding="utf-8", errors="replace", env=environment)
        self.assertEqual(done.returncode, 0, done.stderr[-8000:])
        return done.stderr

    def fuzz(self, reader, seeds, longest, found=()):
        if found:
            self.run_on(reader, *self.files("found", found))
        self.files("corpus", seeds)
        said = self.run_on(reader, "-seed=1", f"-max_total_time={SECONDS}", f"-max_len={longest}",
                           "-print_final_stats=1", self.folder / "corpus")
        runs = int(re.search(r"stat::number_of_executed_units: *(\d+)", said)[1])
        covered = [int(count) for count in re.findall(r"cov: (\d+)", said)]
        print(f"{reader}: {runs} inputs, {covered[0]} to {covered[-1]} branches", flush=True)
        # Every seed was read, and they led somewhere.
        self.assertGreater(runs, len(seeds))
        self.assertGreater(covered[-1], 100)

    def test_a_configuration(self):
        digits = b"1" * MANY
        self.fuzz("config", configurations(), 4096,
                  found=[b",", b"seed: " + digits, b"training:\n  learning_rate: 0." + digits])

    def test_a_command_line(self):
        lines = [
            b"", b"--seed 3 --dry_run", b"--model.n_embd=64 --world.delay [1,2]", b"--help",
            b"--show out_dir"
        ]
        self.fuzz("command_line",
                  [line + b"\n" + yaml for line in lines for yaml in configurations()], 4096,
                  found=[b"--seed " + b"1" * MANY])

    def test_a_manifest(self):
        whole = (DATASET / "manifest.json").read_bytes()
        small = json.loads(whole)
        small["splits"] = {"train": small["splits"]["train"]}
        del small["splits"]["train"]["shards"][1:]
        small = json.dumps(small).encode()
        delay = re.search(rb'"world.delay": *(\[[^]]*\])', small)
        self.fuzz(
            "manifest", [whole, small], 16384, found=[
                small.replace(b'"schema_version": 3', b'"schema_version": 3e300'),
                re.sub(rb'"rows": *\d+', b'"rows": 1e300', small),
                small.replace(delay[0], b'"world.delay": ' + b"[" * MANY + b"]" * MANY)
            ])

    def test_a_commit_record(self):
        path = self.folder / "checkpoint_250.pt"
        path.write_bytes(b"what was published\n")
        sums = [
            subprocess.run(["sha256sum", *options], cwd=path.parent, stdout=subprocess.PIPE,
                           check=True).stdout
            for options in ([path.name], ["--binary", path.name], [path], ["./" + path.name])
        ]
        self.fuzz(
            "record", [*sums, sums[0].replace(b"250", b"251")], 4096, found=[
                sums[0].replace(b"checkpoint", b"a" * MANY), sums[0].replace(
                    b"  ", b"  " + b"/" * MANY)
            ])

    def test_conditions(self):
        self.fuzz("conditions", [(ROOT / "conf/conditions.yaml").read_bytes()], 4096, found=[b","])

    def test_metrics(self):
        lines = b"".join(b'{"step":%d,"loss":%f}\n' % (step, 1 / step) for step in range(1, 9))
        text = b"".join(b"step %8d loss %f\n" % (step, 1 / step) for step in range(1, 9))
        self.fuzz("metrics", [b"\5" + lines, b"\5" + text, b"\5" + lines[:-3]], 4096)

    def test_a_policy(self):
        self.fuzz("policy", [
            policy(32),
            policy(8),
            policy(32, width=1, heads=1, window=1),
            policy(8, layers=2, width=32, heads=4, window=16),
            policy(32, examples=2)
        ], 65536)


if __name__ == "__main__":
    unittest.main()
