"""The programs as their users see them: exit codes, messages, files, signals. Usage: programs_test.py BUILD_FOLDER"""

import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import torch
import yaml

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(sys.argv.pop(1)).resolve()
TINY = ROOT / "tests/tiny.yaml"
NEON = (BUILD / "CMakeFiles/control_neon.dir").is_dir()  # built for aarch64
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
ENVIRONMENT.update(ASAN_OPTIONS="detect_leaks=0", CUDA_VISIBLE_DEVICES="")  # CPUs, wherever it runs


def command(program, *arguments, ranks=1, config=TINY):
    return [ROOT / "launch/local.sh", str(ranks), BUILD / program, "--config", config, *map(str, arguments)]


def run(program, *arguments, ranks=1, config=TINY):
    return subprocess.run(command(program, *arguments, ranks=ranks, config=config), capture_output=True, text=True,
                          timeout=300, env=ENVIRONMENT)


def publish_with_record(path, text):
    path.write_text(text)
    Path(f"{path}.sha256").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  {path.name}\n")


def tree(folder):
    """Relative path -> SHA-256 of every file."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def metrics(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["gradient_norm"], line["learning_rate"]) if "loss" in line
            else (line["step"], line["validation_loss"], line["success"], line["best"]) for line in lines]


def same_state(test, first, second):
    a, b = torch.load(first), torch.load(second)
    for part in ("model", "exp_avg", "exp_avg_sq"):
        test.assertEqual(a[part].keys(), b[part].keys())
        for name in a[part]:
            test.assertTrue(torch.equal(a[part][name], b[part][name]), f"{part} {name}")


def processes(program, out):
    """Those of a program's ranks that write to `out`; without pgrep, which not every machine has."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:  # it has just ended
            continue
        if line.startswith(f"{BUILD}/{program}".encode()) and str(out).encode() in line:
            found.append(int(path.parent.name))
    return sorted(found)


class ProgramTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="cartpole_programs_"))
        self.addCleanup(shutil.rmtree, self.folder)

    def expect(self, result, code, *texts):
        """The exit code, and every text in what it said; an error is said exactly once."""
        said = result.stdout + result.stderr
        self.assertEqual(result.returncode, code, said)
        for text in texts:
            self.assertIn(text, said)
            if code:
                self.assertEqual(said.count(text), 1, said)

    def start_and_wait_for_a_checkpoint(self, command, out, environment):
        """A running job that trains into `out` on two ranks, and the process of one rank."""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        while not list(out.glob("checkpoint_*.sha256")):
            time.sleep(0.02)
            self.assertIsNone(process.poll(), process.stdout.read() if process.poll() is not None else "")
        ranks = processes("train_gpt2", out)
        self.assertEqual(len(ranks), 2)
        return process, max(ranks)

    def after_signal_to_a_rank(self, sent, command, out, environment, timeout):
        """Exit code, output and seconds until the end of such a job after one of its ranks got a signal."""
        process, rank = self.start_and_wait_for_a_checkpoint(command, out, environment)
        os.kill(rank, sent)
        begin = time.monotonic()
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output, time.monotonic() - begin

    def generate(self, *arguments, path=None, ranks=1):
        return run("generate_trajectories", "--dataset.path", path or self.folder / "data", *arguments, ranks=ranks)

    def train(self, *arguments, out=None, data=None, ranks=1):
        return run("train_gpt2", "--dataset.path", data or self.data, "--out_dir", out or self.folder / "run",
                   *arguments, ranks=ranks)


class Generate(ProgramTest):
    def test_the_kernels_are_vectorised(self):
        """A scalar sine in the loop would make it ten times slower and change no result."""
        least = {"step": 100, "act": 50, "draw": 100, "sines": 3, "stabilise": 3}
        if NEON:
            on_whole_registers = {"neon": r"\bf\w+\tv\d+\.2d"}
        else:
            on_whole_registers = {"avx2": r"\bv\w+pd .*%ymm", "avx512": r"\bv\w+pd .*%zmm"}
            least |= {"judge": 50, "disturb": 3, "kick": 3}  # they load under a condition, which NEON cannot
        for architecture, operation in on_whole_registers.items():
            kernel = BUILD / f"CMakeFiles/control_{architecture}.dir/src/cartpole/kernel.cpp.o"
            code = subprocess.run(["objdump", "-d", "--no-show-raw-insn", kernel], capture_output=True, text=True, check=True).stdout
            self.assertNotRegex(code, r"\t(callq?|blr?)\s")
            vector = {}
            for name, body in re.findall(r"<\w+GLOBAL__N_1\d+([a-z]+)E\w+>:\n((?:.+\n)*)", code):
                vector[name] = len(re.findall(operation, body))
            self.assertEqual(sorted(vector), ["act", "disturb", "draw", "judge", "kick", "sines", "stabilise", "step"])
            for name, count in least.items():
                self.assertGreater(vector[name], count, name)
            symbols = subprocess.run(["nm", kernel], capture_output=True, text=True, check=True).stdout
            self.assertNotIn(" W ", symbols)  # a function that the linker might give to older processors

    def test_attention_keeps_its_sums_in_registers(self):
        """Vectors wider than the registers made it six times slower on processors without AVX-512, and changed no result."""
        patterns = {architecture: (rf"\bvfmadd\w+ps .*%{register}", r"\bvmov\w+ +.*\(%r[sb]p", 50)
                    for architecture, register in (("avx2", "ymm"), ("avx512", "zmm"))}
        if NEON:
            patterns = {"neon": (r"\bfml[as]\tv\d+\.4s", r"\b(?:ld|st)[rp]\tq\d+, .*\[sp", 120)}
        for architecture, (product, through_stack, least) in patterns.items():
            kernel = BUILD / f"CMakeFiles/attention_{architecture}.dir/src/model/cpu_attention_kernel.cpp.o"
            code = subprocess.run(["objdump", "-d", "--no-show-raw-insn", kernel], capture_output=True, text=True, check=True).stdout
            products = len(re.findall(product, code))
            through_memory = len(re.findall(through_stack, code))
            self.assertGreater(products, least)
            self.assertLess(through_memory, products / 2)

    def test_content_does_not_depend_on_the_number_of_ranks(self):
        for ranks in (1, 2, 3, 4, 13):  # 11 shards
            self.expect(self.generate(path=self.folder / str(ranks), ranks=ranks), 0)
            self.assertEqual(tree(self.folder / "1"), tree(self.folder / str(ranks)))

    def test_killed_at_any_moment_it_continues_to_the_same_bytes(self):
        many = ("--dataset.train_shards", 40, "--dataset.trajectories_per_shard", 50)
        self.expect(self.generate(*many, path=self.folder / "unbroken", ranks=2), 0)
        killed = self.folder / "killed"
        moments = random.Random(1)
        # While shards are made; and at any moment since the launch: start-up, inspection and verification of what is there.
        for shards in (1, 0, 8, 0, 15, 0, 24, 0, 32, 0, 40):
            process = subprocess.Popen(command("generate_trajectories", "--dataset.path", killed, *many, ranks=2),
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
            while process.poll() is None and len(list(killed.glob("*/*.h5"))) < shards:
                time.sleep(0.001)
            time.sleep(moments.uniform(0, 0.01 if shards else 0.8))
            for pid in processes("generate_trajectories", killed):
                os.kill(pid, signal.SIGKILL)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.expect(self.generate(*many, path=killed, ranks=2), 0, "shards were there already")
        self.assertEqual(tree(self.folder / "unbroken"), tree(killed))

    def test_one_job_at_a_time_writes_a_dataset(self):
        many = ("--dataset.train_shards", 80, "--dataset.trajectories_per_shard", 2000)  # seconds of simulation
        first = subprocess.Popen(command("generate_trajectories", "--dataset.path", self.folder / "data", *many, ranks=2),
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(first.wait)
        while not (self.folder / "data/owner").exists():
            time.sleep(0.01)
        self.expect(self.generate(*many, ranks=2), 0, f"waiting for another process that writes to {self.folder}/data", "84 of 84 shards were there already")
        self.assertEqual(first.wait(), 0)

    def test_it_says_how_far_it_is_and_what_the_expert_achieves(self):
        said = self.generate("--dataset.train_shards", 24, "--dataset.trajectories_per_shard", 10000, "--dataset.evaluation_trajectories", 500)
        self.expect(said, 0)
        self.assertRegex(said.stdout, r"\d+ of 28 shards  \d+ trajectories/s  0\.\d\d GB/s  \d+ s left\n")
        manifest = json.loads((self.folder / "data/manifest.json").read_text())
        dropped, solved = manifest["splits"]["train"]["dropped"], manifest["splits"]["test_ood"]["expert_success"]
        self.assertGreater(dropped, 0)
        self.assertIn(f"train       240000   expert success {240000 / (240000 + dropped):.4f}", said.stdout)
        self.assertIn(f"   {dropped} failed draws dropped\n", said.stdout)
        self.assertIn(f"test_ood       500   expert success {solved:.4f}", said.stdout)
        self.assertTrue(0.6 < solved < 0.95)

    def test_killed_while_it_publishes_the_manifest_it_continues(self):
        self.expect(self.generate(), 0)
        before = tree(self.folder / "data")
        document = json.loads((self.folder / "data/manifest.json").read_text())
        for split in document["splits"].values():
            for entry in split["shards"]:
                publish_with_record(self.folder / "data" / (entry["file"] + ".json"), json.dumps({"settings": document["settings"], "entry": entry}))
        entries = tree(self.folder / "data").keys() - before.keys()
        saved = {name: (self.folder / "data" / name).read_bytes() for name in entries}
        (self.folder / "data/manifest.json.sha256").unlink()
        self.expect(self.generate(), 0, "11 of 11 shards were there already")
        self.assertEqual(tree(self.folder / "data"), before)
        for name, content in saved.items():  # over another manifest, whose record still lies there
            (self.folder / "data" / name).write_bytes(content)
        publish_with_record(self.folder / "data/manifest.json", json.dumps({**document, "statistics": None}))
        (self.folder / "data/manifest.json").write_text(json.dumps(document, indent=1) + "\n")
        self.expect(self.generate(), 0, "11 of 11 shards were there already")
        self.assertEqual(tree(self.folder / "data"), before)

    def on_a_disk(self, mount, *arguments):
        """Generates into a folder on a disk that exists for this command only; None where that is not allowed."""
        namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
        if subprocess.run([*namespace, "true"], stderr=subprocess.DEVNULL).returncode:
            print("a disk that is full or read-only is not tested", file=sys.stderr)
            return None
        script = f'cd {self.folder} && {mount} && "$@"; code=$?; find data/train; exit $code'
        program = command("generate_trajectories", "--dataset.path", self.folder / "data", *arguments)
        return subprocess.run([*namespace, "bash", "-c", script, "bash", *program], capture_output=True, text=True, timeout=60, env=ENVIRONMENT)

    def test_a_full_disk_leaves_whole_files_only(self):
        (self.folder / "data").mkdir()
        if result := self.on_a_disk("mount -t tmpfs -o size=1m none data", "--dataset.trajectories_per_shard", 200):
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
            self.expect(self.on_a_disk(read_only), 0, "11 of 11 shards were there already")

    def test_a_disk_that_takes_no_more_leaves_no_half_file(self):
        large = ("--dataset.trajectories_per_shard", 200)  # 0.3 MB a shard
        self.expect(self.generate(*large, path=self.folder / "unbroken"), 0)
        launcher, ranks, *program = command("generate_trajectories", "--dataset.path", self.folder / "data", *large)
        limited = [launcher, ranks, "bash", "-c", 'trap "" XFSZ; ulimit -f 128; exec "$@"', "bash", *program]
        result = subprocess.run(limited, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
        self.expect(result, 74, "disk full")
        self.assertIn(str(self.folder / "data/train/shard_00000.h5"), result.stderr)
        self.assertEqual(list((self.folder / "data/train").iterdir()), [])
        self.expect(self.generate(*large), 0)
        self.assertEqual(tree(self.folder / "unbroken"), tree(self.folder / "data"))

    def test_only_a_damaged_shard_is_made_again(self):
        self.expect(self.generate(), 0)
        before = tree(self.folder / "data")
        shard = self.folder / "data/train/shard_00001.h5"
        shard.write_bytes(shard.read_bytes()[:-1])
        self.expect(self.generate(), 0, "10 of 11 shards were there already")
        self.assertEqual(tree(self.folder / "data"), before)

    def test_a_target_it_may_not_touch_stays_as_it_is(self):
        self.expect(self.generate(), 0)
        before = tree(self.folder / "data")
        self.expect(self.generate("--dataset.force_noise", "0.2", ranks=2), 78, "dataset.force_noise 0.1, not 0.2")
        foreign = self.folder / "data/test/shard_00009.h5"
        foreign.write_text("mine")
        self.expect(self.generate(ranks=2), 65, f"{foreign} does not belong to this dataset")
        foreign.unlink()
        self.assertEqual(tree(self.folder / "data"), before)
        mine = self.folder / "other/train/shard_00000.h5"  # of an expected name
        mine.parent.mkdir(parents=True)
        mine.write_text("mine")
        self.expect(self.generate(path=self.folder / "other", ranks=2), 65, f"{mine} does not belong to this dataset")
        self.assertEqual(mine.read_text(), "mine")
        self.expect(self.generate(path="/dev/null/data", ranks=2), 74, "/dev/null/data")

    def test_an_unfinished_dataset_of_other_settings_or_schema_is_refused(self):
        self.expect(self.generate(), 0)
        manifest = self.folder / "data/manifest.json"
        document = json.loads(manifest.read_text())
        publish_with_record(manifest, json.dumps({**document, "schema_version": 7}))
        self.expect(self.generate(ranks=2), 65, "is of schema 7")
        publish_with_record(manifest, "{}")
        self.expect(self.generate(ranks=2), 65, "is not a manifest of this program")
        manifest.write_text(json.dumps(document))
        self.expect(self.generate(ranks=2), 65, "does not match its SHA-256 record")
        (self.folder / "data/manifest.json.sha256").unlink()  # a former program's
        self.expect(self.generate(ranks=2), 65, "has no commit record manifest.json.sha256")
        manifest.unlink()  # killed before the manifest: the entries still lie beside the shards
        entry = document["splits"]["test"]["shards"][0]
        publish_with_record(self.folder / "data" / (entry["file"] + ".json"), json.dumps({"settings": document["settings"], "entry": entry}))
        before = tree(self.folder / "data")
        self.expect(self.generate("--dataset.force_noise", "0.2", ranks=2), 78, "dataset.force_noise 0.1, not 0.2")
        self.assertEqual(tree(self.folder / "data"), before)

    def test_three_lines_of_h5py_read_a_shard(self):
        import h5py
        self.expect(self.generate(), 0)
        with h5py.File(self.folder / "data/train/shard_00000.h5") as shard:
            state, force = shard["state"][:], shard["force_applied"][:]
            self.assertEqual(state.shape, (16, 65, 4))
            self.assertEqual(force.shape, (16, 64))
            self.assertLessEqual(abs(force).max(), 10.0)
            self.assertTrue(shard["params"].attrs["unit"].startswith("kg, kg, m"))
            self.assertEqual(shard["success"][:].tolist(), [1] * 16)


    def test_a_sheet_is_drawn_of_what_is_intact(self):
        self.expect(self.generate(), 0)
        draw = [ROOT / ".venv/bin/python", ROOT / "tools/dataset_sheet.py", self.folder / "data"]
        self.expect(subprocess.run(draw, capture_output=True, text=True, timeout=120), 0)
        self.assertTrue((self.folder / "data/sheet.png").read_bytes().startswith(b"\x89PNG"))
        self.expect(subprocess.run([*draw, "--out", self.folder / "none/sheet.png"], capture_output=True, text=True, timeout=120), 74, "none/sheet.png")
        shard = self.folder / "data/train/shard_00000.h5"
        shard.write_bytes(shard.read_bytes()[:-1])
        self.expect(subprocess.run(draw, capture_output=True, text=True, timeout=120), 65, f"{shard} is damaged")


class Train(ProgramTest):
    @classmethod
    def setUpClass(cls):
        cls.shared = tempfile.mkdtemp(prefix="cartpole_data_")
        cls.data = Path(cls.shared) / "data"
        assert run("generate_trajectories", "--dataset.path", cls.data).returncode == 0

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.shared)

    def test_training_signature(self):
        """The loss after 20 fixed steps, to six digits. A commit that changes it says so, and why."""
        self.expect(self.train(), 0, "done: step 20")
        golden = float((ROOT / "tests/golden/training_signature.txt").read_text().split()[0])
        loss = metrics(self.folder / "run")[-1][1]
        self.assertAlmostEqual(loss / golden, 1.0, delta=1e-4, msg=f"signature {loss:.6f}, recorded {golden:.6f}")

    def test_every_rank_count_trains_on_the_same_global_batches(self):
        runs = {}
        for ranks in (1, 2, 4):
            out = self.folder / str(ranks)
            self.expect(self.train("--training.batch_size", 8 // ranks, out=out, ranks=ranks), 0)
            runs[ranks] = metrics(out)
        for ranks in (2, 4):
            for alone, together in zip(runs[1], runs[ranks], strict=True):
                self.assertAlmostEqual(alone[1] / together[1], 1.0, delta=1e-3)

    def test_a_run_stopped_by_usr1_and_resumed_equals_an_unbroken_one(self):
        steps = ("--training.train_steps", 400, "--training.save_every_steps", 100)
        self.expect(self.train(*steps, out=self.folder / "unbroken", ranks=2), 0)
        out = self.folder / "stopped"
        legs = 0
        while True:
            process = subprocess.Popen(command("train_gpt2", "--dataset.path", self.data, "--out_dir", out, *steps, ranks=2),
                                       stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
            metrics_file = out / "metrics.jsonl"
            size = metrics_file.stat().st_size if metrics_file.exists() else 0
            while legs < 2 and process.poll() is None and (not metrics_file.exists() or metrics_file.stat().st_size < size + 4000):
                time.sleep(0.02)
            if legs < 2:
                process.send_signal(signal.SIGUSR1)
            output, _ = process.communicate(timeout=120)
            if process.returncode != 75:
                break
            self.assertIn("saved, leaving as asked", output)
            legs += 1
        self.assertEqual(process.returncode, 0, output)
        self.assertEqual(legs, 2)
        self.assertEqual(metrics(self.folder / "unbroken"), metrics(out))
        same_state(self, self.folder / "unbroken/state.pt", out / "state.pt")

    def test_no_thread_runs_a_handler_when_asked_to_leave(self):
        """A handler's frame corrupts the heap while oneDNN's matrix products use the stack pointer for data."""
        out = self.folder / "run"
        process = subprocess.Popen(command("train_gpt2", "--dataset.path", self.data, "--out_dir", out, "--training.train_steps", 100000, ranks=2),
                                   stdout=subprocess.DEVNULL, env=ENVIRONMENT)
        while not (out / "metrics.jsonl").exists():
            time.sleep(0.02)
        usr1 = 1 << (signal.SIGUSR1 - 1)
        ranks = processes("train_gpt2", out)
        for rank in ranks:
            sets = dict(line.split(":\t") for line in Path(f"/proc/{rank}/status").read_text().splitlines() if line.startswith("Sig"))
            self.assertTrue(int(sets["SigBlk"], 16) & usr1)
            self.assertFalse(int(sets["SigCgt"], 16) & usr1)
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(process.wait(timeout=60), 75)
        self.assertEqual(len(ranks), 2)

    def test_a_killed_rank_ends_the_job_and_the_run_resumes_exactly(self):
        steps = ("--training.train_steps", 400, "--training.save_every_steps", 50)
        self.expect(self.train(*steps, out=self.folder / "unbroken", ranks=2), 0)
        out = self.folder / "killed"
        train = command("train_gpt2", "--dataset.path", self.data, "--out_dir", out, *steps, ranks=2)
        code, output, _ = self.after_signal_to_a_rank(signal.SIGKILL, train, out, ENVIRONMENT, timeout=10)
        self.assertNotEqual(code, 0, output)
        self.expect(self.train(*steps, out=out, ranks=2), 0, "resumed at step")
        self.assertEqual(metrics(self.folder / "unbroken"), metrics(out))
        same_state(self, self.folder / "unbroken/state.pt", out / "state.pt")

    def test_a_rank_that_stands_still_ends_the_job_and_the_run_resumes_exactly(self):
        steps = ("--training.train_steps", 400, "--training.save_every_steps", 50, "--training.hang_seconds", 2)
        self.expect(self.train(*steps, out=self.folder / "unbroken", ranks=2), 0)
        out = self.folder / "stopped"
        train = command("train_gpt2", "--dataset.path", self.data, "--out_dir", out, *steps, ranks=2)
        code, output, _ = self.after_signal_to_a_rank(signal.SIGSTOP, train, out, ENVIRONMENT, timeout=30)
        self.assertEqual(code, 76, output)
        self.assertIn("no progress for 2 s while training up to step", output)
        self.assertEqual(processes("train_gpt2", out), [])
        self.expect(self.train(*steps, out=out, ranks=2), 0, "resumed at step")
        self.assertEqual(metrics(self.folder / "unbroken"), metrics(out))
        same_state(self, self.folder / "unbroken/state.pt", out / "state.pt")

    def test_a_gpu_that_is_not_there_is_said_before_anything_is_written(self):
        result = self.train("--device", "cuda", ranks=2)
        no_cuda = "built without CUDA" in result.stderr
        self.assertEqual(result.returncode, 78 if no_cuda else 69, result.stderr)
        self.assertRegex(result.stderr, f"rank 0, on {os.uname().nodename}, sees no GPU: .*set device to cpu|built without CUDA")
        self.assertEqual(result.stderr.count("device to cpu"), 1, result.stderr)
        self.assertFalse((self.folder / "run").exists())
        if not no_cuda:  # a node that lost all GPUs that Slurm granted is no CPU node
            granted = subprocess.run(command("train_gpt2", "--dataset.path", self.data, "--out_dir", self.folder / "run", ranks=2),
                                     capture_output=True, text=True, timeout=120, env={**ENVIRONMENT, "SLURM_GPUS_ON_NODE": "2"})
            self.expect(granted, 69, "sees no GPU")
        self.expect(self.train("--device", "cpu"), 0, "device       1 x CPU")
        self.expect(run("evaluate_policy", "--dataset.path", self.data, "--out_dir", self.folder / "run", "--device", "cuda"),
                    78 if no_cuda else 69, "device to cpu")

    def test_a_complete_run_is_left_alone(self):
        self.expect(self.train(), 0)
        before = tree(self.folder / "run")
        self.expect(self.train(), 0, "nothing to do")
        self.assertEqual(tree(self.folder / "run"), before)
        self.assertEqual((self.folder / "run/DONE").read_text(), "20\n")

    def test_checkpoints_open_in_plain_python(self):
        self.expect(self.train(), 0)
        state = torch.load(self.folder / "run/checkpoint_20.pt")
        self.assertEqual(state["step"], 20)
        self.assertEqual(state["model"]["transformer.h.1.attn.c_attn.weight"].shape, (16, 48))
        self.assertEqual(state["exp_avg"].keys(), state["model"].keys())
        self.assertEqual(sum(tensor.numel() for tensor in state["model"].values()), 7147)
        self.assertEqual(state["model"]["force_head.bias"].untyped_storage().nbytes(), 4)  # not the whole buffer
        self.assertIn("n_embd: 16", state["config"])
        record = (self.folder / "run/checkpoint_20.pt.sha256").read_text().split()
        self.assertEqual(record[0], hashlib.sha256((self.folder / "run/checkpoint_20.pt").read_bytes()).hexdigest())
        kept = sorted(path.name for path in (self.folder / "run").glob("checkpoint_*.pt"))
        self.assertEqual(kept, ["checkpoint_10.pt", "checkpoint_15.pt", "checkpoint_20.pt"])

    def test_a_damaged_checkpoint_is_passed_over_and_all_damaged_refused(self):
        self.expect(self.train(), 0)
        out = self.folder / "run"
        newest = out / "checkpoint_20.pt"
        shutil.copy(newest, self.folder / "intact.pt")
        newest.write_bytes(newest.read_bytes()[:-1])
        self.expect(self.train(), 0, "passing over", "resumed at step 15")
        same_state(self, self.folder / "intact.pt", newest)
        for checkpoint in out.glob("checkpoint_*.pt"):
            checkpoint.write_bytes(b"")
        before = tree(out)
        result = self.train(ranks=2)
        self.assertEqual(result.returncode, 65, result.stderr)
        self.assertIn("is valid: restore one", result.stderr)
        self.assertEqual(tree(out), before)

    def test_bad_input_is_said_once_by_name_and_changes_nothing(self):
        self.expect(self.train(), 0)
        out = self.folder / "run"
        before = tree(out)
        self.expect(self.train("--model.n_layers", 2, ranks=2), 78, "model.n_layers")
        self.expect(self.train("--training.batch_size", 8, ranks=2), 78, "2 ranks x training.batch_size 8")
        self.expect(self.train("--model.n_embd", 32, ranks=2), 78, "model.n_embd was 16 and is now 32")
        self.expect(self.train("--seed", 5, ranks=2), 78, "seed was 0 and is now 5")
        self.expect(self.train(data=self.folder / "nothing", out=self.folder / "new", ranks=2), 65, "nothing/manifest.json does not exist")
        self.expect(self.train(data=self.folder / "nothing", ranks=2), 74, "is its file system mounted?")  # it was there before
        self.assertEqual(tree(out), before)
        self.expect(self.train(out="/dev/null/run", ranks=2), 74, "/dev/null/run")

    def test_a_run_is_never_a_mixture(self):
        derived = ("--training.global_batch_size", 0)  # batch_size x ranks
        self.expect(self.train(*derived, ranks=2), 0)
        out = self.folder / "run"
        self.expect(self.train(*derived, ranks=1), 78, "training.global_batch_size was 8 and is now 4")
        self.expect(self.train("--training.batch_size", 8, *derived, ranks=1), 0, "nothing to do")
        for checkpoint in out.glob("*.pt*"):
            checkpoint.unlink()
        before = tree(out)
        self.expect(self.train("--model.n_embd", 32, ranks=2), 78, "model.n_embd was 16 and is now 32")
        self.assertEqual(tree(out), before)

    def test_two_processes_never_write_one_run(self):
        long = ("--training.train_steps", 100000)
        first = subprocess.Popen(command("train_gpt2", "--dataset.path", self.data, "--out_dir", self.folder / "run", *long),
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
        while not (self.folder / "run/metrics.jsonl").exists():
            time.sleep(0.05)
        self.expect(self.train(*long, ranks=2), 78, "another process writes to")
        first.send_signal(signal.SIGUSR1)
        self.assertEqual(first.wait(timeout=30), 75)

    def test_a_later_start_of_the_same_slurm_job_takes_the_run_over(self):
        """Slurm starts a job again when it loses sight of a node, on which the former ranks may live on."""
        steps = ("--training.train_steps", 3000, "--training.save_every_steps", 100)
        self.expect(self.train(*steps, out=self.folder / "unbroken", ranks=2), 0)
        out = self.folder / "run"
        first = subprocess.Popen(command("train_gpt2", "--dataset.path", self.data, "--out_dir", out, *steps, ranks=2), text=True,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**ENVIRONMENT, "SLURM_JOB_ID": "7"})
        while not (out / "checkpoint_200.pt.sha256").exists():
            time.sleep(0.02)
        other = {**ENVIRONMENT, "SLURM_JOB_ID": "8", "SLURM_RESTART_COUNT": "1"}
        second = command("train_gpt2", "--dataset.path", self.data, "--out_dir", out, *steps, ranks=2)
        self.expect(subprocess.run(second, capture_output=True, text=True, env=other), 78, "another process writes to")
        again = {**ENVIRONMENT, "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}
        self.expect(subprocess.run(second, capture_output=True, text=True, env=again), 0, "resumed at step")
        said = first.communicate(timeout=30)[1]
        self.assertEqual(first.returncode, 78, said)
        self.assertIn(f"a later start has taken over {out}: this one leaves without writing to it", said)
        self.assertEqual(metrics(self.folder / "unbroken"), metrics(out))
        same_state(self, self.folder / "unbroken/state.pt", out / "state.pt")

    def test_a_launcher_of_another_mpi_is_refused(self):
        for name in ("PMI_SIZE", "SLURM_STEP_NUM_TASKS"):
            alone = subprocess.run([BUILD / "train_gpt2", "--config", ROOT / "tests/tiny.yaml", "--out_dir", self.folder / "run"],
                                   capture_output=True, text=True, env={**ENVIRONMENT, name: "2"})
            self.expect(alone, 78, f"the launcher started 2 tasks ({name}), but each is alone")
        # A PMIx that this Open MPI does not speak to, as in a container.
        alone = subprocess.run([BUILD / "train_gpt2", "--config", ROOT / "tests/tiny.yaml", "--out_dir", self.folder / "run"],
                               capture_output=True, text=True, env={**ENVIRONMENT, "PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "2"})
        self.expect(alone, 78, "the launcher started 2 tasks (SLURM_STEP_NUM_TASKS), but each is alone")

    def test_host_files_are_checked_before_ranks_start(self):
        hosts, missing = self.folder / "hosts", self.folder / "missing"
        hosts.write_text("# none\n\n")
        def launch(*arguments):
            return subprocess.run([ROOT / "launch/multinode.sh", *arguments], capture_output=True, text=True,
                                  env={**ENVIRONMENT, "OMPI_MCA_plm_rsh_agent": "false"})
        train = (BUILD / "train_gpt2", "--config", TINY, "--dataset.path", self.data, "--out_dir", self.folder / "run")
        self.expect(launch(), 64, "launch/multinode.sh HOSTFILE PROGRAM")
        self.expect(launch(missing, *train), 78, f"there is no host file {missing}")
        self.expect(launch(hosts, *train), 78, f"{hosts} names no machine")
        hosts.write_text("localhost slots=2\nelsewhere slots=2\n")
        self.expect(launch(hosts, *train), 78, "elsewhere cannot be reached without a password (false elsewhere)")
        hosts.write_text("localhost slots=2\n")
        self.expect(launch(hosts, BUILD / "none"), 78, f"there is no program {BUILD}/none")
        self.expect(launch(hosts, *train), 0)
        self.assertTrue((self.folder / "run/DONE").exists())

    def test_a_lost_done_file_comes_back_and_odd_names_resume(self):
        out = self.folder / "@run: 'odd'"
        self.expect(self.train(out=out), 0)
        (out / "DONE").unlink()
        self.expect(self.train(out=out), 0, "nothing to do")
        self.assertEqual((out / "DONE").read_text(), "20\n")

    def test_a_damaged_dataset_is_refused_before_the_first_step(self):
        copy = self.folder / "copy"
        shutil.copytree(self.data, copy)
        shard = copy / "train/shard_00002.h5"
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
        self.expect(self.train(data=copy, ranks=2), 65, f"{shard} is damaged")
        shard.write_bytes(content[:-8])
        self.expect(self.train(data=copy, ranks=2), 65, f"{shard} has {len(content) - 8} bytes instead of {len(content)}")
        extra = copy / "train/shard_00009.h5"
        extra.touch()
        self.expect(self.train(data=copy, ranks=2), 65, f"{extra} is not listed in manifest.json")
        extra.unlink()
        shard.unlink()
        self.expect(self.train(data=copy, ranks=2), 65, f"{shard} is missing")
        manifest = json.loads((copy / "manifest.json").read_text())
        publish_with_record(copy / "manifest.json", json.dumps({**manifest, "schema_version": 7}))
        self.expect(self.train(data=copy), 65, "is of schema 7")
        (copy / "manifest.json").write_text(json.dumps(manifest))
        self.expect(self.train(data=copy, ranks=2), 65, "does not match its SHA-256 record")
        self.assertFalse((self.folder / "run").exists())

    def test_a_run_that_cannot_save_goes_on_and_gives_up_after_three_tries(self):
        out = self.folder / "run"
        steps = ("--training.train_steps", 1000000, "--training.epochs", 100000000, "--training.save_every_steps", 1000, "--training.log_every_steps", 1000)
        launcher, ranks, *program = command("train_gpt2", "--dataset.path", self.data, "--out_dir", out, *steps, ranks=2)
        process = subprocess.Popen([launcher, ranks, "bash", "-c", 'trap "" XFSZ; exec "$@"', "bash", *program], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        while not (out / "metrics.jsonl").exists():
            time.sleep(0.01)
        # Once MPI has made its own files, no file may grow beyond 32 KiB; a checkpoint has 97.
        for rank in processes("train_gpt2", out):
            resource.prlimit(rank, resource.RLIMIT_FSIZE, (32768, 32768))
        stdout, stderr = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 74, stderr)
        self.assertIn("warning: no checkpoint at step 1000: cannot write", stdout)
        self.assertIn("3 checkpoints in a row", stderr)
        self.assertEqual(list(out.glob("checkpoint_*")), [])

    def test_training_is_refused_on_a_dataset_that_was_made_otherwise(self):
        for key, there, other in (("force_noise", 0.1, 0.7), ("seed", 1, 99), ("train_shards", 3, 2)):
            said = f"{self.data} holds a dataset made with dataset.{key} {there}, not {other}: restore the setting"
            self.expect(self.train(f"--dataset.{key}", other, ranks=2), 78, said)
            self.expect(self.train(f"--dataset.{key}", other, "--dry_run", ranks=2), 78, said)
        self.assertFalse((self.folder / "run").exists())

    def test_what_it_did_not_make_is_never_removed_or_replaced(self):
        out = self.folder / "run"
        (out / "state.pt").mkdir(parents=True)
        mine = {name: f"mine: {name}" for name in ("my_notes.tmp", "checkpoint_3.pt", "checkpoint_10.pt", "checkpoint_4.pt.tmp", "notes.txt")}
        for name, text in mine.items():
            (out / name).write_text(text)
        result = self.train(ranks=2)  # none of the checkpoints is one
        self.assertEqual(result.returncode, 65)
        for name in ("checkpoint_3.pt", "checkpoint_10.pt"):
            (out / name).rename(out / f"moved_{name}")
        process = subprocess.Popen(command("train_gpt2", "--dataset.path", self.data, "--out_dir", out, "--training.train_steps", 900,
                                           "--training.save_every_steps", 300, ranks=2), stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        while not (out / "metrics.jsonl").exists():
            time.sleep(0.01)
        (out / "checkpoint_3.pt").write_text(mine["checkpoint_3.pt"])
        (out / "checkpoint_600.pt").write_text("mine too")
        said, _ = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 0, said)
        self.assertIn("checkpoint_600.pt had no commit record and is now checkpoint_600.pt.unrecorded", said)
        self.assertEqual((out / "checkpoint_600.pt.unrecorded").read_text(), "mine too")
        self.assertEqual(torch.load(out / "checkpoint_600.pt")["step"], 600)
        self.assertTrue((out / "state.pt").is_dir())
        for name in ("my_notes.tmp", "checkpoint_3.pt", "checkpoint_4.pt.tmp", "notes.txt"):
            self.assertEqual((out / name).read_text(), mine[name])
        for name in ("metrics.jsonl", "DONE"):
            other = self.folder / f"other_{name}"
            other.mkdir()
            (other / name).write_text('{"step":7,"mine":1}\n')
            self.expect(self.train(out=other, ranks=2), 78, f"{other}/{name} is there, but no config.yaml of a run")
            self.assertEqual((other / name).read_text(), '{"step":7,"mine":1}\n')

    def test_the_configuration_it_keeps_is_read_alike_by_other_programs(self):
        notes = "two\nlines: \"quoted\" and 'so'"
        self.expect(self.train("--training.learning_rate", "1e-5", "--training.weight_decay", "1", "--wandb.notes", notes, "--wandb.name", "007"), 0)
        config = yaml.safe_load((self.folder / "run/config.yaml").read_text())
        self.assertEqual(config["training"]["learning_rate"], 1e-5)
        self.assertIsInstance(config["training"]["weight_decay"], float)
        self.assertIsInstance(config["training"]["train_steps"], int)
        self.assertIs(config["training"]["cuda_graphs"], True)
        self.assertEqual(config["model"]["feature_scales"], [1.0, 1.0, 0.3, 1.0, 2.0, 10.0])
        self.assertEqual((config["wandb"]["notes"], config["wandb"]["name"]), (notes, "007"))
        self.assertEqual(torch.load(self.folder / "run/state.pt")["config"], (self.folder / "run/config.yaml").read_text())
        # Written before numbers had a point: the same run.
        old = (self.folder / "run/config.yaml").read_text().replace("weight_decay: 1.0", "weight_decay: 1")
        for path in (self.folder / "run").glob("*"):
            path.unlink()
        (self.folder / "run/config.yaml").write_text(old)
        self.expect(self.train("--training.learning_rate", "1e-5", "--training.weight_decay", "1"), 0)

    def test_a_copied_checkpoint_is_recognised_or_explained(self):
        self.expect(self.train(), 0)
        out = self.folder / "run"
        evaluate = ("evaluate_policy", "--dataset.path", self.data, "--out_dir", out, "--evaluation.checkpoint")
        copy, renamed = self.folder / "copy.pt", self.folder / "kept/checkpoint_20.pt"
        shutil.copy(out / "checkpoint_20.pt", copy)
        self.expect(run(*evaluate, copy), 65, f"{copy} has no commit record copy.pt.sha256", "sha256sum copy.pt >copy.pt.sha256")
        shutil.copy(out / "checkpoint_20.pt.sha256", f"{copy}.sha256")
        self.expect(run(*evaluate, copy), 65, "is whole, but was renamed: its record is of checkpoint_20.pt")
        subprocess.run("sha256sum copy.pt >copy.pt.sha256", shell=True, check=True, cwd=self.folder)
        self.expect(run(*evaluate, copy), 0)
        renamed.parent.mkdir()
        for end in ("", ".sha256"):
            shutil.copy(f"{out}/checkpoint_20.pt{end}", f"{renamed}{end}")
        self.expect(run(*evaluate, renamed), 0)

    def test_a_process_that_was_suspended_is_not_taken_for_hanging(self):
        out = self.folder / "run"
        train = [BUILD / "train_gpt2", "--config", TINY, "--dataset.path", self.data, "--out_dir", out, "--training.hang_seconds", "2",
                 "--training.train_steps", "1000000", "--training.epochs", "100000000"]
        process = subprocess.Popen(train, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        while not (out / "metrics.jsonl").exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGSTOP)
        time.sleep(6)
        process.send_signal(signal.SIGCONT)
        time.sleep(1)
        process.send_signal(signal.SIGUSR1)
        said = process.communicate(timeout=60)[1]
        self.assertEqual(process.returncode, 75, said)

    def test_a_run_that_is_too_short_for_its_warm_up_says_so(self):
        self.expect(self.train("--training.warmup_steps", 30, ranks=2), 0, "warning: training.warmup_steps 30 is not less than the 20 steps of the run")

    def test_a_rank_that_stands_still_before_the_first_step_ends_the_job(self):
        many = ("--dataset.train_shards", 12, "--dataset.trajectories_per_shard", 3000)
        data, out = self.folder / "data", self.folder / "run"
        self.expect(self.generate(*many, path=data, ranks=2), 0)
        train = command("train_gpt2", "--dataset.path", data, "--out_dir", out, *many, "--training.hang_seconds", 1, ranks=2)
        process = subprocess.Popen(train, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT)

        def verifying():
            for rank in processes("train_gpt2", out):
                try:
                    if any("shard_" in os.readlink(file) for file in Path(f"/proc/{rank}/fd").iterdir()):
                        return rank
                except OSError:  # closed meanwhile
                    pass
            return None
        while not (rank := verifying()):
            self.assertIsNone(process.poll())
        os.kill(rank, signal.SIGSTOP)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 76, output)
        self.assertRegex(output, r"no progress for \d+ s while verifying the dataset")

    def test_a_gradient_that_is_never_finite_stops_the_run(self):
        result = self.train("--training.learning_rate", 10, "--training.gradient_clip", 1e9, "--training.warmup_steps", 0,
                            "--model.feature_scales", "[1e-30, 1e-30, 1e-30, 1e-30, 1e-30, 1e-30]", ranks=2)
        self.expect(result, 93, "the gradient was not finite")

    def test_evaluation_judges_every_policy_and_report_draws_it(self):
        self.expect(run("evaluate_policy", "--dataset.path", self.data, "--out_dir", self.folder / "run"), 65,
                    "no checkpoint in")
        self.expect(self.train(), 0)
        result = run("evaluate_policy", "--dataset.path", self.data, "--out_dir", self.folder / "run",
                     "--evaluation.steps", 1024)
        self.expect(result, 0)
        evaluation = json.loads((self.folder / "run/evaluation/evaluation.json").read_text())
        for split in ("test", "test_ood", "test_ic"):
            policies = evaluation["splits"][split]["closed_loop"]
            self.assertEqual(list(policies), ["model", "expert", "nominal_expert", "stabiliser", "zero_force"])
            for values in policies.values():
                self.assertEqual(values["n"], 20)
                self.assertLessEqual(values["interval"][0], values["success"])
                self.assertGreaterEqual(values["interval"][1], values["success"])
        test = evaluation["splits"]["test"]["closed_loop"]
        self.assertGreater(test["expert"]["success"], 0.8)
        self.assertEqual(test["zero_force"]["success"], 0.0)
        report = subprocess.run([sys.executable, ROOT / "tools/report.py", self.folder / "run"], capture_output=True, text=True)
        self.assertEqual(report.returncode, 0, report.stderr)
        page = (self.folder / "run/evaluation/report.html").read_text()
        self.assertGreater(page.count("data:image/"), 4)
        self.assertNotIn("http://", page.replace("http://www.w3.org", ""))

    def test_a_dry_run_tells_the_cost_and_writes_nothing(self):
        result = self.train("--dry_run", ranks=2)
        self.expect(result, 0, "7,147 parameters", "2 ranks x 4", "per rank", "checkpoints", "nothing was trained or written")
        self.assertFalse((self.folder / "run").exists())
        self.expect(self.train("--dry_run", data=self.folder / "nothing", ranks=2), 65, "nothing/manifest.json does not exist",
                    "7,147 parameters")
        self.expect(run("evaluate_policy", "--dry_run"), 78, "--dry_run belongs to train_gpt2")

    def test_scripts_can_ask_for_a_setting(self):
        def show(key, *arguments):
            return subprocess.run([BUILD / "train_gpt2", "--config", TINY, "--show", key, *arguments], capture_output=True, text=True)
        self.assertEqual(show("model.n_embd").stdout, "16\n")
        self.assertEqual(show("out_dir", "--out_dir", "a b").stdout, "a b\n")
        self.expect(show("no.key"), 78, "--show: unknown key no.key")

    def test_the_seeds_width_starts_on_a_cpu(self):
        """conf/cartpole_aidan.yaml with its real network and batch, at its first window, on a small dataset of its length; in fp32, as old processors need it."""
        data = ("--dataset.path", self.folder / "data", "--dataset.train_shards", 1, "--dataset.trajectories_per_shard", 32,
                "--dataset.evaluation_trajectories", 16)
        config = ROOT / "conf/cartpole_aidan.yaml"
        self.expect(run("generate_trajectories", *data, config=config), 0)
        result = run("train_gpt2", *data, "--out_dir", self.folder / "run", "--training.train_steps", 3,
                     "--training.curriculum.points.end", 128, "--training.precision", "fp32", "--training.validate_every_steps", 0, config=config)
        self.expect(result, 0, "50,972,683 parameters", "done: step 3")

    def test_precision_schedule_and_stages_train_and_resume(self):
        data = self.folder / "staged"
        staged = ("--dataset.stage_shares", "[0.2, 0.2, 0.2, 0.2, 0.2]", "--training.curriculum.stages", "true")
        self.expect(self.generate(*staged[:2], path=data), 0)
        options = (*staged, "--training.precision", "bf16", "--training.schedule", "cosine", "--training.train_steps", 200,
                   "--training.save_every_steps", 50, "--training.validate_every_steps", 100, "--validation.trajectories", 8)
        self.expect(self.train(*options, out=self.folder / "unbroken", data=data, ranks=2), 0)
        out = self.folder / "stopped"
        process = subprocess.Popen(command("train_gpt2", "--dataset.path", data, "--out_dir", out, *options, ranks=2),
                                   stdout=subprocess.DEVNULL, env=ENVIRONMENT)
        while not (out / "metrics.jsonl").exists() or (out / "metrics.jsonl").stat().st_size < 4000:
            time.sleep(0.01)
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(process.wait(timeout=60), 75)
        self.expect(self.train(*options, out=out, data=data, ranks=2), 0, "resumed at step")
        self.assertEqual(metrics(self.folder / "unbroken"), metrics(out))
        same_state(self, self.folder / "unbroken/state.pt", out / "state.pt")
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        stages = {line["step"]: line["stage"] for line in lines if "loss" in line}
        self.assertEqual([stages[step] for step in (10, 11, 24, 25, 40, 41, 60, 61, 200)], [0, 1, 1, 2, 2, 3, 3, 4, 4])

    def test_validation_keeps_the_best_checkpoint(self):
        options = ("--training.train_steps", 60, "--training.validate_every_steps", 10, "--validation.trajectories", 12,
                   "--training.keep_last", 2)
        self.expect(self.train(*options, ranks=2), 0, "the best so far")
        out = self.folder / "run"
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        validations = [line for line in lines if "success" in line]
        self.assertEqual([line["step"] for line in validations], [10, 20, 30, 40, 50, 60])
        decays_from = 42  # the last 30 % of 60 steps
        late = [line for line in validations if line["step"] > decays_from]
        best = max(late, key=lambda line: (line["success"], line["step"]))
        link = torch.load(out / "checkpoint_best.pt")
        self.assertEqual((link["step"], link["best_step"]), (best["step"], best["step"]))
        self.assertEqual(link["best_success"], best["success"])
        self.assertEqual(hashlib.sha256((out / "checkpoint_best.pt").read_bytes()).hexdigest(),
                         (out / f"checkpoint_{best['step']}.pt.sha256").read_text().split()[0])
        self.assertTrue([line for line in lines if "loss" in line and line["data_wait_share"] < 0.5])

    def test_running_out_of_memory_says_what_to_change(self):
        train = command("train_gpt2", "--dataset.path", self.data, "--out_dir", self.folder / "run",
                        "--training.batch_size", 1 << 17, "--training.global_batch_size", 1 << 17,
                        "--training.curriculum.points.start", 16)
        result = subprocess.run(["bash", "-c", 'ulimit -v 4000000; exec "$@"', "bash", *train], capture_output=True, text=True,
                                timeout=120, env=ENVIRONMENT)
        self.expect(result, 78, "out of memory at training.batch_size 131072",
                    "Set training.batch_size 65536 and training.global_batch_size 131072: the same training in less memory")

    def test_the_launcher_relays_to_wandb_when_asked_and_training_does_not_care(self):
        out = self.folder / "run"
        self.expect(self.train("--wandb.mode", "offline", "--wandb.log_every_steps", 5), 0)
        for _ in range(300):
            if (out / "relay.log").exists() and "20 lines" in (out / "relay.log").read_text():
                break
            time.sleep(0.1)
        self.assertIn("20 lines", (out / "relay.log").read_text())
        self.assertEqual(len(list(out.glob("wandb/offline-run-*/run-*.wandb"))), 1)
        broken = self.folder / "broken"
        broken.mkdir()
        (broken / "tensorboard").write_text("in the way")
        self.expect(self.train("--wandb.mode", "offline", out=broken), 0, "done: step 20")

    def test_troubleshooting_quotes_the_messages_word_for_word(self):
        """Every quoted message in README's troubleshooting table, cut at its placeholders, stands in the sources."""
        sources = [*(ROOT / "src").rglob("*.cpp"), *(ROOT / "datagen").glob("*.cpp"), *(ROOT / "launch").glob("*.sh"),
                   *(ROOT / "tools").glob("*.*"), ROOT / "CMakeLists.txt"]
        text = re.sub(r'"\s*\n\s*"', "", "\n".join(path.read_text() for path in sources))
        table = (ROOT / "README.md").read_text().split("## When something goes wrong")[1].split("\n## ")[0]
        messages = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
        self.assertGreater(len(messages), 12)
        for message in messages:
            pieces = [piece.strip() for piece in re.split(r"\.\.\.|\b(?:N|M|A|B|KEY)\b", message)]
            for piece in filter(lambda piece: len(piece) > 3, pieces):
                self.assertTrue(piece in text, f"{piece!r} of {message!r} stands nowhere")

    def test_help_lists_every_key(self):
        for program in ("generate_trajectories", "train_gpt2", "evaluate_policy"):
            result = subprocess.run([BUILD / program, "--help"], capture_output=True, text=True, env=ENVIRONMENT)
            self.assertEqual(result.returncode, 0)
            for key in ("--out_dir", "--model.n_embd", "--training.curriculum.points.start", "--dataset.path"):
                self.assertIn(key, result.stdout)


if __name__ == "__main__":
    unittest.main()
