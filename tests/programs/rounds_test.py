"""Tests on-policy rounds: equal bytes for any ranks and after any interruption, and refusals.

Usage: rounds_test.py BUILD_FOLDER
"""

import shutil
import signal
import subprocess
import unittest

import torch
# Takes BUILD_FOLDER.
from programs import ENVIRONMENT, TrainTest, command, metrics, processes, same_state, send, tree


def rounds(**changed):
    """Settings of rounds: by default at steps 6, 11 and 16 of 20, in three shards each."""
    settings = {
        "count": 3, "first_step": 6, "every_steps": 5, "trajectories": 40,
        "trajectories_per_shard": 16, "steps": 64, **changed
    }
    return [text for key, value in settings.items() for text in (f"--rounds.{key}", value)]


ROUNDS = rounds()


class Rounds(TrainTest):
    def round(self, step, out="run"):
        return self.folder / out / f"rounds/round_{step}"

    def begin(self, out):
        """Trains up to the first round, which then has no place to go."""
        (self.folder / out).mkdir()
        blocked = self.folder / out / "rounds"
        blocked.write_text("")
        result = self.train(*ROUNDS, out=self.folder / out)
        self.expect(result, 74, f"cannot create the folder {blocked}")
        self.assertTrue((self.folder / out / "checkpoint_6.pt").exists())
        blocked.unlink()

    def test_a_run_trains_on_its_rounds(self):
        said = self.train(*ROUNDS, "--dry_run", ranks=2)
        self.expect(said, 0, "3 of 40 trajectories of 64 control steps, from step 6 to 16")
        result = self.train(*ROUNDS, ranks=2)
        self.expect(result, 0, "round 1 of 3", "round 3 of 3", "of the time so far")
        out = self.folder / "run"
        lines = [
            line for line in (out / "metrics.jsonl").read_text().splitlines() if "round" in line
        ]
        self.assertEqual(len(lines), 3)
        self.assertEqual(len(torch.load(out / "state.pt")["rounds"]), 3)
        self.assertEqual(sorted(tree(self.round(11))), [
            "manifest.json", "manifest.json.sha256", "train/shard_00000.h5", "train/shard_00001.h5",
            "train/shard_00002.h5"
        ])
        self.expect(self.train(out=self.folder / "plain", ranks=2), 0)
        self.assertEqual(metrics(self.folder / "plain")[:6], metrics(out)[:6])
        self.assertNotEqual(metrics(self.folder / "plain")[6:], metrics(out)[6:])
        self.expect(self.train(*rounds(count=9), out=self.folder / "short"), 0,
                    "warning: only 3 of rounds.count 9 rounds are played")

    def test_bytes_do_not_depend_on_the_number_of_ranks(self):
        self.begin("one")
        for name in ("two", "four"):
            shutil.copytree(self.folder / "one", self.folder / name)
        for name, ranks in (("one", 1), ("two", 2), ("four", 4)):
            batch = ("--training.batch_size", 2)
            self.expect(self.train(*ROUNDS, *batch, out=self.folder / name, ranks=ranks), 0,
                        "resumed at step 6")
        self.assertEqual(tree(self.round(6, "one")), tree(self.round(6, "two")))
        self.assertEqual(tree(self.round(6, "one")), tree(self.round(6, "four")))

    def test_a_rank_killed_in_a_round_ends_the_job_and_the_run_resumes_to_the_same_bytes(self):
        """Kills at several moments: the first shards are there, more are, nearly all are."""
        long = rounds(count=1, trajectories=3000, trajectories_per_shard=50, steps=500)
        self.expect(self.train(*long, out=self.folder / "unbroken", ranks=2), 0)
        out = self.folder / "run"
        train = command("train_gpt2", "--dataset.path", self.data, "--out_dir", out, *long, ranks=2)
        kills = 0
        for shards in (1, 20, 45):
            process = subprocess.Popen(train, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                       text=True, env=ENVIRONMENT)
            self.until(
                lambda: len(processes("train_gpt2", out)) == 2 and len(
                    list(self.round(6).glob("train/*.h5"))) >= shards, process)
            send(processes("train_gpt2", out)[-1:], signal.SIGKILL)
            said, _ = process.communicate(timeout=60)
            self.assertNotEqual(process.returncode, 0, said)
            kills += not (self.round(6) / "manifest.json").exists()
        self.assertGreater(kills, 0, "no kill hit the round")
        self.expect(self.train(*long, out=out, ranks=2), 0, "resumed at step 6")
        self.assertEqual(metrics(self.folder / "unbroken"), metrics(out))
        same_state(self, self.folder / "unbroken/state.pt", out / "state.pt")
        made, unbroken = tree(self.round(6)), tree(self.round(6, "unbroken"))
        made.pop("owner", None), unbroken.pop("owner", None)
        self.assertEqual(made, unbroken)

    def test_a_full_disk_in_a_round(self):
        out = self.folder / "run"
        large = rounds(count=1, trajectories=300, trajectories_per_shard=150, steps=200)
        launcher, ranks, *program = command("train_gpt2", "--dataset.path", self.data, "--out_dir",
                                            out, *large)
        limit = 'trap "" XFSZ; ulimit -f 256; exec "$@"'  # KiB; a shard has 750, a checkpoint 97
        result = subprocess.run([launcher, ranks, "bash", "-c", limit, "bash", *program],
                                capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
        self.expect(result, 74, "disk full")
        self.assertIn(str(self.round(6) / "train/shard_0000"), result.stderr)
        self.assertEqual(list(self.round(6).glob("train/*")), [])
        self.expect(self.train(*large), 0, "resumed at step 6")

    def test_a_damaged_or_missing_round_is_refused_at_resume(self):
        out = self.folder / "run"
        settings = (*ROUNDS, "--training.save_every_steps", 1, "--training.keep_every_steps", 1)
        self.expect(self.train(*settings), 0)
        for path in out.glob("checkpoint_20.pt*"):
            path.unlink()
        (out / "DONE").unlink()
        shard, manifest = self.round(11) / "train/shard_00001.h5", self.round(11) / "manifest.json"
        other = self.round(6)
        remedy = ("restore it from a copy, or remove the checkpoints of later steps than 11 and "
                  "the run plays that round again")

        def refused(*texts):
            before = tree(out)
            result = self.train(*settings, ranks=2)
            self.expect(result, 65, *texts, remedy)
            self.assertEqual(tree(out), before)

        kept = {path: path.read_bytes() for path in (shard, manifest)}
        shard.write_bytes(kept[shard][:-1])
        refused(f"{shard} has ")
        flipped = bytearray(kept[shard])
        flipped[len(flipped) // 2] ^= 1
        shard.write_bytes(flipped)
        refused(f"{shard} is damaged")
        shard.unlink()
        refused(f"{shard} is missing")
        shard.write_bytes(kept[shard])
        manifest.write_bytes(kept[manifest] + b" ")
        refused(str(manifest))
        manifest.unlink()
        refused(f"{manifest} does not exist")
        manifest.write_bytes(kept[manifest])
        shutil.move(self.round(11), self.folder / "kept")
        shutil.copytree(other, self.round(11))
        refused("is not the round that the checkpoint was trained on")
        shutil.rmtree(self.round(11))
        # The remedy works, and ends in what was there.
        for path in out.glob("checkpoint_1[2-9].pt*"):
            path.unlink()
        self.expect(self.train(*settings), 0, "resumed at step 11")
        made, unbroken = tree(self.round(11)), tree(self.folder / "kept")
        self.assertEqual(made, unbroken)

    def test_other_settings_of_the_rounds_are_refused(self):
        self.expect(self.train(*ROUNDS), 0)
        before = tree(self.folder / "run")
        self.expect(self.train(*ROUNDS, "--rounds.share", 0.75), 78,
                    "rounds.share was 0.5 and is now 0.75")
        self.expect(self.train(), 78, "rounds.count was 3 and is now 0")
        self.expect(self.train(*rounds(steps=8), out=self.folder / "other"), 78,
                    "rounds.steps 8 (command line) is less than model.n_positions 16")
        self.assertEqual(tree(self.folder / "run"), before)
        self.assertFalse((self.folder / "other").exists())

    def test_a_newest_round_replaces_the_ones_before(self):
        newest = rounds(newest=1)
        self.expect(self.train(*newest), 0)
        out = self.folder / "run"
        for path in out.glob("checkpoint_20.pt*"):
            path.unlink()
        shutil.rmtree(self.round(6))  # nothing will be read of it
        self.expect(self.train(*newest), 0, "resumed at step 16")
        self.expect(self.train(*newest, out=self.folder / "unbroken"), 0)
        same_state(self, self.folder / "unbroken/state.pt", out / "state.pt")


if __name__ == "__main__":
    unittest.main()
