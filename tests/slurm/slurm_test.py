"""Tests the job scripts on a real Slurm: munge, slurmctld and two slurmd on this host.

  .venv/bin/python tests/slurm/slurm_test.py BUILD_FOLDER

It needs root and Debian's slurm-wlm, munge and iproute2. Its files are in BUILD_FOLDER/slurm_test.
Everything runs in separate process and network namespaces: when this process ends for any reason,
the kernel ends all of it. The second node also has a separate network, joined to the first by a
link that a test cuts.
"""

import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest
import unittest.mock
from pathlib import Path

import torch

sys.path[:0] = [
    str(Path(__file__).resolve().parent.parent / folder) for folder in ("programs", ".")
]
from programs import BUILD, ROOT, processes  # takes BUILD_FOLDER
from relay_test import tensorboard_curve, wandb_records

FOLDER = BUILD / "slurm_test"
ADDRESSES = {"n1": "10.0.0.1", "n2": "10.0.0.2"}
ENVIRONMENT = {
    **os.environ, "SLURM_CONF": str(FOLDER / "slurm.conf"), "PROGRAMS": str(BUILD),
    "CUDA_VISIBLE_DEVICES": "", "RETRY_PAUSES": "3 6 12"
}
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}

# SIGPIPE stays ignored, as in Python: munged disconnects a client that a busy machine delays for
# two seconds, and libmunge tries again.
client = functools.partial(subprocess.run, restore_signals=False)


def call(*command, timeout=60):
    result = client([str(part) for part in command], capture_output=True, text=True,
                    timeout=timeout, cwd=ROOT, env=ENVIRONMENT)
    if result.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {result.returncode}\n"
                           f"{result.stdout}{result.stderr}")
    return result.stdout


def wait_for(condition, otherwise="waited in vain", timeout=180):
    """`otherwise` is the error message, or a function that makes it."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(otherwise() if callable(otherwise) else otherwise)
        time.sleep(0.1)


class Cluster:
    """Two nodes. n1 shares the network of the controller and of this process."""
    def __init__(self):
        shutil.rmtree(FOLDER, ignore_errors=True)
        for name in ("state", "tmp-n1", "tmp-n2", "spool-n1", "spool-n2"):
            (FOLDER / name).mkdir(parents=True)
        text = (ROOT / "tests/slurm/slurm.conf.in").read_text()
        self.link()
        names = {
            "HOST": socket.gethostname().split(".")[0], "FOLDER": FOLDER,
            "ADDRESS_1": ADDRESSES["n1"], "ADDRESS_2": ADDRESSES["n2"]
        }
        for name, value in names.items():
            text = text.replace(f"@{name}@", str(value))
        (FOLDER / "slurm.conf").write_text(text)
        # There is no GPU: the programs use the CPU.
        (FOLDER / "gres.conf").write_text("NodeName=n[1-2] Name=gpu File=/dev/zero\n")
        key = FOLDER / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self.start("munged", "--foreground", "--force", f"--key-file={key}",
                   f"--socket={FOLDER}/munge.socket", f"--pid-file={FOLDER}/munged.pid",
                   f"--log-file={FOLDER}/munged.log", f"--seed-file={FOLDER}/munged.seed")
        wait_for((FOLDER / "munge.socket").exists)
        conf = FOLDER / "slurm.conf"
        self.start("slurmctld", "-D", "-f", conf)
        self.nodes, self.silent = {}, []
        for node in ADDRESSES:
            self.restore(node, wait=False)
        self.await_nodes()

    def await_nodes(self):
        def idle():
            states = client(["sinfo", "-h", "-N", "-p", "low", "-o", "%T"], capture_output=True,
                            text=True, env=ENVIRONMENT)
            return states.stdout.split() == ["idle", "idle"]

        def complaints():
            return "".join(f"\n{path.name}: {line}" for path in sorted(FOLDER.glob("slurmd-*.log"))
                           for line in path.read_text().splitlines() if "error:" in line)

        wait_for(idle, lambda: f"the nodes do not come up; see {FOLDER}/*.log{complaints()}")

    def start(self, *command):
        with open(FOLDER / "daemons.log", "a") as log:
            return subprocess.Popen([str(part) for part in command], stdout=log, stderr=log,
                                    env=ENVIRONMENT)

    def lose(self, node, number):
        """Silences the node's daemons, including those that watch the job's steps.

        The job's processes continue.
        """
        self.nodes[node].kill()
        self.nodes[node].wait()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes()
            except OSError:
                continue
            if line.startswith(f"slurmstepd: [{number}.".encode()):
                self.silent.append(int(path.parent.name))
                os.kill(self.silent[-1], signal.SIGSTOP)  # ranks of Open MPI 5 would end with it

    def restore(self, node, wait=True):
        while self.silent:
            os.kill(self.silent.pop(), signal.SIGKILL)
        # Separate shared memory, as on any other machine: Open MPI names its segments after job and
        # step, and those of an earlier start still exist.
        own_memory = ("unshare", "--mount", "bash", "-c",
                      'mount -t tmpfs none /dev/shm && exec "$@"', "slurmd")
        self.nodes[node] = self.start(*self.within(node), *own_memory, "slurmd", "-D", "-N", node,
                                      "-f", FOLDER / "slurm.conf")
        if wait:
            self.await_nodes()

    def within(self, node):
        """Returns the prefix that makes a command use the node's network."""
        return ("nsenter", f"--net=/proc/{self.network.pid}/ns/net") if node == "n2" else ()

    def link(self):
        """Gives n2 a separate network, which ends with the process that holds it."""
        self.network = self.start("unshare", "--net", "sleep", "infinity")
        ours = os.readlink("/proc/self/ns/net")
        wait_for(lambda: os.readlink(f"/proc/{self.network.pid}/ns/net") != ours)
        call("ip", "link", "add", "n1", "type", "veth", "peer", "name", "n2", "netns",
             self.network.pid)
        for node, address in ADDRESSES.items():
            call(*self.within(node), "ip", "address", "add", f"{address}/24", "dev", node)
            call(*self.within(node), "ip", "link", "set", node, "up")
            call(*self.within(node), "ip", "link", "set", "lo", "up")

    def cut(self):
        call(*self.within("n2"), "ip", "link", "set", "n2", "down")

    def restore_link(self):
        call(*self.within("n2"), "ip", "link", "set", "n2", "up")


def job(number):
    """Returns what Slurm knows about a job, as a dictionary."""
    return dict(
        field.split("=", 1)
        for field in call("scontrol", "show", "job", number, "-o").split()
        if "=" in field)


def comment(number):
    """Returns the comment that the job scripts keep at a job."""
    return call("squeue", "-h", "--Format=Comment:200", "--jobs", number)


def ranks(out):
    """Returns the processes that train into `out`."""
    return processes("train_gpt2", out)


def digest(path):
    """SHA-256 of the weights and moments of a checkpoint."""
    state, sha = torch.load(path), hashlib.sha256()
    for part in ("model", "exp_avg", "exp_avg_sq"):
        for name, tensor in sorted(state[part].items()):
            sha.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()


# The learning rate and the window depend only on the step, so a run may end at any step and still
# equal an unbroken one. Every segment crosses on-policy rounds.
ANY_END = ("--training.epochs", 1000000, "--training.schedule", "constant",
           "--training.curriculum.points.interval", 10, "--training.save_every_steps", 100,
           "--training.print_every_steps", 1000000, "--rounds.count", 1000000,
           "--rounds.first_step", 100, "--rounds.every_steps", 2000, "--rounds.newest", 2,
           "--rounds.trajectories", 32, "--rounds.trajectories_per_shard", 8, "--rounds.steps", 64)
ENDLESS = ("--training.train_steps", 1000000, *ANY_END)
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1")
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


class Slurm(unittest.TestCase):
    unbroken_steps = 0

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()
        cls.data = FOLDER / "data"
        call(ROOT / "launch/local.sh", 2, BUILD / "generate_trajectories", "--config",
             "tests/tiny.yaml", "--dataset.path", cls.data)

    def setUp(self):
        self.folder = FOLDER / self._testMethodName
        self.folder.mkdir()
        self.out = self.folder / "run"
        self.addCleanup(client, ["scancel", "-u", "root"], env=ENVIRONMENT, check=False)

    def log(self, number):
        return "\n".join(path.read_text() for path in self.folder.glob(f"*-{number}.log"))

    def submit(self, script, *settings, options=TWO_NODES, data=None):
        data = data or self.data
        number = call("sbatch", "--parsable", f"--output={self.folder}/%x-%j.log", *options,
                      f"slurm/{script}.sbatch", "tests/tiny.yaml", "--dataset.path", data,
                      "--out_dir", self.out, *settings)
        return number.split(";")[0].strip()

    def state(self, number, states, timeout=180):
        """Waits until the job is in one of the states; returns what Slurm knows about it."""
        wait_for(
            lambda: job(number)["JobState"] in states,
            lambda: f"job {number} is {job(number)['JobState']}, not {states}\n{self.log(number)}",
            timeout)
        return job(number)

    def step(self):
        """Returns the step of the newest checkpoint."""
        return max((int(path.name.split("_")[1].split(".")[0])
                    for path in self.out.glob("checkpoint_*.pt.sha256")), default=0)

    def progress(self, number, timeout=180):
        """Waits until a segment has committed two more checkpoints."""
        begin = self.step()

        def progressed():
            self.assertNotIn(job(number)["JobState"], OVER, self.log(number))
            return self.step() >= begin + 200

        wait_for(progressed, lambda: f"no progress since step {begin}\n{self.log(number)}", timeout)

    def restarted(self, number, times, timeout=180):
        def running():
            found = job(number)
            return found["JobState"] == "RUNNING" and found["Restarts"] == str(times)

        wait_for(
            running,
            lambda: f"{job(number)['JobState']}, restarted {job(number)['Restarts']} times\n"
            f"{self.log(number)}", timeout)

    def request_stop(self, number):
        """Sends a stop request, as Slurm does before the time limit."""
        call("scancel", "--batch", "--signal=USR1", number)

    def end(self, number):
        """Stops the run with a checkpoint, and keeps it from being restarted."""
        self.request_stop(number)
        self.state(number, ("PENDING",))
        call("scancel", number)

    def assert_equals_an_unbroken_run(self):
        """Compares every loss, and the newest checkpoint that an unbroken run also has."""
        steps = torch.load(self.out / "state.pt")["step"]
        unbroken = self.unbroken_run(steps)
        same = max((path.name for path in self.out.glob("checkpoint_*00.pt")),
                   key=lambda name: int(name[11:-3]))
        self.assertEqual(*(digest(run / same) for run in (self.out, unbroken)))
        losses = [[(line["step"], line.get("loss"), line.get("round_success"))
                   for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
                   if line["step"] <= steps]
                  for run in (self.out, unbroken)]
        self.assertEqual(*losses)
        rounds = list(self.out.glob("rounds/*/manifest.json"))
        self.assertTrue(rounds)
        for path in rounds:
            self.assertEqual(path.read_bytes(),
                             (unbroken / path.relative_to(self.out)).read_bytes())

    @classmethod
    def unbroken_run(cls, steps):
        """Returns the folder of an unbroken run of two ranks that has at least `steps` steps.

        The run keeps all its checkpoints. All tests share it.
        """
        if steps > cls.unbroken_steps:
            cls.unbroken_steps = 2 * steps
            shutil.rmtree(FOLDER / "unbroken", ignore_errors=True)
            # With one thread per rank, as Slurm's tasks: more add in another order.
            with unittest.mock.patch.dict(ENVIRONMENT, SLURM_CPUS_PER_TASK="1"):
                call(ROOT / "launch/local.sh", 2, BUILD / "train_gpt2", "--config",
                     "tests/tiny.yaml", "--dataset.path", cls.data, "--out_dir",
                     FOLDER / "unbroken", *ANY_END, "--training.train_steps", cls.unbroken_steps,
                     "--training.keep_every_steps", 100, timeout=600)
        return FOLDER / "unbroken"

    def test_generate_train_evaluate_over_both_nodes(self):
        data = self.folder / "data"
        said = call("slurm/submit.sh", "tests/tiny.yaml", "--nodes=2", "--ntasks-per-node=1",
                    f"--output={self.folder}/%x-%j.log", "--", "--dataset.path", data, "--out_dir",
                    self.out)
        numbers = [
            word.rstrip(",") for word in said.splitlines()[0].split() if word.rstrip(",").isdigit()
        ]
        self.assertEqual(len(numbers), 3, said)
        watch = call("bash", "-c", next(line for line in said.splitlines() if "squeue" in line))
        self.assertIn(f"tests/tiny.yaml --dataset.path {data}"[:80], watch)
        for number in numbers:
            found = self.state(number, OVER, timeout=300)
            self.assertEqual((found["JobState"], found["ExitCode"]), ("COMPLETED", "0:0"),
                             self.log(number))
        self.assertIn("2 ranks", self.log(numbers[1]))
        self.assertTrue((self.out / "DONE").exists())
        self.assertIn("closed_loop", (self.out / "evaluation/evaluation.json").read_text())
        again = self.submit("train", data=data)  # a chain past its end costs nothing
        self.assertEqual(self.state(again, OVER)["JobState"], "COMPLETED")
        self.assertIn("nothing to do: the run is complete", self.log(again))

    def test_a_refused_submission_leaves_nothing_in_the_queue(self):
        def refused(*options):
            return client(["slurm/submit.sh", "tests/tiny.yaml", *options], capture_output=True,
                          text=True, cwd=ROOT, env=ENVIRONMENT)

        self.assertIn("Slurm refused the job 'generate'; nothing is queued",
                      refused("--partition=none").stderr)
        sbatch = self.folder / "sbatch"
        sbatch.write_text('#!/bin/bash\n'
                          '[[ "$*" != *evaluate.sbatch* ]] || export SBATCH_PARTITION=none\n'
                          f'exec {shutil.which("sbatch")} "$@"\n')
        sbatch.chmod(0o755)
        with unittest.mock.patch.dict(ENVIRONMENT, PATH=f"{self.folder}:{ENVIRONMENT['PATH']}"):
            said = refused(*TWO_NODES, "--hold", f"--output={self.folder}/%x-%j.log")
        self.assertEqual(said.returncode, 1)
        self.assertIn("Slurm refused the job 'evaluate'; nothing is queued", said.stderr)
        wait_for(lambda: call("squeue", "-h").strip() == "", lambda: call("squeue"))
        self.assertIn(
            "there is no configuration none.yaml",
            client([ROOT / "slurm/submit.sh", "none.yaml"], capture_output=True, text=True,
                   cwd="/").stderr)
        self.assertIn(
            "slurm/submit.sh CONFIG",
            client([ROOT / "slurm/submit.sh"], capture_output=True, text=True, cwd="/").stderr)
        outside = call("sbatch", "--parsable", f"--chdir={self.folder}",
                       f"--output={self.folder}/%x-%j.log", "slurm/train.sbatch", "x.yaml").strip()
        self.assertEqual(self.state(outside, OVER)["ExitCode"], "78:0")
        self.assertIn("train: submit from the checkout", self.log(outside))

    def test_three_segments_cut_by_the_time_limit_equal_one_run(self):
        # Slurm checks time limits every 30 s: it warns 5 to 35 s after the start.
        number = self.submit("train", *ENDLESS,
                             options=(*TWO_NODES, "--time=1", "--signal=B:USR1@25"))

        def three_segments():
            self.assertNotIn(job(number)["JobState"], OVER, self.log(number))
            return self.log(number).count("a checkpoint is saved") >= 3

        wait_for(three_segments, lambda: self.log(number), timeout=300)
        wait_for(lambda: "3 segments done" in comment(number),
                 "the comment does not count the segments")
        call("scancel", number)
        self.assertEqual(self.log(number).count("resumed at step"), 2)
        self.assert_equals_an_unbroken_run()

    def test_a_stop_request_before_there_are_ranks(self):
        """While srun starts its tasks, a signal is lost or ends it."""
        number = self.submit("train", *ENDLESS)
        for segment in range(1, 4):
            wait_for(lambda: f"segment {segment} on n" in self.log(number),
                     lambda: self.log(number))
            time.sleep(0.2 * (segment - 1))
            self.request_stop(number)
            self.restarted(number, segment)
        self.progress(number)
        self.end(number)
        self.assert_equals_an_unbroken_run()

    def stand_in(self, does):
        """Replaces the programs with scripts that run `does`, to test how the job scripts react."""
        programs = self.folder / "programs"
        programs.mkdir(exist_ok=True)
        for name in ("train_gpt2", "generate_trajectories"):
            (programs / name).write_text(
                f"#!/bin/bash\nif [[ $1 == --show ]]; then echo {self.out}; exit; fi\n{does}\n")
            (programs / name).chmod(0o755)
        return unittest.mock.patch.dict(ENVIRONMENT, PROGRAMS=str(programs), RETRY_PAUSES="0 0 0",
                                        STOP_SECONDS="2")

    def ends(self, number, code, *texts, timeout=120):
        """Waits until the job is over; returns what Slurm knows about it."""
        found = self.state(number, OVER, timeout)
        self.assertEqual(found["ExitCode"], f"{code}:0", self.log(number))
        for text in texts:
            self.assertIn(text, self.log(number))
        return found

    def test_a_run_without_progress_is_given_up(self):
        with self.stand_in("echo started; exit 74"):
            number = self.submit("train")
        self.ends(number, 93, "exit code 74, 4 starts in a row without progress",
                  "exit code 74, 6 starts in a row without progress",
                  "three segments in a row without progress: giving up")
        # On several nodes the first segment is shorter. Starts of each segment, ranks.
        self.assertEqual(self.log(number).count("started"), (4 + 6 + 6) * 2)

    def test_a_job_falls_back_after_three_starts_without_progress(self):
        """On several nodes only a segment that follows one without progress falls back."""
        self.out.mkdir()
        for step in (1, 2):
            (self.out / f"checkpoint_{step}.pt.sha256").touch()
        starts = {}
        for options in (TWO_NODES, ("--nodes=1", "--ntasks=1")):
            with self.stand_in("[[ $SLURM_PROCID != 0 ]] || echo start $SLURM_RESTART_COUNT: $*; "
                               "[[ $* != *--fall_back ]] || exit 78; exit 1"):
                number = self.submit("train", options=options)
            self.ends(number, 93, "start 4 of 6 without progress, without the checkpoint of step 2")
            starts[options[0]] = [(line.split(":")[0], line.endswith("--fall_back"))
                                  for line in self.log(number).splitlines()
                                  if line.startswith("start ")]
        ones = [
            (f"start {segment}", number == 3) for segment in ("", "1", "2") for number in range(6)
        ]
        self.assertEqual(starts["--nodes=1"], ones)
        self.assertEqual(starts["--nodes=2"], [("start ", False)] * 4 + ones[6:])

    def test_segments_without_progress_are_counted_in_a_row(self):
        with self.stand_in(f"""echo started
            if [[ $0 == *generate* ]]; then
              scancel --batch --signal=USR1 $SLURM_JOB_ID
              sleep 100
            fi
            if [[ $SLURM_RESTART_COUNT == 1 ]]; then
              mkdir -p {self.out}
              touch {self.out}/checkpoint_1.pt.sha256
            fi
            exit 75"""):
            generate, train = (self.submit(script, options=("--nodes=1", "--ntasks=1"))
                               for script in ("generate", "train"))
        counted = "2 segments done, the last 2 without progress: tests/tiny.yaml"
        wait_for(lambda: counted in comment(generate), lambda: self.log(generate))
        for number, starts in ((generate, 3), (train, 5)):
            self.ends(
                number, 93,
                "three segments in a row without progress: giving up. Most often the time limit (")
            self.assertEqual(self.log(number).count("started"), starts, self.log(number))

    def test_progress_renews_the_restarts(self):
        """A file that is written again under its name is progress.

        This happens where a damaged checkpoint was skipped.
        """
        with self.stand_in(f"""sleep 0.5; mkdir -p {self.out}; cd {self.out}
            if [[ $SLURM_PROCID == 0 && ! $SLURM_RESTART_COUNT ]]; then
              echo >>starts
              if (($(wc -l <starts) < 5)); then touch new && mv new checkpoint_2.pt.sha256; fi
            fi
            exit 1"""):
            number = self.submit("train")
        self.ends(number, 93)
        # The second start without progress also comes in the three segments without any.
        counts = [self.log(number).count(f"start {start} of ") for start in (1, 2)]
        self.assertEqual(counts, [4, 1 + 3], self.log(number))

    def test_a_node_that_lost_a_gpu_is_excluded(self):
        one = ("--nodes=1", "--ntasks=1", "--gpus-per-node=1")
        lost, smi = self.folder / "lost", self.folder / "nvidia-smi"
        smi.write_text(
            f'#!/bin/bash\n[[ $SLURMD_NODENAME == $(<{lost}) ]] || echo "GPU 0: stand-in"\n')
        smi.chmod(0o755)
        with unittest.mock.patch.dict(ENVIRONMENT, PATH=f"{self.folder}:{ENVIRONMENT['PATH']}"):
            with self.stand_in(f"[[ -e {lost} ]] || echo $SLURMD_NODENAME >{lost}; "
                               f"[[ $SLURMD_NODENAME != $(<{lost}) ]] || exit 69"):
                found = self.ends(number := self.submit("train", options=one), 0)
                node = lost.read_text().strip()
                self.assertIn(f"GPUs are missing on {node}", self.log(number))
                self.assertEqual((found["Restarts"], found["ExcNodeList"]), ("1", node))
                other = ({*ADDRESSES} - {node}).pop()
                number = self.submit("train", options=(*one, "--no-requeue", f"--exclude={other}"))
                self.ends(number, 69, "the partition low has too few nodes; none is excluded",
                          "submit the same command to continue")
                number = self.submit("train", options=(*TWO_NODES, "--gpus-per-node=1"))
                self.ends(number, 93, f"GPUs are missing on {node}",
                          "three segments in a row without progress")
            with self.stand_in("[[ $SLURM_RESTART_COUNT ]] || exit 69"):
                lost.write_text("none")
                number = self.submit("train", options=one)
                found = self.ends(number, 0, "every node shows the GPUs that the job was given")
                self.assertEqual(found["Restarts"], "1")
                self.ends(self.submit("train", options=("--nodes=1", "--ntasks=2")), 69,
                          "Slurm gave this job no GPU(s) on a node of 2 ranks")

    def test_tasks_of_an_array_are_requeued_one_by_one(self):
        with self.stand_in("""if [[ $SLURM_ARRAY_TASK_ID == 1 ]]; then sleep 5; exit; fi
            [[ $SLURM_RESTART_COUNT ]] || exit 75"""):
            number = self.submit("train", options=("--nodes=1", "--ntasks=1", "--array=1-3"))
        for task, starts in ((1, 0), (2, 1), (3, 1)):
            wait_for(lambda: job(f"{number}_{task}")["JobState"] == "COMPLETED",
                     lambda: call("scontrol", "show", "job", number))
            self.assertEqual(job(f"{number}_{task}")["Restarts"], str(starts))

    def test_a_heterogeneous_job_is_refused(self):
        number = self.submit("train", options=("--nodes=1", ":", "--nodes=1"))
        wait_for(lambda: "submit one without ':'" in self.log(number), lambda: self.log(number))

    def test_ranks_that_do_not_stop_are_left_to_slurm(self):
        with self.stand_in("trap '' USR1; echo started; sleep 1000"):
            number = self.submit("train")
        wait_for(lambda: self.log(number).count("started") == 2, lambda: self.log(number))
        self.request_stop(number)
        self.restarted(number, 1)
        self.assertIn("exit code 76 near the time limit: what was written before is kept",
                      self.log(number))

    def test_generation_continues_after_its_time_limit(self):
        # Ten seconds of simulation.
        many = ("--dataset.train_shards", 300, "--dataset.trajectories_per_shard", 2000,
                "--dataset.steps", 16)
        data = self.folder / "data"
        number = self.submit("generate", *many, data=data)
        wait_for(lambda: len(list(data.glob("train/*.h5"))) > 20, lambda: self.log(number))
        self.request_stop(number)
        self.restarted(number, 1)
        self.assertEqual(
            self.state(number, OVER, timeout=300)["JobState"], "COMPLETED", self.log(number))
        self.assertIn("shards already existed", self.log(number))

    def test_the_relay_has_sent_everything_before_a_segment_ends(self):
        """Slurm kills what is left of a job whose script has ended."""
        relayed = ("--wandb.mode", "offline", "--wandb.log_every_steps", 1)
        number = self.submit("train", *relayed, "--training.validate_every_steps", 20)
        self.ends(number, 0)
        for tag in ("train/loss", "validation/success"):
            self.assertEqual(tensorboard_curve(self.out, tag)[-1][0], 20, tag)
        last_step, row = wandb_records(self.out)[0][-1]
        self.assertEqual(last_step, 20)
        self.assertIn("validation/success", row)

        self.out = self.folder / "two_segments"
        number = self.submit("train", *ENDLESS, *relayed)
        self.progress(number)
        self.request_stop(number)
        self.state(number, ("PENDING",))
        call("scancel", number)
        steps = torch.load(self.out / "state.pt")["step"]
        self.assertEqual(tensorboard_curve(self.out, "train/loss")[-1][0], steps)
        self.assertEqual(wandb_records(self.out)[0][-1][0], steps)

    def test_after_any_fault_a_run_resumes_to_the_same_result(self):
        number = self.submit("train", *ENDLESS, "--training.hang_seconds", 5)
        waits = call("sbatch", "--parsable", f"--dependency=afterok:{number}",
                     f"--output={self.folder}/waits.log", "--wrap", "true").strip()
        self.progress(number)
        os.kill(max(ranks(self.out)), signal.SIGKILL)
        self.progress(number)
        self.assertEqual(self.log(number).count("start 1 of 4 without progress"), 1)
        os.kill(max(ranks(self.out)), signal.SIGSTOP)
        self.progress(number)
        self.assertIn("no progress for 5 s while training up to step", self.log(number))
        self.assertEqual(self.log(number).count("start 1 of 4 without progress"), 2)
        self.assertEqual(job(number)["Restarts"], "0")

        call("scontrol", "requeue", number)
        self.restarted(number, 1)
        self.progress(number)

        urgent = call("sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive",
                      f"--output={self.folder}/urgent.log", "--wrap", "sleep 1").strip()
        self.assertEqual(self.state(urgent, OVER)["JobState"], "COMPLETED")
        self.restarted(number, 2)
        self.progress(number)
        self.request_stop(number)
        self.restarted(number, 3)
        self.assertEqual(
            job(waits)["JobState"], "PENDING",
            "what depends on the job waits through all its segments")

        call("scancel", number)
        self.assertEqual(self.state(number, OVER)["JobState"], "CANCELLED")
        wait_for(lambda: not ranks(self.out), "ranks outlive their job")
        number = self.submit("train", *ENDLESS)
        self.progress(number)
        self.end(number)
        self.assert_equals_an_unbroken_run()

    def test_ranks_that_outlive_their_node_commit_nothing(self):
        number = self.submit("train", *ENDLESS, "--training.hang_seconds", 5,
                             options=("--nodes=1", "--ntasks=2"))
        self.progress(number)
        node, zombies = job(number)["BatchHost"], ranks(self.out)
        self.assertEqual(len(zombies), 2)
        self.cluster.lose(node, number)
        self.addCleanup(self.cluster.restore, node)
        self.assertEqual(ranks(self.out), zombies, "the ranks should outlive their daemons")
        before = self.step()
        self.restarted(number, 1)
        self.assertGreater(self.step(), before,
                           "the ranks should continue while Slurm notices nothing")
        self.progress(number)
        self.assertNotEqual(job(number)["BatchHost"], node)
        # The watchdog ends a rank that waits for one that has exited, after six times hang_seconds
        # if a checkpoint was being saved.
        wait_for(lambda: not set(zombies) & set(ranks(self.out)),
                 "ranks of the lost node still run", timeout=90)
        self.end(number)
        resumed = int(self.log(number).rsplit("resumed at step ", 1)[1].split()[0])
        lines = list(map(json.loads, (self.out / "metrics.jsonl").read_text().splitlines()))
        self.assertEqual({line["attempt"] for line in lines if line["step"] > resumed}, {1})
        for record in self.out.glob("checkpoint_*.sha256"):
            if torch.load(path := record.with_suffix(""))["step"] > resumed:
                self.assertEqual(torch.load(path)["attempt"], 1)
        self.assert_equals_an_unbroken_run()

    def test_a_link_cut_and_restored(self):
        number = self.submit("train", *ENDLESS)
        self.progress(number)
        self.addCleanup(self.cluster.await_nodes)
        self.addCleanup(self.cluster.restore_link)

        self.cluster.cut()  # so briefly that only packets are lost
        before = self.step()
        time.sleep(3)
        self.assertLess(self.step(), before + 200, "the ranks train on without each other")
        self.cluster.restore_link()
        self.progress(number)
        self.assertEqual(job(number)["Restarts"], "0")
        self.assertNotIn("without progress", self.log(number))

        self.cluster.cut()
        self.state(number, ("PENDING",))
        self.cluster.restore_link()
        self.restarted(number, 1)
        self.progress(number)
        self.end(number)
        self.assert_equals_an_unbroken_run()

    def test_mpirun_with_a_host_file(self):
        hosts, agent = self.folder / "hosts", self.folder / "agent"
        hosts.write_text("".join(f"{address} slots=1\n" for address in ADDRESSES.values()))
        agent.write_text(f'#!/bin/bash\n[[ $1 == {ADDRESSES["n2"]} ]] && shift && '
                         f'exec {" ".join(self.cluster.within("n2"))} '
                         'unshare --uts bash -c "hostname n2; $*"\n')
        agent.chmod(0o755)  # instead of ssh
        with unittest.mock.patch.dict(ENVIRONMENT, OMPI_MCA_plm_rsh_agent=str(agent),
                                      PRTE_MCA_plm_ssh_agent=str(agent)):  # of Open MPI 4, of 5
            said = call("launch/multinode.sh", hosts, BUILD / "train_gpt2", "--config",
                        "tests/tiny.yaml", "--dataset.path", self.data, "--out_dir", self.out)
        self.assertIn("2 on 2 node(s)", said)
        self.assertTrue((self.out / "DONE").exists())

    def test_exit_codes_are_seen_in_the_state(self):
        odd_batch = ("--training.batch_size", 3)
        for settings, data, code in (((), self.folder / "none", 65), (odd_batch, self.data, 78)):
            number = self.submit("train", *settings, data=data)
            found = self.state(number, OVER)
            self.assertEqual((found["JobState"], found["ExitCode"]), ("FAILED", f"{code}:0"),
                             self.log(number))

    def test_mpirun_inside_the_allocation(self):
        with unittest.mock.patch.dict(ENVIRONMENT, LAUNCHER="mpirun"):
            number = self.submit("train", *ENDLESS)
        self.progress(number)
        self.assertIn("2 ranks", self.log(number))
        self.request_stop(number)
        self.restarted(number, 1)
        self.assertIn("exit code 75: a checkpoint is saved", self.log(number))
        # The launcher's own words about an exit code that is wanted.
        self.assertNotRegex(self.log(number),
                            "mpirun: |mpirun detected|prterun|terminated normally")
        self.progress(number)
        self.end(number)
        self.assert_equals_an_unbroken_run()

    def test_a_table_of_scaling(self):
        out = self.folder / "table"
        with unittest.mock.patch.dict(ENVIRONMENT, OUT=str(out)):
            number = call("sbatch", "--parsable", f"--output={self.folder}/%x-%j.log", "--nodes=2",
                          "--ntasks-per-node=1", "slurm/scaling.sbatch", "tests/tiny.yaml",
                          "--dataset.path", self.data).strip()
        self.assertEqual(self.state(number, OVER)["JobState"], "COMPLETED", self.log(number))
        rows = [[cell.strip()
                 for cell in line.strip("|").split("|")]
                for line in (out / "scaling.md").read_text().splitlines()]
        self.assertEqual([row[:3] for row in rows[2:]],
                         [["weak", "1", "64"], ["weak", "2", "128"], ["strong", "1", "128"],
                          ["strong", "2", "128"]])
        self.assertEqual([rows[2][5], rows[4][5]], ["100.0%", "100.0%"])

    def test_a_sweep_has_a_run_folder_per_task(self):
        combinations = self.folder / "sweep.txt"
        combinations.write_text("# Two seeds.\n\n--seed 0\n  --seed 1\n")

        def submit(tasks, data):
            with unittest.mock.patch.dict(ENVIRONMENT, OUT=str(self.out)):
                return call("sbatch", "--parsable", f"--output={self.folder}/%x-%A_%a.log",
                            "--nodes=1", "--ntasks=2", f"--array={tasks}", "slurm/sweep.sbatch",
                            combinations, "tests/tiny.yaml", "--dataset.path", data,
                            "--training.train_steps", 1500, "--training.save_every_steps", 100,
                            "--training.print_every_steps", 1000000).strip()

        number = submit("0-2", self.data)
        stopped = f"{number}_0"
        wait_for(lambda: [*self.out.glob("task_000/checkpoint_*.sha256")],
                 lambda: self.log(stopped))
        self.request_stop(stopped)
        self.ends(f"{number}_2", 78, f"there is no line for task 2 in {combinations}, which has 2")
        for task, starts in ((0, 1), (1, 0)):
            found = self.ends(f"{number}_{task}", 0, "2 ranks", timeout=300)
            self.assertEqual(found["Restarts"], str(starts), self.log(f"{number}_{task}"))
            config = (self.out / f"task_00{task}/config.yaml").read_text()
            self.assertIn(f"\nseed: {task}\n", config)
        self.assertIn("resumed at step", self.log(stopped))
        self.assertIn("| mean of 2 seeds: task_000, task_001 | ",
                      call(".venv/bin/python", "tools/compare.py", self.out))
        self.ends(f"{submit('0', self.folder / 'none')}_0", 78, "there is no dataset in")

    def test_programs_of_a_container(self):
        image, stand_in = self.folder / "image.sif", self.folder / "apptainer"
        image.touch()
        stand_in.write_text('#!/bin/bash\n'
                            f'[[ $1 == exec && $2 == --nv && $3 == {image} ]] && '
                            f'exec {BUILD}/"${{@:4}}"\n')
        gpus = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1")
        stand_in.chmod(0o755)
        with unittest.mock.patch.dict(ENVIRONMENT, CONTAINER=str(image), PROGRAMS="none",
                                      PATH=f"{self.folder}:{ENVIRONMENT['PATH']}"):
            number = self.submit("train", "--device", "cpu", options=gpus)
            self.assertEqual(self.state(number, OVER)["JobState"], "COMPLETED", self.log(number))
            image.unlink()
            number = self.submit("train")
            self.assertEqual(self.state(number, OVER)["ExitCode"], "78:0", self.log(number))
        self.assertIn(f"CONTAINER={image} needs that image", self.log(number))
        checkout = self.folder / "checkout"
        checkout.mkdir()
        for name in ("launch", "slurm"):
            (checkout / name).symlink_to(ROOT / name)
        with unittest.mock.patch.dict(ENVIRONMENT, PROGRAMS=""):
            number = self.submit("train", options=(*gpus, f"--chdir={checkout}"))
            self.assertEqual(self.state(number, OVER)["ExitCode"], "78:0", self.log(number))
        self.assertIn("build/gpu/train_gpt2 does not exist", self.log(number))

    def test_tasks_that_pmix_does_not_connect_are_refused(self):
        train = [
            "srun", "--mpi=none", "--nodes=2", "--ntasks=2", BUILD / "train_gpt2", "--config",
            "tests/tiny.yaml", "--dataset.path", self.data, "--out_dir", self.out
        ]
        alone = client(train, capture_output=True, text=True, cwd=ROOT,
                       env={**ENVIRONMENT, **AS_ROOT}, timeout=60)
        self.assertNotEqual(alone.returncode, 0, alone.stdout)
        refusal = "the launcher started 2 tasks (SLURM_STEP_NUM_TASKS), but each is alone"
        self.assertEqual(alone.stderr.count(refusal), 1, alone.stderr)
        self.assertFalse((self.out / "metrics.jsonl").exists())

    def test_single_process_programs_run_in_a_shell_of_several_tasks(self):
        settings = f"--config tests/tiny.yaml --dataset.path {self.data} --out_dir {self.out}"
        train = f"{BUILD}/train_gpt2 {settings}"
        show, check, train_new = f"{train} --show out_dir", f"{train} --dry_run", f"{train}_new"
        evaluate = f"{BUILD}/evaluate_policy {settings} --evaluation.steps 260"
        call(ROOT / "launch/local.sh", 1, *train.split())

        def codes(*options, runs):
            """Returns how programs end in a shell on a terminal, and all that they print."""
            line = "[[ $SLURM_PROCID == 0 ]] || exit 0; " + "".join(
                f"{run}; echo code $?; " for run in runs)
            shell = shlex.join(["srun", *options, "--pty", "bash", "-c", line])
            said = client(["script", "--quiet", "--command", shell, "/dev/null"], text=True,
                          cwd=ROOT, timeout=60, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env={**ENVIRONMENT, **AS_ROOT}).stdout
            return re.findall(r"code (\d+)", said), said

        for mpi in ("none", "pmix"):
            found, said = codes("--ntasks=4", f"--mpi={mpi}",
                                runs=(show, check, evaluate, train_new))
            self.assertEqual(found, ["0", "0", "0", "78"], said)
            self.assertIn("the launcher started 4 tasks", said)
        found, said = codes("--ntasks=1", "--mpi=none", runs=(train_new,))
        self.assertEqual(found, ["0"], said)

        for run, program in ((check, "train_gpt2"), (evaluate, "evaluate_policy")):
            said = client(["srun", "--ntasks=2", "--mpi=none", *run.split()], capture_output=True,
                          text=True, cwd=ROOT, env={**ENVIRONMENT, **AS_ROOT}, timeout=60)
            note = f"{program}: this is work for one process, task 0 does it"
            self.assertEqual(said.stderr.count(note), 1, said.stderr)
            self.assertEqual(len(re.findall("written", said.stdout)), 1, said.stdout)


if __name__ == "__main__":
    if os.geteuid() != 0 or not all(
            shutil.which(program) for program in ("munged", "slurmctld", "slurmd", "ip")):
        sys.exit(
            "slurm_test: needs root, slurmctld, slurmd, munged and ip (tools/setup.sh --tests); "
            "leave it out with tools/check.sh --no-slurm")
    namespaces = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
    if "INSIDE" not in os.environ:
        if subprocess.run([*namespaces, "true"], stderr=subprocess.DEVNULL).returncode:
            sys.exit("slurm_test: this host allows no namespaces (a privileged container does); "
                     "leave it out with tools/check.sh --no-slurm")
        # The first process of a namespace must reap the orphaned children of other processes: a
        # shell does.
        os.execvpe("unshare", [*namespaces, "bash", "-c", '"$@" & wait $!', "bash", *sys.orig_argv],
                   {**os.environ, "INSIDE": "1"})
    unittest.main(verbosity=2, warnings="ignore")  # of daemons that live as long as this process
