"""Tests launch/ and the start of the programs in environments that users have.

Usage: launch_test.py BUILD_FOLDER
"""

import itertools
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import time
import unittest
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "programs"))
# Takes BUILD_FOLDER.
from programs import (BUILD, ENVIRONMENT, ROOT, TINY, ProgramTest, command, metrics, processes,
                      publish_with_record, send)

LOCAL = ROOT / "launch/local.sh"
TWO_RANKS = (LOCAL, "2")
UNATTENDED = (ROOT / "launch/restart.sh", *TWO_RANKS)
ENDLESS = ("--training.train_steps", "1000000", "--training.epochs", "100000000",
           "--training.save_every_steps", "1000000", "--training.keep_every_steps", "0")


class Launch(ProgramTest):
    def setUp(self):
        super().setUp()
        self.data, self.out = self.folder / "data", self.folder / "run"

    def local(self, *command, **options):
        options = {"env": ENVIRONMENT, "timeout": 120, **options}
        return subprocess.run([LOCAL, *map(str, command)], capture_output=True, text=True,
                              **options)

    def start_training(self, launcher=TWO_RANKS, environment=ENVIRONMENT, **options):
        """Starts a training run that continues until a stop request."""
        self.expect(self.generate(), 0)
        log = self.out / "metrics.jsonl"
        before = log.stat().st_size if log.exists() else 0
        train = [
            *launcher, BUILD / "train_gpt2", "--config", TINY, "--dataset.path", self.data,
            "--out_dir", self.out, *ENDLESS
        ]
        options = {"start_new_session": True, **options}
        process = subprocess.Popen(train, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, env=environment, **options)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        self.until(lambda: log.exists() and log.stat().st_size > before, process)
        return process

    def assert_nobody_is_left(self, program="train_gpt2"):
        deadline = time.monotonic() + 60
        while processes(program, self.out):
            self.assertLess(time.monotonic(), deadline, "ranks outlive their launcher")
            time.sleep(0.05)

    def test_a_missing_program_is_named(self):
        self.expect(self.local(2, BUILD / "train_gpt", "--config", TINY), 78,
                    f"there is no program {BUILD}/train_gpt: build first")
        self.expect(self.local(2, "no_such_program"), 78, "there is no program no_such_program")

    def test_refusals_of_the_launcher_reach_the_user(self):
        script = self.folder / "script"
        script.write_text("#!/no/such/interpreter\n")
        script.chmod(0o755)
        result = self.local(2, script)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn(script.name, result.stderr)
        result = self.local(2, "bash", "-c", "exit 9")
        self.assertEqual(result.returncode, 9)
        self.assertIn("local: bash ended with exit code 9", result.stderr)
        result = self.local(2, "bash", "-c", "kill -SEGV $$")
        self.assertIn("signal SEGV", result.stderr)

    def test_an_explained_exit_code_is_not_explained_twice(self):
        for code in (65, 69, 74, 75, 76, 78, 93):
            result = self.local(2, "bash", "-c", f"echo explained >&2; sleep 0.1; exit {code}")
            self.assertEqual((result.returncode, set(result.stderr.splitlines())),
                             (code, {"explained"}))
        result = self.local(2, BUILD / "train_gpt2", "--no.such.key", 3)
        self.expect(result, 78, "no.such.key")
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)

    def test_foreign_lines_of_dashes_are_not_filtered(self):
        for block in ("-" * 80 + "\nno end", "-" * 80 + "\nPrimary job  was ours\n" + "-" * 80,
                      "half a line"):
            result = self.local(1, "bash", "-c", 'printf %s "$0" >&2', block)
            self.assertEqual(result.stderr.rstrip("\n"), block)

    def test_a_foreign_omp_num_threads_changes_nothing(self):
        for value in ("1", "8", "64"):
            result = self.local(
                4, "bash", "-c", "echo $OMP_NUM_THREADS",
                env={**ENVIRONMENT, "OMP_NUM_THREADS": value, "OMP_THREAD_LIMIT": value})
            self.assertEqual((result.returncode, result.stdout.split()), (0, ["1"] * 4),
                             result.stderr)

    def test_standard_input_is_left_to_the_user(self):
        loop = f'while read -r seed; do {LOCAL} 2 bash -c "echo seed $seed"; done'
        result = subprocess.run(["bash", "-c", loop], input="1\n2\n3\n", capture_output=True,
                                text=True, timeout=60, env=ENVIRONMENT)
        self.assertEqual(
            result.stdout.split(),
            ["seed", "1", "seed", "1", "seed", "2", "seed", "2", "seed", "3", "seed", "3"])

    def test_the_first_interrupt_saves_and_stops_and_the_run_continues(self):
        for launcher, asked in itertools.product((TWO_RANKS, UNATTENDED),
                                                 (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
            process = self.start_training(launcher)
            os.killpg(process.pid, asked)
            output, _ = process.communicate(timeout=30)
            self.assertEqual(process.returncode, 75, output)
            self.assertEqual(output.count("asking the ranks to save a checkpoint and stop"), 1,
                             output)
            self.assertIn("saved, stopping as requested", output)
            self.assertNotIn("-----", output)
            self.assert_nobody_is_left()
        steps = [row[0] for row in metrics(self.out)]
        self.assertEqual(steps, list(range(1, len(steps) + 1)))  # segments of one curve

    def test_a_run_that_is_asked_to_stop_is_not_restarted(self):
        process = self.start_training(UNATTENDED)
        process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 75, output)
        self.assertIn("saved, stopping as requested", output)
        self.assertNotIn("restart: ", output)
        self.assert_nobody_is_left()

    def test_a_reader_of_the_output_that_dies_first_costs_no_checkpoint(self):
        """Ctrl-C under "2>&1 | tee log" ends tee before the launcher can print."""
        for launcher in (TWO_RANKS, UNATTENDED):
            process = self.start_training(launcher)
            before = set(self.out.glob("checkpoint_*.pt.sha256"))
            process.stdout.close()
            os.killpg(process.pid, signal.SIGINT)
            self.assertEqual(process.wait(timeout=60), 75)
            self.assertTrue({*self.out.glob("checkpoint_*.pt.sha256")} - before)

    def test_a_path_that_is_not_utf8_works(self):
        self.expect(self.generate(), 0)
        out = os.fsencode(self.folder) + b"/caf\xe9"
        train = [
            LOCAL, "2", BUILD / "train_gpt2", "--config", TINY, "--dataset.path", self.data,
            "--out_dir", out
        ]
        result = subprocess.run(train, capture_output=True, timeout=120, env=ENVIRONMENT)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_the_second_interrupt_ends_it_immediately(self):
        for launcher in (TWO_RANKS, UNATTENDED):
            process = self.start_training(launcher)
            send(processes("train_gpt2", self.out), signal.SIGSTOP)  # so that they cannot exit
            while process.poll() is None:  # two within a second count as one
                os.killpg(process.pid, signal.SIGINT)
                time.sleep(1.5)
            output, _ = process.communicate(timeout=30)
            self.assertNotIn(process.returncode, (0, 75), output)
            self.assert_nobody_is_left()

    def test_an_interrupted_generation_says_that_it_continues(self):
        many = ("--dataset.train_shards", "4000", "--dataset.trajectories_per_shard", "500")
        generate = command("generate_trajectories", "--dataset.path", self.data, *many, ranks=2)
        process = subprocess.Popen(generate, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, env=ENVIRONMENT, start_new_session=True)
        self.until(lambda: list(self.data.glob("train/*.h5")), process)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        self.assertNotEqual(process.returncode, 0)
        self.assertIn("ending the ranks; the same command continues from what is complete", output)
        self.assertEqual(processes("generate_trajectories", self.data), [])

    def test_a_closed_terminal_does_not_end_nohup(self):
        for launcher in (TWO_RANKS, UNATTENDED):
            process = self.start_training(("nohup", *launcher))
            os.killpg(process.pid, signal.SIGHUP)
            before = (self.out / "metrics.jsonl").stat().st_size
            time.sleep(1.5)
            self.assertIsNone(process.poll())
            self.assertGreater((self.out / "metrics.jsonl").stat().st_size, before)
            process.send_signal(signal.SIGUSR1)
            self.assertEqual(process.wait(timeout=30), 75)

    def test_suspending_is_refused_with_advice(self):
        controller, terminal = pty.openpty()
        for launcher in (TWO_RANKS, UNATTENDED):
            process = self.start_training(launcher, stdin=terminal)
            os.killpg(process.pid, signal.SIGTSTP)
            time.sleep(0.5)
            process.send_signal(signal.SIGUSR1)
            output, _ = process.communicate(timeout=30)
            self.assertEqual(process.returncode, 75, output)
            self.assertEqual(output.count("a training run cannot be suspended"), 1, output)
        os.close(controller)
        os.close(terminal)

    def test_ranks_do_not_outlive_a_killed_launcher(self):
        for launcher in (TWO_RANKS, UNATTENDED):
            process = self.start_training(launcher)
            process.kill()
            process.communicate(timeout=60)  # until nobody has its output any more
            self.assert_nobody_is_left()

    def test_one_process_saves_when_it_is_interrupted(self):
        process = self.start_training(launcher=())
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 75, output)
        self.assertIn("train_gpt2: saving a checkpoint, then stopping", output)

    def test_a_container_without_process_vm_readv_prints_no_warning(self):
        shim = self.folder / "shim"
        code = "#include <errno.h>\n#include <sys/uio.h>\n"
        for name in ("read", "write"):
            code += f"""
            ssize_t process_vm_{name}v(int pid, const struct iovec* a, unsigned long b,
                                       const struct iovec* c, unsigned long d, unsigned long e) {{
              errno = EPERM;
              return -1;
            }}
            """
        shim.with_suffix(".c").write_text(code)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, shim.with_suffix(".c")], check=True)
        result = self.local(2, "env", f"LD_PRELOAD={shim}", BUILD / "tests/mpi_tests",
                            "--gtest_filter=Communicator.*")
        self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)

    def test_an_allocation_of_slurm_does_not_move_the_ranks(self):
        # As salloc sets it on a login node.
        allocation = {
            "SLURM_JOB_ID": "7", "SLURM_JOBID": "7", "SLURM_NODELIST": "elsewhere",
            "SLURM_JOB_NODELIST": "elsewhere", "SLURM_NNODES": "1", "SLURM_TASKS_PER_NODE": "2",
            "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS": "2"
        }
        result = self.local(2, "bash", "-c", "hostname", env={**ENVIRONMENT, **allocation})
        self.assertEqual((result.returncode, result.stdout.split()), (0, [os.uname().nodename] * 2),
                         result.stderr)

    def test_ranks_of_different_configurations_are_refused(self):
        self.expect(self.generate(), 0)
        shutil.copytree(self.data, self.folder / "other")
        same = ["--config", str(TINY), "--dataset.path", str(self.data), "--out_dir", str(self.out)]
        for difference, said in (
            (("--training.learning_rate", "0.05"),
             "rank 1 has training.learning_rate 0.05, rank 0 has 0.01"),
            (("--seed", "5"), "rank 1 has seed 5, rank 0 has 0"),
            (("--training.train_steps", "30"), "rank 1 has training.train_steps 30, rank 0 has 20"),
            (("--dataset.path", str(self.folder / "other")),
             f"rank 1 has dataset.path {self.folder}/other, rank 0 has {self.data}"),
            (("--dry_run",), "rank 1 has --dry_run set, rank 0 has not set"),
            (("--no.such.key",), "unrecognised option '--no.such.key'")):
            arguments = [BUILD / "train_gpt2", *same]
            if difference[0] in same:
                at = same.index(difference[0])
                second = [BUILD / "train_gpt2", *same[:at], *difference, *same[at + 2:]]
            else:
                second = [*arguments, *difference]
            # Each rank chooses: `mpirun ... : ...` of Debian 13's Open MPI 5.0.7 ends by a signal
            # with any program.
            both = ("if [[ $OMPI_COMM_WORLD_RANK == 0 ]]; "
                    f"then exec {shlex.join(map(str, arguments))}; fi; "
                    f"exec {shlex.join(map(str, second))}")
            self.expect(self.local(2, "bash", "-c", both), 78, said)
            self.assertFalse(self.out.exists())

    def test_ranks_that_find_different_datasets_are_refused(self):
        """As with copies on local disks: every rank sees different files at one path."""
        self.expect(self.generate(), 0)
        self.expect(self.generate("--dataset.seed", 2, path=self.folder / "other"), 0)
        manifest = (self.folder / "other/manifest.json").read_text().replace(
            '"seed": 2', '"seed": 1')
        publish_with_record(self.folder / "other/manifest.json", manifest)
        as_user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        namespace = ["unshare", *as_user, "--mount"]
        if subprocess.run([*namespace, "true"], stderr=subprocess.DEVNULL).returncode:
            print("datasets that differ between machines is not tested", file=sys.stderr)
            return
        (self.folder / "seen").mkdir()
        bind = ('if [[ $OMPI_COMM_WORLD_RANK == 1 ]]; then from=other; else from=data; fi; '
                f'mount --bind {self.folder}/$from {self.folder}/seen && exec "$@"')
        train = [
            BUILD / "train_gpt2", "--config", TINY, "--dataset.path", self.folder / "seen",
            "--out_dir", self.out
        ]
        self.expect(self.local(2, *namespace, "bash", "-c", bind, "bash", *train), 65,
                    f"rank 1 finds another dataset in {self.folder}/seen than rank 0")

    def test_foreign_environment_settings_do_not_reach_setup(self):
        """Setup ignores the user's CDPATH, pip settings and PYTHONPATH.

        tools/.. exists in the CDPATH, the pip settings would install elsewhere, and another yaml is
        on the PYTHONPATH.
        """
        (self.folder / "tools").mkdir()
        (self.folder / "yaml.py").write_text("raise SystemExit('the wrong yaml')\n")
        environment = {
            **ENVIRONMENT, "CDPATH": str(self.folder), "PYTHONPATH": str(self.folder),
            "PIP_USER": "1", "PIP_TARGET": str(self.folder / "target")
        }
        result = subprocess.run(["tools/setup.sh", "--wheels"], capture_output=True, text=True,
                                cwd=ROOT, env=environment)
        self.assertEqual((result.returncode, result.stdout), (0, "setup: ready\n"), result.stderr)
        # As on the first call: with a requirement that is not installed yet.
        checkout = self.folder / "checkout"
        (checkout / "tools").mkdir(parents=True)
        shutil.copy(ROOT / "tools/setup.sh", checkout / "tools")
        wheels = self.folder / "wheels"
        wheels.mkdir()
        with zipfile.ZipFile(wheels / "tiny_wheel-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr("tiny_wheel.py", "")
            wheel.writestr("tiny_wheel-1.dist-info/METADATA",
                           "Metadata-Version: 2.1\nName: tiny_wheel\nVersion: 1\n")
            wheel.writestr(
                "tiny_wheel-1.dist-info/WHEEL",
                "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr("tiny_wheel-1.dist-info/RECORD", "")
        requirements = f"--no-index\n--find-links {wheels}\ntiny_wheel==1\n"
        (checkout / "requirements.txt").write_text(requirements)
        disk = self.folder / "df"
        environment["PATH"] = f"{self.folder}:{environment['PATH']}"
        for gigabytes in (3, 20):
            disk.write_text(f"#!/bin/sh\necho; echo disk 0 0 {gigabytes << 20} 0% /\n")
            disk.chmod(0o755)
            result = subprocess.run(["tools/setup.sh", "--wheels"], capture_output=True, text=True,
                                    cwd=checkout, env=environment)
            if gigabytes == 3:
                self.assertEqual((result.returncode, result.stdout), (1, ""), result.stderr)
                self.assertIn("take 10 GB, of which 3 are free", result.stderr)
                self.assertFalse((checkout / ".venv").exists())
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        installed = list(checkout.glob(".venv/lib/python3*/site-packages/tiny_wheel.py"))
        self.assertEqual(len(installed), 1)

    def test_scripts_keep_their_line_endings_under_any_git_setting(self):
        clone = self.folder / "clone"
        git = ["git", "-c", "core.autocrlf=true", "-c", "safe.directory=*"]
        subprocess.run([*git, "clone", "--quiet", ROOT, clone], check=True, capture_output=True)
        scripts = list(clone.glob("launch/*.sh"))
        self.assertGreater(len(scripts), 3)
        for script in scripts:
            self.assertNotIn(b"\r", script.read_bytes(), script)


if __name__ == "__main__":
    unittest.main()
