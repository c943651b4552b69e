"""Tests that no fault of a process, a disk or a file damages or silently loses anything.

With CHECK_ALL=1 there are more of them; FAULTS_SEED=number repeats the random ones.
Usage: faults_test.py BUILD_FOLDER
"""

import contextlib
import hashlib
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import time
import unittest
from pathlib import Path

# Takes BUILD_FOLDER.
from programs import (BUILD, ENVIRONMENT, ProgramTest, TINY, TrainTest, command, metrics, processes,
                      same_state, send, tree)

ALL = os.environ.get("CHECK_ALL") == "1"
RANKS = 3
WRITES = "write,writev,pwrite"


def faults(path, **settings):
    """Returns the environment of a program whose files fail: see tests/faults/file_faults.h."""
    chosen = {f"FAULT_{name.upper()}": str(value) for name, value in settings.items()}
    library = str(BUILD / "tests/faults/libfile_faults.so")
    return ENVIRONMENT | chosen | {"FAULT_PATH": str(path), "LD_PRELOAD": library}


def alone(program, *arguments):
    """The command of a single process with a single thread, without a launcher."""
    return ["env", "SLURM_CPUS_PER_TASK=1", BUILD / program, "--config", TINY, *map(str, arguments)]


def finish(command, environment=ENVIRONMENT):
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def log_of_calls(log):
    """The counted calls: (name, path)."""
    return [tuple(line.split(" ", 1)) for line in log.read_text().splitlines()]


def spread(count, most):
    """Numbers from 1 to `count`: all of them, or `most`, evenly spaced."""
    most = count if ALL else min(count, most)
    return sorted({1 + i * (count - 1) // max(most - 1, 1) for i in range(most)})


def status_of(process):
    """Its state, its parent and more: see proc(5)."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def parent_of(process):
    return int(status_of(process)[1])


def rank_of(process):
    environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return int(
        dict(entry.partition(b"=")[::2] for entry in environment if entry)[b"OMPI_COMM_WORLD_RANK"])


def recorded(out):
    """The checkpoints of a run that have a commit record."""
    return [path.with_suffix("") for path in out.glob("checkpoint_*.pt.sha256")]


class FaultTest(TrainTest):
    """Compares runs with one that nothing happened to, in the folder `unbroken`."""
    TRAINING = {}  # settings

    @classmethod
    def train_arguments(cls, out, training):
        settings = [
            (f"--training.{name}", value) for name, value in {**cls.TRAINING, **training}.items()
        ]
        return ("train_gpt2", "--dataset.path", cls.data, "--out_dir", out, *sum(settings, ()))

    def expect_same_run(self, out, whole_metrics=True):
        if whole_metrics:
            self.assertEqual(metrics(self.unbroken), metrics(out))
        same_state(self, self.unbroken / "state.pt", out / "state.pt")
        self.expect_intact(out)
        self.assertEqual(list(out.rglob("*.tmp")), [])

    def expect_intact(self, out):
        for checkpoint in recorded(out):
            record = Path(f"{checkpoint}.sha256").read_text()
            self.assertEqual(record.split()[0], hashlib.sha256(checkpoint.read_bytes()).hexdigest())

    def expect_all_gone(self, out):
        """Waits until no rank is left, which the launcher or the system may take a while for."""
        deadline = time.monotonic() + 60
        while left := processes("train_gpt2", out):
            self.assertLess(time.monotonic(), deadline, f"processes {left} are left")
            time.sleep(0.01)

    def stopped(self, out):
        return [rank for rank in processes("train_gpt2", out) if status_of(rank)[0] == "T"]


class Processes(FaultTest):
    """Faults of ranks and launchers: jobs of three ranks under mpirun."""
    TRAINING = {
        "batch_size": 2, "global_batch_size": 2 * RANKS, "train_steps": 600, "save_every_steps": 20,
        "print_every_steps": 1
    }

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.unbroken = Path(cls.shared) / "unbroken"
        result = finish(cls.train_command(cls.unbroken))
        assert result.returncode == 0, result.stderr

    @classmethod
    def train_command(cls, out, **training):
        return command(*cls.train_arguments(out, training), ranks=RANKS)

    def start(self, out, environment=ENVIRONMENT, **training):
        """Returns a job and the file that gets its output."""
        log = self.folder / f"{out.name}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(self.train_command(out, **training), stdout=stream,
                                       stderr=subprocess.STDOUT, text=True, env=environment)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        process.stdout = log.open()  # `until` shows it
        self.addCleanup(process.stdout.close)
        return process, log

    def test_killed_at_any_moment_a_run_resumes_exactly(self):
        kills = 200 if ALL else 20
        seed = int(os.environ.get("FAULTS_SEED", random.randrange(1 << 16)))
        print(f"\nFAULTS_SEED={seed}", file=sys.stderr)
        moments = random.Random(seed)
        outs, down, up = [self.folder / "run_0"], [], [1.0]
        while len(down) < kills:
            out = outs[-1]
            begin = time.monotonic()
            process, log = self.start(out)

            def in_start_up():
                return not re.search(r"(?m)^step +\d+ / ", log.read_text())

            if len(down) % 2:
                while process.poll() is None and in_start_up():
                    time.sleep(0.002)
                up.append(time.monotonic() - begin)
                time.sleep(moments.uniform(0, 0.5))
            else:
                time.sleep(moments.uniform(0, up[-1]))
            while process.poll() is None and not processes("train_gpt2", out):
                time.sleep(0.002)
            killed = time.monotonic()
            if ranks := processes("train_gpt2", out):
                send([moments.choice(ranks)], signal.SIGKILL)
            process.wait(timeout=120)
            self.expect_all_gone(out)
            if process.returncode == 0:  # the run was complete before
                outs.append(self.folder / f"run_{len(outs)}")
                continue
            down.append(time.monotonic() - killed)
            said = log.read_text()
            self.assertEqual(process.returncode, 137, said)
            self.assertIn("train_gpt2 ended with exit code 137: signal KILL", said)
            self.expect_intact(out)
        del up[0]
        print(
            f"measured: {kills} kills: down after {statistics.median(down):.1f} s (at most "
            f"{max(down):.1f}); first step {statistics.median(up):.1f} s after a start (at most "
            f"{max(up):.1f})", file=sys.stderr)
        self.expect(finish(self.train_command(outs[-1])), 0)
        for out in outs:
            self.expect_same_run(out)

    def test_a_job_ends_however_one_of_its_processes_ends_and_resumes_exactly(self):
        out = self.folder / "run"
        in_metrics = {"path": f"{out.name}/metrics.jsonl", "only": WRITES, "call": 50}
        in_checkpoint = {"path": "checkpoint_", "call": 8}
        # Rank 0 ends itself; or it stops, and a signal is sent.
        for fault, do, sent, to in (
            (in_metrics, "segv", None, None),
            (in_metrics, "abort", None, None),
            (in_metrics, "exit0", None, None),
            (in_checkpoint, "exit0", None, None),
            (in_metrics, "stop", signal.SIGSEGV, lambda ranks: [ranks[1]]),
            (in_metrics, "stop", signal.SIGABRT, lambda ranks: [ranks[2]]),
            (in_metrics, "stop", signal.SIGTERM, lambda ranks: ranks.values()),
            (in_metrics, "stop", signal.SIGKILL, lambda ranks: [parent_of(ranks[0])]),
        ):
            with self.subTest(do=do, sent=sent):
                process, log = self.start(out, environment=faults(do=do, rank=0, **fault))
                if sent:
                    self.until(lambda: self.stopped(out), process)
                    ranks = {rank_of(rank): rank for rank in processes("train_gpt2", out)}
                    self.assertEqual([ranks[0]], self.stopped(out))
                    send(to(ranks), sent)
                    send([ranks[0]], signal.SIGCONT)
                begin = time.monotonic()
                process.wait(timeout=120)
                self.expect_all_gone(out)
                gone = time.monotonic() - begin
                self.assertNotEqual(process.returncode, 0, log.read_text())
                self.expect_intact(out)
        print(f"measured: no rank left {gone:.1f} s after the launcher was killed", file=sys.stderr)
        self.expect(finish(self.train_command(out)), 0, "resumed at step")
        self.expect_same_run(out)

    def test_a_stopped_rank_ends_the_job_in_time_whichever_it_is(self):
        hang = 5
        for number in range(RANKS):
            with self.subTest(rank=number):
                out = self.folder / f"run_{number}"
                process, log = self.start(out, hang_seconds=hang, train_steps=1000000,
                                          epochs=100000000, save_every_steps=1000000,
                                          log_every_steps=50)
                written = out / "metrics.jsonl"
                self.until(lambda: written.exists() and written.stat().st_size, process)
                ranks = {rank_of(rank): rank for rank in processes("train_gpt2", out)}
                send([ranks[number]], signal.SIGSTOP)
                begin = time.monotonic()
                process.wait(timeout=120)
                late = time.monotonic() - begin - hang
                said = log.read_text()
                self.assertEqual(process.returncode, 76, said)
                self.assertRegex(said, f"no progress for {hang} s while training up to step [0-9]+")
                self.assertRegex(said, rf"rank {number} on \S+ has stopped answering")
                self.assertEqual(processes("train_gpt2", out), [])
                print(f"measured: rank {number} stopped: ended {late:.1f} s after the deadline",
                      file=sys.stderr)
                self.assertLess(late, 15)

    def test_a_rank_that_stops_before_mpi_has_started_ends_the_job(self):
        launcher, ranks, *train = self.train_command(self.folder / "run")
        stop = '[[ $OMPI_COMM_WORLD_RANK != 1 ]] || kill -STOP $$; exec "$@"'
        begin = time.monotonic()
        result = finish([launcher, ranks, "bash", "-c", stop, "bash", *train],
                        ENVIRONMENT | {"MPI_START_SECONDS": "3"})
        print(
            f"measured: start-up with a stopped rank ended after "
            f"{time.monotonic() - begin:.1f} s, of which it waits 3", file=sys.stderr)
        self.assertEqual(result.returncode, 76, result.stderr)
        self.assertIn("the ranks did not find each other within 3 s", result.stderr)
        self.expect_all_gone(self.folder / "run")

    def test_a_clock_that_jumps_changes_nothing(self):
        library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
        if not library:
            print("a clock that jumps is not tested", file=sys.stderr)
            return
        out, clock = self.folder / "run", self.folder / "clock"
        clock.write_text("+0")
        process, log = self.start(
            out, ENVIRONMENT | {
                "LD_PRELOAD": str(library), "DONT_FAKE_MONOTONIC": "1", "FAKETIME_NO_CACHE": "1",
                "FAKETIME_TIMESTAMP_FILE": str(clock)
            }, hang_seconds=60)
        for step, time_now in ((50, "-10y"), (150, "+10y")):
            self.until(lambda: re.search(rf"(?m)^step +{step} / ", log.read_text()), process)
            clock.write_text(time_now)
        self.assertEqual(process.wait(timeout=120), 0, log.read_text())
        self.expect_same_run(out)


class Files(FaultTest):
    """Faults of the disk and its files: a run of a single process."""
    TRAINING = {"train_steps": 200, "save_every_steps": 20, "print_every_steps": 1}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.unbroken = Path(cls.shared) / "unbroken"
        log = Path(cls.shared) / "calls"
        result = finish(cls.train_command(cls.unbroken), faults(cls.unbroken, log=log))
        assert result.returncode == 0, result.stderr
        cls.calls = log_of_calls(log)

    @classmethod
    def train_command(cls, out, **training):
        return alone(*cls.train_arguments(out, training))

    def numbers(self, name, text):
        """The numbers of the calls `name` whose path contains a text, among all calls `name`."""
        paths = [path for call, path in self.calls if call == name]
        return [number for number, path in enumerate(paths, 1) if text in path]

    def test_what_is_published_survives_a_power_cut(self):
        """Files are synced before they get their name, and the folder before anything builds on it.

        What a disk loses in a power cut is what was not synced.
        """
        written, renamed, published = set(), set(), 0
        for name, path in self.calls:
            target = Path(path)
            if name in WRITES.split(","):
                written.add(path)
            elif name == "fsync":
                written.discard(path)
                if target == self.unbroken:
                    renamed.clear()
            elif re.search(r"checkpoint_\d+\.pt(\.sha256)?$",
                           path) and name in ("rename", "remove"):
                self.assertEqual(renamed, set(), f"not synced before {name} {path}")
                if target.parent == self.unbroken:
                    half = [path for path in written if f"/{target.name}." in path]
                    self.assertEqual(half, [])
                    renamed.add(path)
                    published += 1
        self.assertEqual(published, 2 * 10)

    def test_killed_at_any_call_of_a_save_a_run_resumes_exactly(self):
        out = self.folder / "run"
        keep = {"keep_last": 2}  # so that the save also removes the one before
        log = self.folder / "calls"
        counted = finish(self.train_command(self.folder / "counted", **keep),
                         faults("checkpoint_", log=log))
        self.expect(counted, 0)
        names = [path for _, path in log_of_calls(log)]
        begin, end = (min(i
                          for i, path in enumerate(names)
                          if f"checkpoint_{step}.pt" in path)
                      for step in (60, 80))
        killed = finish(self.train_command(out, **keep),
                        faults("checkpoint_", do="kill", call=begin + 1))
        self.assertEqual(killed.returncode, -signal.SIGKILL, killed.stderr)
        self.assertEqual(len(recorded(out)), 2)
        for number in spread(end - begin, 12):
            with self.subTest(call=number):
                killed = finish(self.train_command(out, **keep),
                                faults("checkpoint_", do="kill", call=number))
                self.assertEqual(killed.returncode, -signal.SIGKILL, killed.stderr)
                self.assertIn("resumed at step", killed.stdout)
                self.assertGreaterEqual(len(recorded(out)), 2)
                self.expect_intact(out)
        self.expect(finish(self.train_command(out, **keep)), 0, "resumed at step")
        self.expect_same_run(out)

    def test_a_call_that_fails_costs_one_checkpoint_and_is_reported(self):
        data, record = "checkpoint_40.pt", "checkpoint_40.pt.sha256"
        syncs = self.numbers("fsync", data)
        in_folder = [number + 1 for number in syncs]  # the folder is synced next
        for number, (text, only, do, call) in enumerate((
            (data, "fsync", "eio", 1),
            (record, "fsync", "eio", 1),
            ("", "fsync", "eio", in_folder[0]),
            ("", "fsync", "eio", in_folder[1]),
            (data, "rename", "eio", 1),
            (record, "rename", "eio", 1),
            (data, "open", "erofs", 1),
            (record, WRITES, "enospc", 1),
        )):
            with self.subTest(text=text, only=only, call=call):
                out = self.folder / f"run_{number}"
                result = finish(self.train_command(out),
                                faults(text or out, only=only, do=do, call=call))
                self.expect(result, 0)
                warnings = re.findall(r"(?m)^warning: no checkpoint at step (\d+): (.*)$",
                                      result.stdout)
                self.assertEqual([step for step, _ in warnings], ["40"], result.stdout)
                self.assertIn(f"{out}", warnings[0][1])
                self.assertIn(text, warnings[0][1])
                self.expect_same_run(out)

    def test_a_last_checkpoint_that_fails_is_made_by_the_next_start(self):
        out = self.folder / "run"
        self.expect(
            finish(self.train_command(out),
                   faults("checkpoint_200.pt", only="rename", do="eio", call=1)), 74,
            f"the last checkpoint could not be written to {out}")
        self.assertFalse((out / "DONE").exists())
        self.expect(finish(self.train_command(out)), 0, "resumed at step 180")
        self.expect_same_run(out)

    def test_writes_of_half_the_bytes_are_completed(self):
        for name in ("checkpoint_", "metrics.jsonl", "config.yaml"):
            with self.subTest(name=name):
                out, log = self.folder / f"run_{name}", self.folder / f"calls_{name}"
                result = finish(
                    self.train_command(out),
                    faults(f"/{name}", only=WRITES, do="short", call=1, count=0, log=log))
                self.expect(result, 0)
                self.assertNotIn("warning: no checkpoint", result.stdout)
                usual = [
                    call for call, path in self.calls
                    if call in WRITES.split(",") and f"/{name}" in path
                ]
                self.assertGreater(len(log_of_calls(log)), len(usual))
                self.assertEqual((out / "config.yaml").read_text().replace(str(out), ""),
                                 (self.unbroken / "config.yaml").read_text().replace(
                                     str(self.unbroken), ""))
                self.expect_same_run(out)

    @contextlib.contextmanager
    def small_disk(self):
        """A disk of 2 MB that exists only for programs that are started with what this yields.

        Also yields its folder, for them and for us. Skips the test where that is not allowed.
        """
        folder = self.folder / "disk"
        folder.mkdir()
        as_user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        mount = f"mount -t tmpfs -o size=2m none {folder} && echo && read"
        holder = subprocess.Popen(["unshare", *as_user, "--mount", "bash", "-c", mount],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL)
        with holder:
            if not holder.stdout.readline():
                self.skipTest("a full disk needs the right to mount one")
            same_user = ["--user", "--preserve-credentials"] if as_user else []
            enter = ["nsenter", *same_user, "--mount", "--target", str(holder.pid)]
            yield enter, folder, Path(f"/proc/{holder.pid}/root{folder}")

    def run_on_a_disk_that_fills(self, enter, out, disk, failing, **training):
        """Runs with a disk that is full from the second save on.

        There is space again after `failing` saves, if any. Returns the exit code and the output.
        """
        log, before = self.folder / "calls", len(self.numbers("open", "checkpoint_20.pt"))
        process = subprocess.Popen(
            [*enter, *self.train_command(out, **training)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=faults(
                "checkpoint_", only="open", do="stop", log=log, call=before + 1, count=failing + 1))
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        def wait_for_save(number):
            self.until(
                lambda: log.exists() and len(log_of_calls(log)) == before + number and status_of(
                    process.pid)[0] == "T", process)

        wait_for_save(1)
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        for number in range(failing):
            process.send_signal(signal.SIGCONT)
            wait_for_save(number + 2)
        if failing:
            (disk / "filler").unlink()
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate(timeout=120)
        return process.returncode, said

    def test_a_run_continues_on_a_full_disk_and_saves_when_there_is_space_again(self):
        with self.small_disk() as (enter, folder, disk):
            out, seen = folder / "run", disk / "run"
            # Long enough that both logs need more space.
            code, said = self.run_on_a_disk_that_fills(enter, out, disk, failing=2,
                                                       save_every_steps=40)
            self.assertEqual(code, 0, said)
            for step in (80, 120):
                self.assertIn(f"warning: no checkpoint at step {step}: cannot write {out}", said)
            self.assertEqual(said.count("warning: no checkpoint"), 2, said)
            self.expect_same_run(seen, whole_metrics=False)
            for name in ("metrics.jsonl", "model_training_log.txt"):
                self.assertIn(f"warning: a line of {out / name} is lost", said)
            unbroken = metrics(self.unbroken)
            kept = metrics(seen)  # fails at a line that is not whole
            self.assertLess(len(kept), len(unbroken))
            self.assertEqual(kept, [line for line in unbroken if line in kept])
            text = (seen / "model_training_log.txt").read_text()
            self.assertTrue(text.endswith("\n"))
            self.assertEqual(set(text.splitlines()) - set(said.splitlines()), set())

    def test_a_run_gives_up_on_a_full_disk_and_resumes_exactly_when_there_is_space(self):
        with self.small_disk() as (enter, folder, disk):
            out, seen = folder / "run", disk / "run"
            code, said = self.run_on_a_disk_that_fills(enter, out, disk, failing=0)
            self.assertEqual(code, 74, said)
            self.assertIn(f"3 checkpoints in a row could not be written to {out}", said)
            self.assertEqual([path.name for path in recorded(seen)], ["checkpoint_20.pt"])
            self.expect_intact(seen)
            # To wait for space is as good as any other pause before a restart.
            self.expect(finish([*enter, *self.train_command(out)]), 74, "but a checkpoint takes")
            (disk / "filler").unlink()
            self.expect(finish([*enter, *self.train_command(out)]), 0, "resumed at step 20")
            self.expect_same_run(seen)


class Generator(ProgramTest):
    """Faults of the files of a dataset."""
    def generate_alone(self, path, environment=ENVIRONMENT):
        return finish(alone("generate_trajectories", "--dataset.path", path), environment)

    def test_a_call_that_fails_ends_it_and_the_next_start_completes_the_same_bytes(self):
        unbroken = self.folder / "unbroken"
        self.expect(self.generate_alone(unbroken), 0)
        for name in ("train/shard_00001.h5", "manifest.json"):
            log = self.folder / f"calls_{Path(name).stem}"
            self.expect(
                self.generate_alone(self.folder / f"counted_{Path(name).stem}", faults(
                    name, log=log)), 0)
            calls = [call for call, _ in log_of_calls(log)]
            for only, do, most in (("fsync", "eio", 3), ("rename", "eio", 3), (WRITES, "enospc",
                                                                               4)):
                for call in spread(sum(calls.count(one) for one in only.split(",")), most):
                    with self.subTest(name=name, only=only, call=call):
                        data = self.folder / f"{Path(name).stem}_{only}_{call}"
                        failed = self.generate_alone(data, faults(name, only=only, do=do,
                                                                  call=call))
                        self.assertEqual(failed.returncode, 74, failed.stderr)
                        self.assertIn(str(data / name), failed.stderr)
                        self.expect(self.generate_alone(data), 0)
                        self.assertEqual(tree(data), tree(unbroken))


if __name__ == "__main__":
    unittest.main()
