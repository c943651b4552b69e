"""Tests what is refused, with which exit code and words, before anything is lost.

Usage: refusals_test.py BUILD_FOLDER
"""

import json
import os
import shutil
import signal
import subprocess
import unittest
from pathlib import Path

import torch

# Takes BUILD_FOLDER.
from programs import (ASAN, BUILD, ENVIRONMENT, ROOT, TINY, TrainTest, command, halted,
                      publish_with_record, run, tree)


class Refusals(TrainTest):
    def test_a_missing_gpu_is_reported_before_anything_is_written(self):
        result = self.train("--device", "cuda", ranks=2)
        no_cuda = "built without CUDA" in result.stderr
        self.assertEqual(result.returncode, 78 if no_cuda else 69, result.stderr)
        self.assertRegex(
            result.stderr,
            f"rank 0, on {os.uname().nodename}, sees no GPU: .*set device to cpu|built without CUDA"
        )
        self.assertEqual(result.stderr.count("device to cpu"), 1, result.stderr)
        self.assertFalse((self.folder / "run").exists())
        if not no_cuda:  # a node that lost all GPUs that Slurm granted is not a CPU node
            train = command("train_gpt2", "--dataset.path", self.data, "--out_dir",
                            self.folder / "run", ranks=2)
            granted = subprocess.run(train, capture_output=True, text=True, timeout=120,
                                     env={**ENVIRONMENT, "SLURM_GPUS_ON_NODE": "2"})
            self.expect(granted, 69, "sees no GPU")
        self.expect(self.train("--device", "cpu"), 0, "device       1 x CPU")
        self.expect(
            run("evaluate_policy", "--dataset.path", self.data, "--out_dir", self.folder / "run",
                "--device", "cuda"), 78 if no_cuda else 69, "device to cpu")

    def test_bad_input_is_reported_once_by_name_and_changes_nothing(self):
        self.expect(self.train(), 0)
        out = self.folder / "run"
        before = tree(out)
        self.expect(self.train("--model.n_layers", 2, ranks=2), 78, "model.n_layers")
        self.expect(self.train("--training.batch_size", 8, ranks=2), 78,
                    "2 ranks x training.batch_size 8")
        self.expect(self.train("--model.n_embd", 32, ranks=2), 78,
                    "model.n_embd was 16 and is now 32")
        self.expect(self.train("--seed", 5, ranks=2), 78, "seed was 0 and is now 5")
        self.expect(self.train(data=self.folder / "nothing", out=self.folder / "new", ranks=2), 65,
                    "nothing/manifest.json does not exist")
        self.expect(self.train(data=self.folder / "nothing", ranks=2), 74,
                    "is its file system mounted?")  # it was there before
        self.assertEqual(tree(out), before)
        self.expect(self.train(out="/dev/null/run", ranks=2), 74, "/dev/null/run")

    def test_a_world_that_cannot_be_is_refused(self):
        cases = (
            ("cart_mass", "[2.0, 0.5]",
             "(command line) must be [low, high], with low at most high"),
            ("pole_mass", "[0.0, 0.5]", "but must be a list of 2 numbers from"),
            ("delay", "[0, 64]", "it must be less than model.n_positions 16"),
            ("delay", "[0, 1.5]", "(command line) must be whole control periods"),
            ("widening.cart_mass", "[1.2, 1.5]", "(command line) must be [at most 1, at least 1]"),
        )
        for key, value, complaint in cases:
            result = self.generate(f"--world.{key}", value, ranks=2)
            self.expect(result, 78, complaint)
            [said] = [line for line in result.stderr.splitlines() if complaint in line]
            self.assertIn(f"world.{key} ", said)
        self.assertFalse((self.folder / "data").exists())

    def test_commands_of_the_documents_are_accepted(self):
        lines = (ROOT / "conf/README.md").read_text().splitlines()
        commands = [line.split()[2:] for line in lines if line.startswith("launch/local.sh ")]
        self.assertGreaterEqual(len(commands), 2)
        for program, option, config, *arguments in commands:
            self.assertEqual(option, "--config")
            self.expect(
                run(
                    Path(program).name, *arguments, "--show", "model.n_positions",
                    config=ROOT / config), 0)

    def test_a_run_is_never_a_mixture(self):
        derived = ("--training.global_batch_size", 0)  # batch_size x ranks
        self.expect(self.train(*derived, ranks=2), 0)
        out = self.folder / "run"
        self.expect(self.train(*derived, ranks=1), 78,
                    "training.global_batch_size was 8 and is now 4")
        self.expect(self.train("--training.batch_size", 8, *derived, ranks=1), 0, "nothing to do")
        for checkpoint in out.glob("*.pt*"):
            checkpoint.unlink()
        before = tree(out)
        self.expect(self.train("--model.n_embd", 32, ranks=2), 78,
                    "model.n_embd was 16 and is now 32")
        self.assertEqual(tree(out), before)

    def test_two_processes_never_write_one_run(self):
        long = ("--training.train_steps", 1000000, "--training.epochs", 100000000)
        train = command("train_gpt2", "--dataset.path", self.data, "--out_dir", self.folder / "run",
                        *long)
        first = subprocess.Popen(train, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                 env=ENVIRONMENT)
        self.until((self.folder / "run/metrics.jsonl").exists, first)
        self.expect(self.train(*long, ranks=2), 78, "another process writes to")
        first.send_signal(signal.SIGUSR1)
        self.assertEqual(first.wait(timeout=30), 75)

    def test_a_launcher_of_another_mpi_is_refused(self):
        train = [BUILD / "train_gpt2", "--config", TINY, "--out_dir", self.folder / "run"]
        for name in ("PMI_SIZE", "SLURM_STEP_NUM_TASKS"):
            alone = subprocess.run(train, capture_output=True, text=True,
                                   env={**ENVIRONMENT, name: "2"})
            self.expect(alone, 78, f"the launcher started 2 tasks ({name}), but each is alone")
        # A PMIx that this Open MPI does not speak to, as in a container.
        foreign = {"PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "2"}
        alone = subprocess.run(train, capture_output=True, text=True,
                               env={**ENVIRONMENT, **foreign})
        self.expect(alone, 78,
                    "the launcher started 2 tasks (SLURM_STEP_NUM_TASKS), but each is alone")

    def test_host_files_are_checked_before_ranks_start(self):
        hosts, missing = self.folder / "hosts", self.folder / "missing"
        hosts.write_text("# none\n\n")

        def launch(*arguments):
            return subprocess.run([ROOT / "launch/multinode.sh", *arguments], capture_output=True,
                                  text=True, env={**ENVIRONMENT, "OMPI_MCA_plm_rsh_agent": "false"})

        train = (BUILD / "train_gpt2", "--config", TINY, "--dataset.path", self.data, "--out_dir",
                 self.folder / "run")
        self.expect(launch(), 64, "launch/multinode.sh HOSTFILE PROGRAM")
        self.expect(launch(missing, *train), 78, f"there is no host file {missing}")
        self.expect(launch(hosts, *train), 78, f"{hosts} names no machine")
        hosts.write_text("localhost slots=2\nelsewhere slots=2\n")
        self.expect(launch(hosts, *train), 78,
                    "elsewhere cannot be reached without a password (false elsewhere)")
        hosts.write_text("localhost slots=2\n")
        self.expect(launch(hosts, BUILD / "none"), 78, f"there is no program {BUILD}/none")
        self.expect(launch(hosts, *train), 0)
        self.assertTrue((self.folder / "run/DONE").exists())

    def test_a_damaged_dataset_is_refused_before_the_first_step(self):
        copy = self.folder / "copy"
        shutil.copytree(self.data, copy)
        shard = copy / "train/shard_00002.h5"
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
        self.expect(self.train(data=copy, ranks=2), 65, f"{shard} is damaged")
        shard.write_bytes(content[:-8])
        self.expect(self.train(data=copy, ranks=2), 65,
                    f"{shard} has {len(content) - 8} bytes instead of {len(content)}")
        extra = copy / "train/shard_00009.h5"
        extra.touch()
        self.expect(self.train(data=copy, ranks=2), 65, f"{extra} is not listed in manifest.json")
        extra.unlink()
        shard.unlink()
        self.expect(self.train(data=copy, ranks=2), 65, f"{shard} is missing")
        manifest = json.loads((copy / "manifest.json").read_text())
        publish_with_record(copy / "manifest.json", json.dumps({**manifest, "schema_version": 7}))
        self.expect(self.train(data=copy), 65, "has schema 7")
        (copy / "manifest.json").write_text(json.dumps(manifest))
        self.expect(self.train(data=copy, ranks=2), 65, "does not match its SHA-256 record")
        self.assertFalse((self.folder / "run").exists())

    def test_training_is_refused_on_a_dataset_of_other_settings(self):
        cases = (("force_noise", 0.1, 0.7), ("seed", 1, 99), ("train_shards", 3, 2))
        for key, there, other in cases:
            said = (f"{self.data} holds a dataset made with dataset.{key} {there}, not {other}: "
                    "restore the setting")
            self.expect(self.train(f"--dataset.{key}", other, ranks=2), 78, said)
            self.expect(self.train(f"--dataset.{key}", other, "--dry_run", ranks=2), 78, said)
        older = self.folder / "older"
        shutil.copytree(self.data, older)
        manifest = json.loads((older / "manifest.json").read_text())
        del manifest["settings"]["expert.enter_angle"]
        publish_with_record(older / "manifest.json", json.dumps(manifest))
        self.expect(
            run("train_gpt2", "--dataset.path", older, "--out_dir", self.folder / "run"), 78,
            f"{older} holds a dataset made before there was expert.enter_angle: generate it again")
        self.assertFalse((self.folder / "run").exists())

    def test_foreign_files_are_never_removed_or_replaced(self):
        out = self.folder / "run"
        (out / "state.pt").mkdir(parents=True)
        mine = {
            name: f"mine: {name}"
            for name in ("my_notes.tmp", "checkpoint_3.pt", "checkpoint_10.pt",
                         "checkpoint_4.pt.tmp", "notes.txt")
        }
        for name, text in mine.items():
            (out / name).write_text(text)
        result = self.train(ranks=2)  # none of the checkpoints is one
        self.assertEqual(result.returncode, 65)
        for name in ("checkpoint_3.pt", "checkpoint_10.pt"):
            (out / name).rename(out / f"moved_{name}")
        train = command("train_gpt2", "--dataset.path", self.data, "--out_dir", out,
                        "--training.train_steps", 900, "--training.save_every_steps", 300, ranks=2)
        process = subprocess.Popen(train, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        self.until((out / "metrics.jsonl").exists, process)
        with halted("train_gpt2", out):
            (out / "checkpoint_3.pt").write_text(mine["checkpoint_3.pt"])
            (out / "checkpoint_600.pt").write_text("mine too")
        said, _ = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 0, said)
        self.assertIn(
            "checkpoint_600.pt had no commit record and is now checkpoint_600.pt.unrecorded", said)
        self.assertEqual((out / "checkpoint_600.pt.unrecorded").read_text(), "mine too")
        self.assertEqual(torch.load(out / "checkpoint_600.pt")["step"], 600)
        self.assertTrue((out / "state.pt").is_dir())
        for name in ("my_notes.tmp", "checkpoint_3.pt", "checkpoint_4.pt.tmp", "notes.txt"):
            self.assertEqual((out / name).read_text(), mine[name])
        for name in ("metrics.jsonl", "DONE"):
            other = self.folder / f"other_{name}"
            other.mkdir()
            (other / name).write_text('{"step":7,"mine":1}\n')
            self.expect(self.train(out=other, ranks=2), 78,
                        f"{other}/{name} exists, but no config.yaml of a run")
            self.assertEqual((other / name).read_text(), '{"step":7,"mine":1}\n')

    def test_a_gradient_that_is_never_finite_stops_the_run(self):
        result = self.train("--training.learning_rate", 10, "--training.gradient_clip", 1e9,
                            "--training.warmup_steps", 0, "--model.feature_scales",
                            "[1e-30, 1e-30, 1e-30, 1e-30, 1e-30, 1e-30]", ranks=2)
        self.expect(result, 93, "the gradient was not finite")

    def test_running_out_of_memory_says_what_to_change(self):
        train = command("train_gpt2", "--dataset.path", self.data, "--out_dir", self.folder / "run",
                        "--training.batch_size", 1 << 17, "--training.global_batch_size", 1 << 17,
                        "--training.curriculum.points.start", 16, "--model.n_embd", 1024)
        # A single activation has 8.6 GB. AddressSanitizer itself needs more addresses.
        limit = "ulimit -v 8000000; "
        limited = ENVIRONMENT | {
            "ASAN_OPTIONS": "detect_leaks=0:max_allocation_size_mb=8000:allocator_may_return_null=1"
        }
        result = subprocess.run(
            ["bash", "-c", ("" if ASAN else limit) + 'exec "$@"', "bash", *train],
            capture_output=True, text=True, timeout=120, env=limited)
        self.expect(
            result, 78, "out of memory at training.batch_size 131072",
            "Set training.batch_size 65536 and training.global_batch_size 131072: "
            "the same training in less memory")


if __name__ == "__main__":
    unittest.main()
