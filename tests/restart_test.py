"""Tests that launch/restart.sh starts a program again where that helps, and ends where it does not.

Most programs are scripts here; tests/slurm/slurm_test.py tests the same rule in a job.
Usage: restart_test.py BUILD_FOLDER
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "programs"))
from programs import (BUILD, ENVIRONMENT, ROOT, TINY, ProgramTest, TrainTest, command, halted,
                      metrics, processes, run, same_state, send)  # takes BUILD_FOLDER
from relay_test import tensorboard_curve, wandb_records

RESTART, LOCAL = ROOT / "launch/restart.sh", ROOT / "launch/local.sh"
AT_ONCE = {**ENVIRONMENT, "RETRY_PAUSES": "0"}


class Rule(ProgramTest):
    def setUp(self):
        super().setUp()
        self.out = self.folder / "run"
        self.out.mkdir()

    def stand_in(self, does, name="train_gpt2"):
        """Makes a program that runs `does`, with the number of its start in `start`."""
        program = self.folder / name
        program.write_text(f"""#!/bin/bash
            if [[ " $* " == *" --show "* ]]; then echo {self.out}; exit; fi
            echo "$*" >>{self.folder}/starts
            start=$(wc -l <{self.folder}/starts)
            cd {self.out}
            commit() {{ touch new && mv new "$1"; }}
            {does}
            """)
        program.chmod(0o755)
        return program

    def command(self, program, *arguments, launcher=None):
        if not launcher:  # passes on what LOCAL, for one rank, explains
            launcher = self.folder / "launcher"
            launcher.write_text('#!/bin/bash\nshift; exec "$@"\n')
            launcher.chmod(0o755)
        return [RESTART, launcher, "1", program, "--seed", "3", *arguments]

    def restart(self, program, *arguments, launcher=None, environment=AT_ONCE):
        return subprocess.run(self.command(program, *arguments, launcher=launcher),
                              capture_output=True, text=True, timeout=120, env=environment)

    def starts(self):
        """Returns the arguments of every start."""
        return (self.folder / "starts").read_text().splitlines()

    def test_exit_codes_that_a_restart_cannot_help_are_passed_on(self):
        for code in (0, 64, 65, 69, 75, 78, 93, 126, 127):
            (self.folder / "starts").unlink(missing_ok=True)
            result = self.restart(self.stand_in(f"exit {code}"))
            self.assertEqual((result.returncode, self.starts()), (code, ["--seed 3"]))
            self.assertEqual(result.stderr, "")

    def test_other_exit_codes_are_restarted(self):
        for code, words in ((1, "; in"), (74, "; in"), (76, "; in"), (255, "; in"),
                            (134, " (signal ABRT); in"),
                            (137, " (signal KILL, as when memory runs out: dmesg); in"),
                            (139, " (signal SEGV); in"), (143, " (signal TERM); in"),
                            (205, " (Open MPI lost the connection to a machine); in")):
            (self.folder / "starts").unlink(missing_ok=True)
            result = self.restart(self.stand_in(f"((start == 2)) || exit {code}"))
            self.expect(result, 0)
            self.assertEqual(self.starts(), ["--seed 3"] * 2)
            self.assertEqual(
                result.stderr, f"restart: exit code {code}{words} 0 s start 2 of 6 without "
                "progress, from step 0\n")

    def test_a_killed_rank_is_restarted_through_the_launcher(self):
        program = self.stand_in("""commit checkpoint_100.pt.sha256
            ((start == 2)) || kill -KILL $$""")
        result = self.restart(program, launcher=LOCAL)
        self.expect(result, 0)
        self.assertIn("start 1 of 6 without progress, from step 100", result.stderr)
        self.assertEqual(len(self.starts()), 2)

    def test_after_three_starts_without_progress_one_falls_back_and_after_six_it_ends(self):
        program = self.stand_in("""commit checkpoint_200.pt.set_aside.sha256
            if ((start == 1)); then commit checkpoint_90.pt.sha256; commit checkpoint_200.pt.sha256
            fi
            exit 1""")
        result = self.restart(program, environment={**AT_ONCE, "RETRY_PAUSES": "0 1 2"})
        self.expect(result, 93, "6 starts in a row without progress: giving up")
        plain = ["--seed 3"]
        # The first start made progress, and is not one of the six.
        self.assertEqual(self.starts(), plain * 4 + ["--seed 3 --fall_back"] + plain * 2)
        self.assertEqual(
            [line.partition("; ")[2] for line in result.stderr.splitlines()[:-1]],
            ["in 0 s start 1 of 6 without progress, from step 200",
             "in 0 s start 2 of 6 without progress, from step 200",
             "in 1 s start 3 of 6 without progress, from step 200",
             "in 2 s start 4 of 6 without progress, without the checkpoint of step 200 "
             "(--fall_back)",
             "in 0 s start 5 of 6 without progress, from step 200",
             "in 1 s start 6 of 6 without progress, from step 200"])  # yapf: disable

    def test_without_an_older_checkpoint_nothing_falls_back(self):
        for name in ("train_gpt2", "generate_trajectories", "evaluate_policy"):
            program = self.stand_in("exit 1", name)
            (self.folder / "starts").unlink(missing_ok=True)
            (self.out / "checkpoint_1.pt.sha256").touch()
            self.expect(self.restart(program), 93, "giving up")
            self.assertEqual(self.starts(), ["--seed 3"] * 6)

    def test_a_refused_fall_back_is_one_of_the_starts(self):
        program = self.stand_in("[[ $* != *--fall_back ]] || exit 78; exit 1")
        for step in (1, 2):
            (self.out / f"checkpoint_{step}.pt.sha256").touch()
        self.expect(self.restart(program), 93, "giving up")
        self.assertEqual(self.starts(),
                         ["--seed 3"] * 3 + ["--seed 3 --fall_back"] + ["--seed 3"] * 2)

    def test_progress_renews_the_starts_and_the_fall_back(self):
        """A file that is written again under its name is progress, except what was set aside.

        The first happens where a damaged checkpoint was skipped.
        """
        program = self.stand_in("""case $start in
            1) commit checkpoint_1.pt.sha256 && commit checkpoint_2.pt.sha256 ;;
            4) commit checkpoint_2.pt.sha256 ;;
            8) commit checkpoint_3.pt.sha256 ;;
            12) rm checkpoint_3.pt.sha256 && commit checkpoint_3.pt.sha256 ;;
            esac
            exit 137""")
        self.expect(self.restart(program), 93, "giving up")
        fell_back = [number for number, line in enumerate(self.starts(), 1) if "--fall" in line]
        self.assertEqual((fell_back, len(self.starts())), ([8, 12], 14))

    def test_a_shard_renews_the_starts_of_a_generation(self):
        program = self.stand_in(
            """mkdir -p train
            if ((start == 6)); then commit train/shard_0.h5; fi
            exit 74""", "generate_trajectories")
        self.expect(self.restart(program), 93, "giving up")
        self.assertEqual(self.starts(), ["--seed 3"] * 12)

    def test_a_stop_request_in_a_pause_ends_it(self):
        program = self.stand_in("exit 1")
        for sent in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            (self.folder / "starts").unlink(missing_ok=True)
            process = subprocess.Popen(self.command(program), stderr=subprocess.PIPE, text=True,
                                       env={**ENVIRONMENT, "RETRY_PAUSES": "600"})
            self.assertIn("in 600 s start 2 of 6", process.stderr.readline())
            process.send_signal(sent)
            said = process.communicate(timeout=60)[1]
            self.assertEqual((process.returncode, len(self.starts())), (75, 1), said)
            self.assertIn("restart: stopping as requested", said)

    def test_wrong_calls_are_refused(self):
        self.assertIn("launch/restart.sh LAUNCHER",
                      subprocess.run([RESTART, LOCAL], capture_output=True, text=True).stderr)
        result = self.restart(self.stand_in("exit 1"),
                              environment={**ENVIRONMENT, "RETRY_PAUSES": "1 5s"})
        self.expect(result, 78, "RETRY_PAUSES is seconds")
        self.expect(self.restart("no_such_program", launcher=LOCAL), 78,
                    "there is no program no_such_program")


class Training(TrainTest):
    STEPS = ("--training.train_steps", "2000", "--training.save_every_steps", "100")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.unbroken = Path(cls.shared) / "unbroken"
        train = run("train_gpt2", "--dataset.path", cls.data, "--out_dir", cls.unbroken, *cls.STEPS,
                    ranks=2)
        assert train.returncode == 0, train.stderr

    def start(self, out, *settings):
        """Trains into `out` under launch/restart.sh; prints into a file."""
        train = [
            RESTART, *command("train_gpt2", "--dataset.path", self.data, "--out_dir", out, *
                              self.STEPS, *settings, ranks=2)
        ]
        self.said = self.folder / "said"
        with self.said.open("w") as file:
            process = subprocess.Popen(train, stdout=file, stderr=file, env=AT_ONCE)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def ends(self, process, out):
        self.assertEqual(process.wait(timeout=300), 0, self.said.read_text())
        self.assertEqual(metrics(self.unbroken), metrics(out))
        same_state(self, self.unbroken / "state.pt", out / "state.pt")

    def test_a_run_whose_ranks_are_killed_again_and_again_ends_as_an_unbroken_one(self):
        """And one relay, started once, follows all its starts."""
        out, killed = self.folder / "run", set()
        process = self.start(out, "--wandb.mode", "offline", "--wandb.log_every_steps", "100")

        def new_checkpoint():
            return {*out.glob("checkpoint_*.sha256")} - known and len(
                ranks := {*processes("train_gpt2", out)}) == 2 and not ranks & killed

        for kill in (max, min, max):
            known = {*out.glob("checkpoint_*.sha256")}
            self.until(new_checkpoint, process)
            with halted("train_gpt2", out) as ranks:
                killed |= {*ranks}
                os.kill(kill(ranks), signal.SIGKILL)
        self.ends(process, out)
        said = self.said.read_text()
        self.assertEqual(
            said.count("(signal KILL, as when memory runs out: dmesg); in 0 s "
                       "start 1 of 6 without progress, from step"), 3, said)
        self.assertEqual(said.count("resumed at step"), 3, said)
        log = out / "relay.log"
        while "lines of" not in log.read_text():
            time.sleep(0.1)
        self.assertEqual(len(log.read_text().splitlines()), 1, log.read_text())
        self.assertNotIn("another relay", said)
        steps = [step for step, _ in tensorboard_curve(out, "train/loss")]
        self.assertEqual(steps, list(range(1, 2001)))
        self.assertEqual([step for step, _ in wandb_records(out)[0]][-1], 2000)

    def test_a_checkpoint_that_ends_every_start_is_set_aside(self):
        out, program = self.folder / "run", self.folder / "train_gpt2"
        self.expect(self.train(out=out, ranks=2), 0)
        (self.folder / "unbroken").mkdir()
        for name in ("metrics.jsonl", "checkpoint_15.pt", "checkpoint_20.pt"):
            shutil.copy(out / name, self.folder / "unbroken")
        for name in ("checkpoint_20.pt.sha256", "checkpoint_20.pt", "DONE"):
            (out / name).unlink()
        program.write_text(f"""#!/bin/bash
            if [[ $* != *--@(show|fall_back)* && ! -e {out}/checkpoint_15.pt.set_aside ]]; then
              kill -KILL $$
            fi
            exec {BUILD}/train_gpt2 "$@"
            """)
        program.chmod(0o755)
        result = subprocess.run([
            RESTART, LOCAL, "2", program, "--config", TINY, "--dataset.path", self.data,
            "--out_dir", out
        ], capture_output=True, text=True, timeout=300, env=AT_ONCE)
        self.expect(result, 0, "start 4 of 6 without progress, without the checkpoint of step 15",
                    "resumed at step 10")
        unbroken = self.folder / "unbroken"
        self.assertEqual((unbroken / "checkpoint_15.pt").read_bytes(),
                         (out / "checkpoint_15.pt.set_aside").read_bytes())
        self.assertEqual(metrics(unbroken), metrics(out))
        same_state(self, unbroken / "checkpoint_20.pt", out / "state.pt")

    def test_who_still_holds_the_folder_is_waited_for(self):
        """As a rank does whose launcher was killed, until it notices."""
        out = self.folder / "run"
        process = self.start(out)
        self.until(lambda: list(out.glob("checkpoint_*.sha256")), process)
        with (out / "owner").open() as owner:
            send(processes("train_gpt2", out), signal.SIGKILL)
            fcntl.flock(owner, fcntl.LOCK_EX)  # long before mpirun reports a rank's end
            self.until(lambda: "restart: waiting for a rank" in self.said.read_text(), process)
        self.ends(process, out)
        self.assertIn("resumed at step", self.said.read_text())


if __name__ == "__main__":
    unittest.main()
