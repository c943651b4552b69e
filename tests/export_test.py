"""Tests an export: all libraries that play it agree, and what is damaged is refused.

Usage: export_test.py BUILD_FOLDER
"""

import ctypes
import json
import multiprocessing
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent / "programs"))
from programs import BUILD, ENVIRONMENT, ROOT, run  # takes BUILD_FOLDER

sys.path.insert(0, str(ROOT / "tools"))
import transformers  # noqa: E402
from bench.controllers import (  # noqa: E402
    Action, InC, InOnnxRuntime, InPyTorch, InTransformers, load_library)
from bench.random_export import fnv1a, policy_bytes, write_random_export  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)  # threads that wait for each other waste the processors of other tests
OFFLINE = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
PARITY = 1e-5  # of forces over their limit, probabilities, and states in SI units
HEADER = 8 + 8 * 4 + 4 * 8 + 10 * 4 + 64  # bytes of policy.bin before the first weight
EXAMPLE = 11 * 8  # bytes of an example in it
STATUSES = range(9)  # of cartpole_policy.h
OK, NOT_A_POLICY, DAMAGED, UNSUPPORTED, WRONG_ANSWERS = 0, 3, 4, 5, 7


class Plants:
    """Cart-poles drawn from the training range, one Runge-Kutta step per period."""
    def __init__(self, count, seed):
        random = np.random.default_rng(seed)
        low, high = np.log([0.5, 0.05, 0.25]), np.log([2.0, 0.5, 1.0])
        self.cart, self.pole, self.half = np.exp(random.uniform(low, high, (count, 3))).T
        span = np.array([0.5, 0.5, np.pi, 2.0])
        self.states = random.uniform(-span, span, (count, 4))

    def rates(self, states, forces):
        _, x_dot, theta, theta_dot = states.T
        total, moment = self.cart + self.pole, self.pole * self.half
        push = (forces + moment * theta_dot**2 * np.sin(theta)) / total
        theta_ddot = (9.81 * np.sin(theta) -
                      np.cos(theta) * push) / (self.half *
                                               (4 / 3 - self.pole * np.cos(theta)**2 / total))
        x_ddot = push - moment * theta_ddot * np.cos(theta) / total
        return np.column_stack((x_dot, x_ddot, theta_dot, theta_ddot))

    def step(self, forces, h=0.02):
        a = self.rates(self.states, forces)
        b = self.rates(self.states + h / 2 * a, forces)
        c = self.rates(self.states + h / 2 * b, forces)
        d = self.rates(self.states + h * c, forces)
        self.states = self.states + h / 6 * (a + 2 * b + 2 * c + d)


def mutants(policy, count):
    """Yields damaged policies, most with a checksum that is right again."""
    random = np.random.default_rng(0)
    for k in range(count):
        data = bytearray(policy[:-8])
        kind = k % 6
        if kind in (0, 1):  # bits, everywhere or in the header
            for _ in range(random.integers(1, 9)):
                bit = random.integers(8 * (len(data) if kind == 0 else HEADER))
                data[bit // 8] ^= 1 << bit % 8
        elif kind == 2:  # counts
            for _ in range(random.integers(1, 4)):
                value = random.choice([0, 1, 2, 7, 255, 65536, 2**31, 2**32 - 1])
                struct.pack_into("<I", data, 8 + 4 * random.integers(8), value)
        elif kind == 3:  # numbers that are none, or very large
            value = random.choice([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40, 0.0])
            struct.pack_into("<f", data, 4 * random.integers(10, len(data) // 4), value)
        elif kind == 4:  # cut off, or with more behind
            data = data[:random.integers(len(data))] + random.bytes(random.integers(0, 64))
        else:  # a header of chance
            data[8:HEADER] = random.bytes(HEADER - 8)
            struct.pack_into("<2I", data, 8, 1, random.choice([8, 32]))
        checksum = struct.pack("<Q", fnv1a(bytes(data)))
        yield bytes(data) + (checksum if k % 8 else policy[-8:])


def load_all(path, policies, statuses):
    """Loads each policy and takes some steps with it; writes what loading said."""
    library = load_library(path)
    state, action = (ctypes.c_double * 4)(0.1, 0.2, 3.0, 0.4), Action()
    for k, data in enumerate(policies):
        policy = ctypes.c_void_p()
        status = library.cartpole_policy_load_bytes(data, len(data), ctypes.byref(policy))
        for _ in range(40 if policy else 0):
            library.cartpole_policy_step(policy, state, 1.0, ctypes.byref(action))
        library.cartpole_policy_free(policy)
        statuses[k] = status if bool(policy) == (status == OK) else -2


class Export(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="cartpole_export_"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        places = "--dataset.path", cls.folder / "data", "--out_dir", cls.folder
        for program in ("generate_trajectories", "train_gpt2", "export_policy"):
            result = run(program, *places, "--training.train_steps", 200)
            assert result.returncode == 0, result.stdout + result.stderr
        cls.export = cls.folder / "export"
        cls.facts = json.loads((cls.export / "controller.json").read_text())
        subprocess.run([sys.executable, ROOT / "tools/export_onnx.py", cls.export], check=True)
        cls.library = load_library(BUILD / "libcartpole_policy.so")
        cls.reference = InTransformers(cls.export)
        cls.episodes = [cls.play(seed) for seed in range(3)]

    @classmethod
    def play(cls, seed):
        """Returns the states and forces sent of an episode, many windows long, and the answers."""
        random, plant, sent = np.random.default_rng(seed), Plants(1, seed), 0.0
        cls.reference.reset()
        episode = []
        for _ in range(400):
            state = plant.states[0]
            answer = cls.reference.step(state, sent)
            episode.append((state, sent, cls.numbers(answer)))
            sent = np.clip(answer[0] + 3.0 * random.standard_normal(), -10.0, 10.0)
            plant.step(np.array([sent]))
        return episode

    @classmethod
    def numbers(cls, answer):
        force, balancing, expected = answer
        return np.array([force / cls.facts["force_limit"], balancing, *expected])

    def library_policy(self, name="policy.bin"):
        return InC(self.library, (self.export / name).read_bytes())

    def difference(self, controller):
        """Returns the largest one between the answers in all episodes."""
        largest = 0.0
        for episode in self.episodes:
            controller.reset()
            for state, sent, expected in episode:
                found = self.numbers(controller.step(state, sent))
                largest = max(largest, np.abs(found - expected).max())
        return largest

    def tool(self, name, *arguments, **environment):
        return subprocess.run([sys.executable, ROOT / name, *map(str, arguments)],
                              capture_output=True, text=True, timeout=300,
                              env=ENVIRONMENT | OFFLINE | environment)

    def test_transformers_finds_every_tensor(self):
        body, info = transformers.GPT2Model.from_pretrained(self.export, output_loading_info=True)
        self.assertFalse(info["missing_keys"])
        self.assertFalse(info["mismatched_keys"])
        heads = {
            f"{name}.{kind}" for name in ("read_in", "force_head", "mode_head", "dynamics_head")
            for kind in ("weight", "bias")
        }
        self.assertEqual(set(info["unexpected_keys"]), heads | {"feature_scales"})
        self.assertEqual(body.config.n_positions, self.facts["window"])

    def test_the_worked_example_comes_out(self):
        rows = np.genfromtxt(self.export / "example.csv", delimiter=",")[1:]
        self.assertEqual(rows.shape, (256, 11))
        self.assertGreater(np.abs(rows[:, 5]).max(), 0.1)
        for controller in (self.reference, self.library_policy()):
            controller.reset()
            for row in rows:
                found = self.numbers(controller.step(row[:4], row[4]))
                np.testing.assert_allclose(found, self.numbers((*row[5:7], row[7:])), atol=PARITY)
        result = self.tool("tools/play_export.py", self.export, "--example")
        self.assertRegex(result.stdout, r"at most \d\.\de-0[67] of the limit")

    def test_the_program_of_the_model_card_plays(self):
        programs = re.findall(r"```python\n(.*?)```", (self.export / "README.md").read_text(),
                              re.DOTALL)
        self.assertEqual(len(programs), 1)
        (self.folder / "player.py").write_text(programs[0])
        result = self.tool(self.folder / "player.py", self.export)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, r"^After 20 s the pole is (not )?up, the cart at \S+ m\.$")

    def test_it_plays_in_other_simulators(self):
        stand_ins = dict(PYTHONPATH=str(ROOT / "tests/stand_ins"))
        result = self.tool("tools/play_export.py", self.export, "--episodes", 2, "--json",
                           self.folder / "scores.json", **stand_ins)
        self.assertEqual(result.returncode, 0, result.stderr)
        scores = json.loads((self.folder / "scores.json").read_text())
        self.assertEqual(list(scores), ["swingup", "swingup_sparse", "balance", "CartPole-v1"])
        for task, row in scores.items():
            self.assertEqual((len(row["scores"]), row["episodes"]), (2, 2))
            self.assertRegex(result.stdout, rf"(?m)^{task} .* {row['mean']:.1f} .* 2$")
        self.assertGreater(scores["CartPole-v1"]["minimum"], 5)
        (self.folder / "missing").mkdir()
        for package in ("dm_control", "gymnasium", "transformers"):
            (self.folder / f"missing/{package}.py").write_text(f"raise ImportError('{package}?')")
        task = ["--tasks", "CartPole-v1"]
        for tasks, package in [([], "dm_control==1"), (task, "gymnasium==1"), ([], "transformers")]:
            name = package.split("=")[0]
            only = self.folder / f"missing_{name}"
            only.mkdir()
            shutil.copy(self.folder / f"missing/{name}.py", only)
            result = self.tool("tools/play_export.py", self.export, *tasks, PYTHONPATH=str(only))
            self.assertEqual(result.returncode, 1)
            self.assertRegex(result.stderr, rf"^play_export.py: .*pip install .*{package}.*\n$")
        both = f"{self.folder / 'missing_gymnasium'}:{ROOT / 'tests/stand_ins'}"
        result = self.tool("tools/play_export.py", self.export, PYTHONPATH=both)
        self.assertIn("pip install gymnasium", result.stderr)
        self.assertEqual(result.stdout, "")  # before it plays the first task
        result = self.tool("tools/play_export.py", self.folder / "nowhere")
        self.assertRegex(result.stderr, r"^play_export.py: \S+ is not an export: .*\n$")

    def test_the_expert_stands_up_in_other_simulators_so_state_force_and_sign_are_right(self):
        played = dict(PYTHONPATH=str(ROOT / "tests/stand_ins"))
        result = self.tool("tools/play_export.py", "--expert", BUILD / "tests/expert_force",
                           "--episodes", 3, "--json", self.folder / "expert.json", **played)
        self.assertEqual(result.returncode, 0, result.stderr)
        scores = json.loads((self.folder / "expert.json").read_text())
        self.assertEqual(scores["swingup"]["upright"], 3)
        self.assertTrue(all(1 < s < 4 for s in scores["swingup"]["seconds_until_upright"]))
        self.assertEqual(scores["balance"]["upright"], 3)
        self.assertEqual(scores["CartPole-v1"]["mean"], 500)
        for arguments, said in [
            (["--expert", "/bin/true"], "does not answer with a force"),
            (["--expert", self.folder / "nothing"], "does not answer with a force"),
            (["--expert", "/bin/true", self.export], "either an EXPORT_FOLDER or an --expert"),
            (["--expert", "/bin/true", "--example"], "--example is of an EXPORT_FOLDER"),
            ([], "either an EXPORT_FOLDER or an --expert"),
            (["--episodes", 0, self.export], "at least 1"),
        ]:
            result = self.tool("tools/play_export.py", *arguments, **played)
            self.assertNotEqual(result.returncode, 0, said)
            self.assertIn(said, result.stderr)
            self.assertNotIn("Traceback", result.stderr)

    def test_all_libraries_agree_over_whole_episodes(self):
        self.assertGreater(max(np.abs(step[2][0]) for step in self.episodes[0]), 0.1)
        self.assertLess(self.difference(InOnnxRuntime(self.export, self.facts)), PARITY)
        self.assertLess(self.difference(InPyTorch(self.export, self.facts)), PARITY)
        policy = self.library_policy()
        tried = []
        for name in ("avx512", "avx2", "plain", "neon"):
            if self.library.cartpole_policy_use(policy.policy, name.encode()) == OK:
                self.assertEqual(policy.describe().instruction_set.decode(), name)
                self.assertLess(self.difference(policy), PARITY, name)
                tried.append(name)
        self.assertTrue(tried)

    def test_they_agree_where_hardly_a_step_is_kept(self):
        random = np.random.default_rng(0)
        steps = list(zip(random.standard_normal((12, 4)), random.standard_normal(12)))
        for window in (1, 3, 4):
            folder = self.folder / f"window_{window}"
            folder.mkdir()
            write_random_export(folder, 1, 64, window)
            facts = json.loads((folder / "controller.json").read_text())
            controllers = [
                InTransformers(folder),
                InC(self.library, (folder / "policy.bin").read_bytes()),
                InOnnxRuntime(folder, facts),
                InPyTorch(folder, facts)
            ]
            for step in steps:
                answers = [self.numbers(controller.step(*step)) for controller in controllers]
                for answer in answers:
                    np.testing.assert_allclose(answer, answers[0], atol=PARITY, err_msg=folder.name)

    def test_eight_bits_are_close(self):
        policy = self.library_policy("policy_8bit.bin")
        self.assertEqual(policy.describe().bits, 8)
        self.assertLess(self.difference(policy), 0.02)

    def test_the_same_trials_end_the_same_way(self):
        count = 16

        def judge(step):
            """Returns per trial when the cart leaves the track, and whether the pole is upright."""
            plants, sent, left = Plants(count, 5), np.zeros(count), np.full(count, -1)
            for k in range(500):
                sent = step(plants.states, sent)
                plants.step(sent)
                left[(left < 0) & (np.abs(plants.states[:, 0]) > self.facts["track_limit"])] = k
            return left.tolist(), (np.cos(plants.states[:, 2]) > 0.995).tolist()

        controller = self.reference.controller
        controller.reset()
        policies = [self.library_policy() for _ in range(count)]
        self.assertEqual(
            judge(lambda states, sent: controller.step(states, sent)[0]),
            judge(lambda states, sent: np.array(
                [policy.step(*now)[0] for policy, *now in zip(policies, states, sent)])))

    def test_the_format_is_what_its_description_says(self):
        tensors = load_file(self.export / "model.safetensors")
        config = json.loads((self.export / "config.json").read_text())
        for bits, name in (32, "policy.bin"), (8, "policy_8bit.bin"):
            data = (self.export / name).read_bytes()
            self.assertEqual(struct.unpack("<Q", data[-8:])[0], fnv1a(data[:-8]))
            count, = struct.unpack_from("<I", data, 32)
            expected = policy_bytes(tensors, config, self.facts, bits)
            self.assertEqual(data[:32] + bytes(4) + data[36:-8 - count * EXAMPLE], expected[:-8])

    def test_no_damaged_file_makes_the_library_crash(self):
        found = set()
        for name in ("policy.bin", "policy_8bit.bin"):
            policies = list(mutants((self.export / name).read_bytes(), 3000))
            context = multiprocessing.get_context("fork")
            statuses = context.Array("i", [-1] * len(policies), lock=False)
            process = context.Process(target=load_all,
                                      args=(self.library._name, policies, statuses))
            process.start()
            process.join()
            self.assertEqual(
                process.exitcode, 0,
                f"{name}: mutant {list(statuses).index(-1)}" if -1 in statuses else name)
            self.assertLessEqual(set(statuses), set(STATUSES))
            found |= set(statuses)
        self.assertLessEqual({OK, NOT_A_POLICY, DAMAGED, UNSUPPORTED, WRONG_ANSWERS}, found)


if __name__ == "__main__":
    unittest.main(verbosity=2)
