"""Tests the generator: content, interruptions, folders it may not touch, full disks.

Usage: generate_test.py BUILD_FOLDER
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import unittest

import yaml

# Takes BUILD_FOLDER.
from programs import (ENVIRONMENT, ProgramTest, ROOT, command, halted, processes,
                      publish_with_record, run, send, tree)

IMPERFECT = ("--world.cart_mass", "[1.0, 1.0]", "--world.motor_gain", "[0.8, 1.2]", "--world.delay",
             "[0, 2]", "--world.sensor_noise", "[0.01, 0.02, 0.01, 0.05]", "--world.kick_share",
             0.5)


class Generate(ProgramTest):
    def test_content_does_not_depend_on_the_number_of_ranks(self):
        for ranks in (1, 2, 3, 4, 13):  # 11 shards
            self.expect(self.generate(path=self.folder / str(ranks), ranks=ranks), 0)
            self.assertEqual(tree(self.folder / "1"), tree(self.folder / str(ranks)))

    def test_killed_at_any_moment_it_resumes_to_the_same_bytes(self):
        many = ("--dataset.train_shards", 40, "--dataset.trajectories_per_shard", 50)
        self.expect(self.generate(*many, path=self.folder / "unbroken", ranks=2), 0)
        killed = self.folder / "killed"
        moments = random.Random(1)
        # While it makes shards, and at any moment after the launch: start-up, inspection and
        # verification of existing files.
        for shards in (1, 0, 8, 0, 15, 0, 24, 0, 32, 0, 40):
            process = subprocess.Popen(
                command("generate_trajectories", "--dataset.path", killed, *many, ranks=2),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
            while process.poll() is None and len(list(killed.glob("*/*.h5"))) < shards:
                time.sleep(0.001)
            time.sleep(moments.uniform(0, 0.01 if shards else 0.8))
            send(processes("generate_trajectories", killed), signal.SIGKILL)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.expect(self.generate(*many, path=killed, ranks=2), 0, "shards already existed")
        self.assertEqual(tree(self.folder / "unbroken"), tree(killed))

    def test_one_job_at_a_time_writes_a_dataset(self):
        many = ("--dataset.train_shards", 80, "--dataset.trajectories_per_shard", 200)
        generate = command("generate_trajectories", "--dataset.path", self.folder / "data", *many,
                           ranks=2)
        first = subprocess.Popen(generate, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(first.wait)
        self.until((self.folder / "data/owner").exists, first)
        with halted("generate_trajectories", self.folder / "data"):
            second = subprocess.Popen(generate, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                      text=True, env=ENVIRONMENT)
            said = ""
            while "waiting for another process that writes to" not in said:
                said += (line := second.stdout.readline())
                self.assertTrue(line, said)
        said += second.communicate(timeout=60)[0]
        self.assertEqual((first.wait(), second.returncode), (0, 0), said)
        self.assertIn("84 of 84 shards already existed", said)

    def test_it_prints_progress_and_expert_success(self):
        said = self.generate("--dataset.train_shards", 24, "--dataset.trajectories_per_shard",
                             10000, "--dataset.evaluation_trajectories", 500)
        self.expect(said, 0)
        self.assertRegex(said.stdout,
                         r"\d+ of 28 shards  \d+ trajectories/s  0\.\d\d GB/s  \d+ s left\n")
        splits = json.loads((self.folder / "data/manifest.json").read_text())["splits"]
        dropped, solved = splits["train"]["dropped"], splits["test_ood"]["expert_success"]
        self.assertGreater(dropped, 0)
        self.assertIn(f"train       240000   expert success {240000 / (240000 + dropped):.4f}",
                      said.stdout)
        self.assertIn(f"   {dropped} failed draws dropped\n", said.stdout)
        self.assertIn(f"test_ood       500   expert success {solved:.4f}", said.stdout)
        self.assertGreater(solved, 0.8)

    def test_killed_while_publishing_the_manifest_it_resumes(self):
        self.expect(self.generate(), 0)
        before = tree(self.folder / "data")
        document = json.loads((self.folder / "data/manifest.json").read_text())
        for split in document["splits"].values():
            for entry in split["shards"]:
                publish_with_record(self.folder / "data" / (entry["file"] + ".json"),
                                    json.dumps({"settings": document["settings"], "entry": entry}))
        entries = tree(self.folder / "data").keys() - before.keys()
        saved = {name: (self.folder / "data" / name).read_bytes() for name in entries}
        (self.folder / "data/manifest.json.sha256").unlink()
        self.expect(self.generate(), 0, "11 of 11 shards already existed")
        self.assertEqual(tree(self.folder / "data"), before)
        for name, content in saved.items():  # over another manifest, whose record is still there
            (self.folder / "data" / name).write_bytes(content)
        publish_with_record(self.folder / "data/manifest.json",
                            json.dumps({**document, "statistics": None}))
        (self.folder / "data/manifest.json").write_text(json.dumps(document, indent=1) + "\n")
        self.expect(self.generate(), 0, "11 of 11 shards already existed")
        self.assertEqual(tree(self.folder / "data"), before)

    def on_a_disk(self, mount, *arguments):
        """Generates into a folder on a disk that exists only for this command.

        Returns None where that is not allowed.
        """
        as_user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        namespace = ["unshare", *as_user, "--mount"]
        if subprocess.run([*namespace, "true"], stderr=subprocess.DEVNULL).returncode:
            print("a disk that is full or read-only is not tested", file=sys.stderr)
            return None
        script = f'cd {self.folder} && {mount} && "$@"; code=$?; find data/train; exit $code'
        program = command("generate_trajectories", "--dataset.path", self.folder / "data",
                          *arguments)
        return subprocess.run([*namespace, "bash", "-c", script, "bash", *program],
                              capture_output=True, text=True, timeout=60, env=ENVIRONMENT)

    def test_a_full_disk_leaves_only_complete_files(self):
        (self.folder / "data").mkdir()
        if result := self.on_a_disk("mount -t tmpfs -o size=1m none data",
                                    "--dataset.trajectories_per_shard", 200):
            self.expect(result, 74, "disk full")
            self.assertRegex(result.stderr, f"{self.folder}/data/train/shard_0000[1-9].h5")
            left = result.stdout.split()[1:]
            self.assertIn("data/train/shard_00000.h5", left)
            self.assertFalse([name for name in left if ".tmp" in name])

    def test_a_disk_that_cannot_be_written(self):
        read_only = "mount --bind data data && mount -o remount,ro,bind data"
        (self.folder / "data").mkdir()
        if result := self.on_a_disk(read_only):
            self.expect(result, 74, f"cannot open {self.folder}/data/owner: Read-only file system")
            self.expect(self.generate(), 0)
            self.expect(self.on_a_disk(read_only), 0, "11 of 11 shards already existed")

    def test_a_write_error_leaves_no_partial_file(self):
        large = ("--dataset.trajectories_per_shard", 200)  # 0.3 MB a shard
        self.expect(self.generate(*large, path=self.folder / "unbroken"), 0)
        launcher, ranks, *program = command("generate_trajectories", "--dataset.path",
                                            self.folder / "data", *large)
        limit = 'trap "" XFSZ; ulimit -f 128; exec "$@"'
        limited = [launcher, ranks, "bash", "-c", limit, "bash", *program]
        result = subprocess.run(limited, capture_output=True, text=True, timeout=60,
                                env=ENVIRONMENT)
        self.expect(result, 74, "disk full")
        self.assertIn(str(self.folder / "data/train/shard_00000.h5"), result.stderr)
        self.assertEqual(list((self.folder / "data/train").iterdir()), [])
        self.expect(self.generate(*large), 0)
        self.assertEqual(tree(self.folder / "unbroken"), tree(self.folder / "data"))

    def test_only_a_damaged_shard_is_regenerated(self):
        self.expect(self.generate(), 0)
        before = tree(self.folder / "data")
        shard = self.folder / "data/train/shard_00001.h5"
        shard.write_bytes(shard.read_bytes()[:-1])
        self.expect(self.generate(), 0, "10 of 11 shards already existed")
        self.assertEqual(tree(self.folder / "data"), before)

    def test_a_refused_folder_is_not_changed(self):
        self.expect(self.generate(), 0)
        before = tree(self.folder / "data")
        self.expect(self.generate("--dataset.force_noise", "0.2", ranks=2), 78,
                    "dataset.force_noise 0.1, not 0.2")
        foreign = self.folder / "data/test/shard_00009.h5"
        foreign.write_text("mine")
        self.expect(self.generate(ranks=2), 65, f"{foreign} does not belong to this dataset")
        foreign.unlink()
        self.assertEqual(tree(self.folder / "data"), before)
        mine = self.folder / "other/train/shard_00000.h5"  # with an expected name
        mine.parent.mkdir(parents=True)
        mine.write_text("mine")
        self.expect(self.generate(path=self.folder / "other", ranks=2), 65,
                    f"{mine} does not belong to this dataset")
        self.assertEqual(mine.read_text(), "mine")
        self.expect(self.generate(path="/dev/null/data", ranks=2), 74, "/dev/null/data")

    def test_an_unfinished_dataset_of_other_settings_or_schema_is_refused(self):
        self.expect(self.generate(), 0)
        manifest = self.folder / "data/manifest.json"
        document = json.loads(manifest.read_text())
        publish_with_record(manifest, json.dumps({**document, "schema_version": 7}))
        self.expect(self.generate(ranks=2), 65, "has schema 7")
        publish_with_record(manifest, "{}")
        self.expect(self.generate(ranks=2), 65, "is not a manifest of this program")
        manifest.write_text(json.dumps(document))
        self.expect(self.generate(ranks=2), 65, "does not match its SHA-256 record")
        (self.folder / "data/manifest.json.sha256").unlink()  # as from an older program
        self.expect(self.generate(ranks=2), 65, "has no commit record manifest.json.sha256")
        manifest.unlink()  # killed before the manifest: the entries are still next to the shards
        entry = document["splits"]["test"]["shards"][0]
        publish_with_record(self.folder / "data" / (entry["file"] + ".json"),
                            json.dumps({"settings": document["settings"], "entry": entry}))
        before = tree(self.folder / "data")
        self.expect(self.generate("--dataset.force_noise", "0.2", ranks=2), 78,
                    "dataset.force_noise 0.1, not 0.2")
        self.assertEqual(tree(self.folder / "data"), before)

    def test_three_lines_of_h5py_read_a_shard(self):
        import h5py
        self.expect(self.generate(), 0)
        with h5py.File(self.folder / "data/train/shard_00000.h5") as shard:
            state, force = shard["state"][:], shard["force_sent"][:]
            self.assertEqual(state.shape, (16, 65, 4))
            self.assertEqual(force.shape, (16, 64))
            self.assertLessEqual(abs(force).max(), 10.0)
            self.assertTrue(shard["params"].attrs["unit"].startswith("kg, kg, m"))
            self.assertEqual(shard["success"][:].tolist(), [1] * 16)

    def test_a_shard_matches_the_format(self):
        """Compares FORMAT.md's table with shards: names, shapes, types and units."""
        import h5py
        rows = re.findall(r"^\| `(\w+)` \| \[([^]]+)\] (\w+) \| ([^|]*?) ?\|",
                          (ROOT / "datagen/FORMAT.md").read_text(), re.MULTILINE)
        types = {"f32": "<f4", "u32": "<u4", "i32": "<i4", "u8": "|u1"}
        expected = {}
        for name, shape, element, unit in rows:
            extents = tuple({"N": 16, "T": 64, "T+1": 65}.get(extent) or int(extent)
                            for extent in shape.split(", "))
            expected[name] = (extents, types[element], unit)
        self.assertEqual(len(expected), len(rows))

        def columns(data):
            with h5py.File(data / "train/shard_00000.h5") as shard:
                return {
                    name: (column.shape, column.dtype.str, column.attrs["unit"])
                    for name, column in shard.items()
                }

        self.expect(self.generate(*IMPERFECT, path=self.folder / "imperfect"), 0)
        self.assertEqual(columns(self.folder / "imperfect"), expected)
        self.expect(self.generate(), 0)
        del expected["measured"]  # only where sensors are noisy
        self.assertEqual(columns(self.folder / "data"), expected)

    def test_a_sheet_is_drawn_of_intact_data(self):
        self.expect(self.generate(*IMPERFECT), 0)
        draw = [ROOT / ".venv/bin/python", ROOT / "tools/dataset_sheet.py", self.folder / "data"]
        self.expect(subprocess.run(draw, capture_output=True, text=True, timeout=120), 0)
        self.assertTrue((self.folder / "data/sheet.png").read_bytes().startswith(b"\x89PNG"))
        self.expect(
            subprocess.run([*draw, "--out", self.folder / "none/sheet.png"], capture_output=True,
                           text=True, timeout=120), 74, "none/sheet.png")
        shard = self.folder / "data/train/shard_00000.h5"
        shard.write_bytes(shard.read_bytes()[:-1])
        self.expect(subprocess.run(draw, capture_output=True, text=True, timeout=120), 65,
                    f"{shard} is damaged")

    # What it prints is a section of a configuration that generate_trajectories accepts.
    def test_a_tuned_law_does_not_depend_on_the_number_of_ranks(self):
        few = ("--dataset.evaluation_trajectories", 8, "--world.half_length", "[0.2, 0.3]")
        tuned = [run("tune_expert", *few, ranks=ranks) for ranks in (1, 2)]
        self.assertEqual([result.returncode for result in tuned], [0, 0], tuned[0].stderr)
        self.assertEqual(tuned[0].stdout, tuned[1].stdout)
        law = yaml.safe_load(tuned[0].stdout)
        self.assertEqual(list(law), ["expert"])
        self.assertIn("success after, under noise, gain and parameter errors:  validation",
                      tuned[0].stderr)
        config = self.folder / "tuned.yaml"
        config.write_text((ROOT / "tests/tiny.yaml").read_text() + tuned[0].stdout)
        made = subprocess.run(
            command("generate_trajectories", "--dataset.path", self.folder / "data", config=config),
            capture_output=True, text=True, env=ENVIRONMENT)
        self.assertEqual(made.returncode, 0, made.stderr)
        settings = json.loads((self.folder / "data/manifest.json").read_text())["settings"]
        for key, value in law["expert"].items():
            self.assertEqual(settings[f"expert.{key}"], value)


if __name__ == "__main__":
    unittest.main()
