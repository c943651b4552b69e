"""Tests that an interrupted training run resumes exactly.

The causes are stop requests, killed and hanging ranks, damaged or unwritable checkpoints.
Usage: resume_test.py BUILD_FOLDER
"""

import os
import resource
import shutil
import signal
import subprocess
import time
import unittest
from pathlib import Path

# Takes BUILD_FOLDER.
from programs import (BUILD, ENVIRONMENT, TINY, TrainTest, command, halted, metrics, processes, run,
                      same_state, send, tree)


class Resume(TrainTest):
    def test_a_run_stopped_by_usr1_and_resumed_equals_an_unbroken_one(self):
        steps = ("--training.train_steps", 400, "--training.save_every_steps", 100)
        self.expect(self.train(*steps, out=self.folder / "unbroken", ranks=2), 0)
        out = self.folder / "stopped"
        train = command("train_gpt2", "--dataset.path", self.data, "--out_dir", out, *steps,
                        ranks=2)
        stops = 0
        while True:
            process = subprocess.Popen(train, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
            metrics_file = out / "metrics.jsonl"
            size = metrics_file.stat().st_size if metrics_file.exists() else 0
            while stops < 2 and process.poll() is None and (
                    not metrics_file.exists() or metrics_file.stat().st_size < size + 4000):
                time.sleep(0.02)
            if stops < 2:
                with halted("train_gpt2", out) as ranks:
                    send(ranks, signal.SIGUSR1)
            output, _ = process.communicate(timeout=120)
            if process.returncode != 75:
                break
            self.assertIn("saved, stopping as requested", output)
            stops += 1
        self.assertEqual(process.returncode, 0, output)
        self.assertEqual(stops, 2)
        self.assertEqual(metrics(self.folder / "unbroken"), metrics(out))
        same_state(self, self.folder / "unbroken/state.pt", out / "state.pt")

    def test_no_thread_runs_a_handler_on_a_stop_request(self):
        """A handler's frame corrupts the heap during oneDNN's matrix products.

        They use the stack pointer for data.
        """
        out = self.folder / "run"
        train = command("train_gpt2", "--dataset.path", self.data, "--out_dir", out,
                        "--training.train_steps", 1000000, "--training.epochs", 100000000, ranks=2)
        process = subprocess.Popen(train, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
        self.until((out / "metrics.jsonl").exists, process)
        usr1 = 1 << (signal.SIGUSR1 - 1)
        ranks = processes("train_gpt2", out)
        for rank in ranks:
            sets = dict(
                line.split(":\t")
                for line in Path(f"/proc/{rank}/status").read_text().splitlines()
                if line.startswith("Sig"))
            self.assertTrue(int(sets["SigBlk"], 16) & usr1)
            self.assertFalse(int(sets["SigCgt"], 16) & usr1)
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(process.wait(timeout=60), 75)
        self.assertEqual(len(ranks), 2)

    def test_a_killed_rank_ends_the_job_and_the_run_resumes_exactly(self):
        steps = ("--training.train_steps", 2000, "--training.save_every_steps", 200)
        self.expect(self.train(*steps, out=self.folder / "unbroken", ranks=2), 0)
        out = self.folder / "killed"
        train = command("train_gpt2", "--dataset.path", self.data, "--out_dir", out, *steps,
                        ranks=2)
        code, output, _ = self.after_signal_to_a_rank(signal.SIGKILL, train, out, ENVIRONMENT,
                                                      timeout=60)
        self.assertNotEqual(code, 0, output)
        self.expect(self.train(*steps, out=out, ranks=2), 0, "resumed at step")
        self.assertEqual(metrics(self.folder / "unbroken"), metrics(out))
        same_state(self, self.folder / "unbroken/state.pt", out / "state.pt")

    def test_a_rank_that_hangs_ends_the_job_and_the_run_resumes_exactly(self):
        steps = ("--training.train_steps", 2000, "--training.save_every_steps", 200,
                 "--training.hang_seconds", 5)
        self.expect(self.train(*steps, out=self.folder / "unbroken", ranks=2), 0)
        out = self.folder / "stopped"
        train = command("train_gpt2", "--dataset.path", self.data, "--out_dir", out, *steps,
                        ranks=2)
        code, output, _ = self.after_signal_to_a_rank(signal.SIGSTOP, train, out, ENVIRONMENT,
                                                      timeout=60)
        self.assertEqual(code, 76, output)
        self.assertIn("no progress for 5 s while training up to step", output)
        self.assertEqual(processes("train_gpt2", out), [])
        self.expect(self.train(*steps, out=out, ranks=2), 0, "resumed at step")
        self.assertEqual(metrics(self.folder / "unbroken"), metrics(out))
        same_state(self, self.folder / "unbroken/state.pt", out / "state.pt")

    def test_a_rank_that_hangs_before_the_first_step_ends_the_job(self):
        many = ("--dataset.train_shards", 12, "--dataset.trajectories_per_shard", 3000)
        data, out = self.folder / "data", self.folder / "run"
        self.expect(self.generate(*many, path=data, ranks=2), 0)
        train = command("train_gpt2", "--dataset.path", data, "--out_dir", out, *many,
                        "--training.hang_seconds", 1, ranks=2)
        process = subprocess.Popen(train, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, env=ENVIRONMENT)

        def reads_a_shard(rank):
            files = Path(f"/proc/{rank}/fd")
            return any("shard_" in os.readlink(files / name) for name in os.listdir(files))

        self.until(lambda: len(processes("train_gpt2", out)) == 2, process)
        rank = max(processes("train_gpt2", out))
        while True:
            os.kill(rank, signal.SIGSTOP)
            if reads_a_shard(rank):
                break
            os.kill(rank, signal.SIGCONT)
            time.sleep(0.002)
            self.assertIsNone(process.poll())
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 76, output)
        self.assertRegex(output, r"no progress for \d+ s while verifying the dataset")

    def test_a_damaged_checkpoint_is_skipped_and_all_damaged_refused(self):
        self.expect(self.train(), 0)
        out = self.folder / "run"
        newest = out / "checkpoint_20.pt"
        shutil.copy(newest, self.folder / "intact.pt")
        newest.write_bytes(newest.read_bytes()[:-1])
        self.expect(self.train(), 0, "skipping: ", "resumed at step 15")
        same_state(self, self.folder / "intact.pt", newest)
        for checkpoint in out.glob("checkpoint_*.pt"):
            checkpoint.write_bytes(b"")
        before = tree(out)
        result = self.train(ranks=2)
        self.assertEqual(result.returncode, 65, result.stderr)
        self.assertIn("is valid: restore one", result.stderr)
        self.assertEqual(tree(out), before)

    def test_a_run_that_cannot_save_continues_and_gives_up_after_three_attempts(self):
        out = self.folder / "run"
        steps = ("--training.train_steps", 1000000, "--training.epochs", 100000000,
                 "--training.save_every_steps", 1000, "--training.log_every_steps", 1000)
        launcher, ranks, *program = command("train_gpt2", "--dataset.path", self.data, "--out_dir",
                                            out, *steps, ranks=2)
        process = subprocess.Popen(
            [launcher, ranks, "bash", "-c", 'trap "" XFSZ; exec "$@"', "bash", *program],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        self.until((out / "metrics.jsonl").exists, process)
        # Once MPI has made its own files, no file may grow beyond 32 KiB; a checkpoint has 97.
        with halted("train_gpt2", out) as ranks:
            for rank in ranks:
                resource.prlimit(rank, resource.RLIMIT_FSIZE, (32768, 32768))
        stdout, stderr = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 74, stderr)
        self.assertIn("warning: no checkpoint at step 1000: cannot write", stdout)
        self.assertIn("3 checkpoints in a row", stderr)
        self.assertEqual(list(out.glob("checkpoint_*")), [])

    def test_a_copied_checkpoint_is_recognized_or_explained(self):
        self.expect(self.train(), 0)
        out = self.folder / "run"
        evaluate = ("evaluate_policy", "--dataset.path", self.data, "--out_dir", out,
                    "--evaluation.checkpoint")
        copy, renamed = self.folder / "copy.pt", self.folder / "kept/checkpoint_20.pt"
        shutil.copy(out / "checkpoint_20.pt", copy)
        self.expect(run(*evaluate, copy), 65, f"{copy} has no commit record copy.pt.sha256",
                    "sha256sum copy.pt >copy.pt.sha256")
        shutil.copy(out / "checkpoint_20.pt.sha256", f"{copy}.sha256")
        self.expect(run(*evaluate, copy), 65,
                    "is whole, but was renamed: its record is of checkpoint_20.pt")
        subprocess.run("sha256sum copy.pt >copy.pt.sha256", shell=True, check=True, cwd=self.folder)
        self.expect(run(*evaluate, copy), 0)
        renamed.parent.mkdir()
        for end in ("", ".sha256"):
            shutil.copy(f"{out}/checkpoint_20.pt{end}", f"{renamed}{end}")
        self.expect(run(*evaluate, renamed), 0)

    def test_a_suspended_process_is_not_taken_for_a_hang(self):
        out = self.folder / "run"
        train = [
            BUILD / "train_gpt2", "--config", TINY, "--dataset.path", self.data, "--out_dir", out,
            "--training.hang_seconds", "5", "--training.train_steps", "1000000",
            "--training.epochs", "100000000"
        ]
        process = subprocess.Popen(train, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   text=True, env=ENVIRONMENT | {"SLURM_CPUS_PER_TASK": "1"})
        log = out / "metrics.jsonl"
        self.until(lambda: log.exists() and log.stat().st_size > 0, process)
        process.send_signal(signal.SIGSTOP)
        time.sleep(8)
        process.send_signal(signal.SIGCONT)
        time.sleep(1)
        process.send_signal(signal.SIGUSR1)
        said = process.communicate(timeout=60)[1]
        self.assertEqual(process.returncode, 75, said)

    def test_a_later_start_of_the_same_slurm_job_takes_the_run_over(self):
        """Slurm restarts a job when it loses contact with a node, where old ranks may still run."""
        steps = ("--training.train_steps", 1000, "--training.save_every_steps", 100)
        self.expect(self.train(*steps, out=self.folder / "unbroken", ranks=2), 0)
        out = self.folder / "run"
        train = command("train_gpt2", "--dataset.path", self.data, "--out_dir", out, *steps,
                        ranks=2)

        def start(job, restarts):
            return subprocess.Popen(
                train, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env=ENVIRONMENT | {"SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": restarts})

        first = start("7", "0")
        self.until(lambda: list(out.glob("checkpoint_*.sha256")), first)
        with halted("train_gpt2", out):
            other = start("8", "1")
            said = other.communicate(timeout=60)[0]
            self.assertEqual(other.returncode, 78, said)
            self.assertEqual(said.count("another process writes to"), 1, said)
            again = start("7", "1")
            said = again.communicate(timeout=120)[0]
            self.assertEqual(again.returncode, 0, said)
            self.assertIn("resumed at step", said)
            before = tree(out)
        said = first.communicate(timeout=60)[0]  # it has woken up
        self.assertEqual(first.returncode, 78, said)
        self.assertIn(f"a later start has taken over {out}: this one stops without writing to it",
                      said)
        self.assertEqual(tree(out), before)
        self.assertEqual(metrics(self.folder / "unbroken"), metrics(out))
        same_state(self, self.folder / "unbroken/state.pt", out / "state.pt")


if __name__ == "__main__":
    unittest.main()
