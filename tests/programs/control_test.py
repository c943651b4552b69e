"""Tests control_policy and simulate_cartpole: answers, faults, a terminal, refusals.

Usage: control_test.py BUILD_FOLDER
"""

import csv
import json
import os
import pty
import random
import re
import select
import signal
import socket
import subprocess
import termios
import threading
import time
import unittest
from pathlib import Path

from programs import BUILD, ENVIRONMENT, ROOT, TrainTest, run  # takes BUILD_FOLDER

CONTROL, PLANT = BUILD / "control_policy", BUILD / "simulate_cartpole"
HANGING = b"0 0 3.1 0\n"
PERIOD = 0.02


class Plant:
    """A plant that does what a test says."""
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.text = b""

    def send(self, line=HANGING):
        self.socket.sendall(line)

    def answers(self, seconds=0.0, count=None):
        """The answers that come within some seconds, or as soon as there are so many."""
        deadline = time.monotonic() + seconds
        while count is None or self.text.count(b"\n") < count:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self.socket], [], [], left)[0]:
                break
            received = self.socket.recv(4096)
            if not received:
                break
            self.text += received
        lines, _, self.text = self.text.rpartition(b"\n")
        return [(float(line.split()[0]), line.split()[2].decode()) for line in lines.splitlines()]

    def close(self):
        self.socket.close()


class Control(TrainTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        out = cls.data.parent / "run"
        for program in ("train_gpt2", "export_policy"):
            result = run(program, "--dataset.path", cls.data, "--out_dir", out)
            assert result.returncode == 0, result.stderr
        cls.export = out / "export"
        cls.policy = cls.export / "policy.bin"

    def control(self, *arguments, text=b"", clock="input"):
        """Runs control_policy on a file."""
        return subprocess.run([CONTROL, "--policy", self.policy, "--clock", clock, *arguments],
                              input=text, capture_output=True, timeout=120, env=ENVIRONMENT)

    def listen(self, *arguments):
        """Starts control_policy on a socket."""
        path = self.folder / "socket"
        process = subprocess.Popen([
            CONTROL, "--policy", self.policy, "--socket", path, "--json",
            self.folder / "control.json", *arguments
        ], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        self.assertIn("listens on", process.stderr.readline())
        return process, path

    def stop(self, process, sent=signal.SIGTERM):
        """Ends it by a signal. Returns its report."""
        process.send_signal(sent)
        self.assertEqual(process.wait(10), 0)
        self.assertIn("answers", process.stderr.read())
        return json.loads((self.folder / "control.json").read_text())

    def plant(self, path):
        plant = Plant(path)
        self.addCleanup(plant.close)
        return plant

    def simulate(self, *arguments, expected=None):
        result = subprocess.run([PLANT, *map(str, arguments)], stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, timeout=120, env=ENVIRONMENT)
        if expected is not None:
            self.assertEqual(result.returncode, expected, result.stdout + result.stderr)
        return result

    # Files.

    def test_a_file_is_answered_as_the_network_answered(self):
        with open(self.export / "example.csv") as file:
            rows = list(csv.DictReader(file))
        names = ("x", "x_dot", "theta", "theta_dot", "sent")
        states = "".join(" ".join(row[name] for name in names) + "\n" for row in rows)
        result = self.control("--json", self.folder / "report.json", text=states.encode())
        self.assertEqual(result.returncode, 0, result.stderr)
        answers = [line.split() for line in result.stdout.decode().splitlines()]
        self.assertEqual(len(answers), len(rows))
        for row, (force, _, kind) in zip(rows, answers):
            self.assertAlmostEqual(float(force), float(row["force"]), delta=1e-3)
            self.assertEqual(kind, "policy")
        report = json.loads((self.folder / "report.json").read_text())
        self.assertEqual(report["answers"]["policy"], len(rows))
        self.assertEqual(report["lines"]["good"], len(rows))
        self.assertEqual(sum(row[2] for row in report["latency"]["histogram"]), len(rows))
        self.assertLessEqual(report["latency"]["p50"], report["latency"]["longest"])

    def test_every_line_of_a_file_gets_the_documented_answer(self):
        lines = [b"what?", HANGING[:-1], b"nan 0 3 0", b"0 0 3", b"9 0 0 0", HANGING[:-1]]
        lines += 7 * [b"x" * 300] + [HANGING[:-1] + b"\r", b"1 2 3 4 5 6"]
        result = self.control("--json", self.folder / "report.json",
                              text=b"\n".join(lines) + b"\n0 0 3.")
        kinds = [line.split()[2] for line in result.stdout.decode().splitlines()]
        self.assertEqual(
            " ".join(kinds), "zero policy hold predict predict policy "
            "hold predict predict predict predict predict zero policy hold")
        report = json.loads((self.folder / "report.json").read_text())
        self.assertEqual(report["lines"], dict(good=3, malformed=11, non_finite=1,
                                               impossible=1))  # with the cut one
        self.assertEqual(report["interrupted_contexts"], 1)

    def test_random_bytes_are_answered_or_counted(self):
        rng = random.Random(1)
        bytes_ = [b"0", b"1", b".", b"-", b"e9", b" ", b"\t", b"nan", b"\0", b"\xff", b"3"]
        words = 6 * [b"0", b"-1.5", b"3.1", b"+2e-3"] + [b"nan", b"-inf", b"1e9", b"-2e300", b"x"]
        lines = []
        for _ in range(20000):
            kind = rng.random()
            if kind < 0.2:
                line = rng.randbytes(rng.randrange(400)).replace(b"\n", b"")
            elif kind < 0.4:
                line = b"".join(rng.choices(bytes_, k=rng.randrange(40)))
            else:
                line = b" ".join(rng.choices(words, k=rng.randrange(3, 7)))
            lines.append(line)
        result = self.control("--json", self.folder / "report.json", text=b"\n".join(lines) + b"\n")
        self.assertEqual(result.returncode, 0, result.stderr)
        report = json.loads((self.folder / "report.json").read_text())
        self.assertEqual(result.stdout.count(b"\n"), len(lines))
        self.assertEqual(sum(report["lines"].values()), len(lines))
        self.assertGreater(min(report["lines"].values()), 0)
        limit = 10.0
        for line in result.stdout.splitlines():
            self.assertRegex(line, rb"^-?[0-9.e+-]+ [01] (policy|hold|predict|zero)$")
            self.assertLessEqual(abs(float(line.split()[0])), limit)

    def test_a_line_without_end_takes_no_memory(self):
        process = subprocess.Popen([CONTROL, "--policy", self.policy], stdin=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env=ENVIRONMENT)

        def memory():  # kB
            status = Path(f"/proc/{process.pid}/status").read_text()
            return int(re.search(r"VmRSS:\s*(\d+)", status).group(1))

        process.stdin.write(HANGING + bytes(1 << 20))
        before = memory()
        for _ in range(64):
            process.stdin.write(b"x" * (1 << 20))
        self.assertLess(memory(), before + 4096)
        process.stdin.close()
        self.assertEqual(process.wait(10), 0)

    def test_a_file_waits_for_a_slow_reader_and_not_for_one_that_is_gone(self):
        text = 20000 * HANGING
        command = f"{CONTROL} --policy {self.policy} --clock input 2>{self.folder}/said"
        result = subprocess.run(f"{command} | (sleep 0.5; wc -l)", shell=True, input=text,
                                capture_output=True, timeout=60)
        self.assertEqual(int(result.stdout), 20000)
        subprocess.run(f"{command} | head -n 1", shell=True, input=text, capture_output=True,
                       timeout=60, check=True)
        self.assertRegex((self.folder / "said").read_text(), r"; [1-9]\d+ dropped")

    # The steady clock.

    def test_states_that_stay_away_are_answered_all_the_same(self):
        process, path = self.listen()
        plant = self.plant(path)
        self.assertEqual(plant.answers(3 * PERIOD), [])  # nothing before the first state
        for attempts in range(1, 6):  # a busy machine may make it skip a period
            for _ in range(5):
                plant.send()
                plant.answers(PERIOD)
            plant.send()
            answers = plant.answers(0.5)
            kinds = " ".join(kind for _, kind in answers)
            if re.search("policy hold( predict){5}( zero)+$", kinds):
                break
        self.assertRegex(kinds, r"policy hold( predict){5}( zero)+$")
        last = [kind for _, kind in answers].index("hold")
        self.assertEqual(answers[last][0], answers[last - 1][0])
        self.assertEqual(answers[-1][0], 0.0)
        plant.send()
        kinds = []
        while "policy" not in kinds:
            kinds += (new := [kind for _, kind in plant.answers(10, count=1)])
            self.assertTrue(new, kinds)
        plant.close()
        report = self.stop(process)
        self.assertEqual(report["interrupted_contexts"], attempts)
        self.assertGreaterEqual(report["missing_states"], 20)
        self.assertEqual(report["plants"], 1)

    def test_bad_lines_count_as_no_state(self):
        process, path = self.listen()
        plant = self.plant(path)
        plant.send(b"hello\n")
        self.assertEqual(plant.answers(3 * PERIOD), [])  # there is no schedule yet
        plant.send()
        self.assertEqual(plant.answers(1, count=1)[0][1], "policy")
        for line in (b"nan 0 0 0\n", b"1e9 0 0 0\n", b"1 2\n"):
            plant.send(line)
            self.assertNotEqual(plant.answers(1, count=1)[0][1], "policy")
        plant.socket.shutdown(socket.SHUT_WR)
        while plant.socket.recv(4096):  # until it has read everything
            pass
        report = self.stop(process)
        self.assertEqual(report["lines"], dict(good=1, malformed=2, non_finite=1, impossible=1))
        self.assertGreaterEqual(report["missing_states"], 3)

    def test_of_several_states_the_newest_is_used(self):
        wanted = self.control(text=b"0.5 0 3 0\n").stdout
        process, path = self.listen()
        plant = self.plant(path)
        plant.send(2 * HANGING + b"0.5 0 3 0\n")
        self.assertEqual(plant.answers(1, count=1)[0][0], float(wanted.split()[0]))
        plant.send(HANGING)  # its period is answered already
        report = self.stop(process)
        self.assertGreaterEqual(report["unused_states"], 2)

    def test_plants_come_and_go(self):
        wanted = self.control(text=HANGING).stdout
        process, path = self.listen()
        for cut in (b"", b"0 0", b"garbage\n" + HANGING + b"0 0 3.1 "):
            plant = self.plant(path)
            plant.send()
            answer = plant.answers(10, count=1)[0]
            self.assertEqual(answer, (float(wanted.split()[0]), "policy"))  # an empty context
            plant.send(cut)
            plant.close()
        plant = self.plant(path)
        plant.socket.shutdown(socket.SHUT_WR)  # has nothing to say
        self.assertEqual(plant.socket.recv(100), b"")
        report = self.stop(process, signal.SIGINT)
        self.assertEqual(report["plants"], 4)
        self.assertEqual(report["interrupted_contexts"], 0)
        self.assertEqual(report["lines"]["malformed"], 3)

    def test_a_plant_that_does_not_read_is_no_reason_to_wait(self):
        process, path = self.listen("--clock", "input")
        plant = self.plant(path)
        # The answers need more than the socket holds, and waiting for each one would take hours.
        sender = threading.Thread(target=plant.send, args=(20000 * HANGING,))
        sender.start()
        sender.join(60)
        self.assertFalse(sender.is_alive())
        plant.close()
        following = self.plant(path)
        following.send()
        self.assertEqual(len(following.answers(30, count=1)), 1)
        report = self.stop(process)
        self.assertGreater(report["dropped_answers"], 0)
        self.assertEqual(report["lines"]["good"], 20001)

    def test_a_signal_ends_it_in_order(self):
        process, path = self.listen("--realtime")
        self.assertTrue(path.is_socket())
        refused = subprocess.run([CONTROL, "--policy", self.policy, "--socket", path],
                                 capture_output=True, text=True)
        self.expect(refused, 78, "another process listens there")
        self.assertTrue(path.is_socket())
        self.plant(path).send()
        self.stop(process)
        self.assertFalse(path.exists())

    def test_a_stale_socket_is_replaced(self):
        process, path = self.listen()
        process.kill()
        process.wait()
        self.assertTrue(path.is_socket())
        process, path = self.listen()
        self.plant(path).send()
        self.stop(process)
        self.assertFalse(path.exists())

    # The plant.

    def test_a_plant_in_real_time(self):
        log = self.folder / "log.csv"
        for _ in range(3):  # a busy machine may hold it up
            result = self.simulate("--policy", self.policy, "--seconds", 2, "--log", log,
                                   expected=1)
            self.assertRegex(result.stdout,
                             r"^not up: for the last 0\.0 s of 2\.0 s; .* of 100 answers")
            self.assertIn("1 plant", result.stderr)
            with open(log) as file:
                rows = list(csv.DictReader(file))
            self.assertEqual(len(rows), 100)
            kinds = [row["kind"] for row in rows]
            if kinds.count("policy") > 80:
                break
        self.assertGreater(kinds.count("policy"), 80)
        for before, row in zip(rows, rows[1:]):
            self.assertEqual(row["sent"], before["force"])

    def test_what_was_played_is_what_a_file_gives(self):
        log = self.folder / "log.csv"
        self.simulate("--policy", self.policy, "--seconds", 6, "--speed", 0, "--log", log, "--seed",
                      3, "--noise", "0.01,0.02,0.01,0.05", "--delay", 2)
        with open(log) as file:
            rows = list(csv.DictReader(file))
        names = ("x", "x_dot", "theta", "theta_dot", "sent")
        states = "".join(" ".join(row[name] for name in names) + "\n" for row in rows)
        forces = [
            float(line.split()[0])
            for line in self.control(text=states.encode()).stdout.splitlines()
        ]
        self.assertEqual(forces, [float(row["force"]) for row in rows])

    def test_exit_code_says_whether_the_pole_is_up(self):
        # So heavy and with so much friction that it stays where it is, whatever the policy does.
        stiff = ("--policy", self.policy, "--cart_mass", 100, "--cart_friction", 1000,
                 "--pole_mass", 0.1, "--half_length", 0.5, "--pole_friction", 1, "--speed", 0)
        result = self.simulate(*stiff, "--start", "upright", "--seconds", 6, expected=0)
        self.assertRegex(result.stdout, r"^up: for the last [56]\.\d s of 6\.0 s;")
        self.simulate(*stiff, "--seconds", 6, expected=1)
        self.simulate(*stiff, "--start", "upright", "--seconds", 4, expected=1)  # too short
        result = self.simulate("--policy", self.policy, "--speed", 0, "--cart_mass", 0.01,
                               "--motor_gain", 100, expected=1)
        self.assertRegex(result.stdout, "^not up: .* then off the track")

    def test_answers_that_do_not_come_are_counted(self):
        path = self.folder / "socket"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            # An answer is missing after a second, whatever its clock.
            plant = subprocess.Popen([PLANT, "--socket", path, "--seconds", "0.1", "--speed", "0"],
                                     stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
            connection, _ = listener.accept()
            with connection, connection.makefile("r") as states:
                forces = []
                for number, line in enumerate(states):
                    forces.append(float(line.split()[4]))
                    if number == 0:
                        connection.sendall(b"7 0 policy\n")
                    elif number == 1:
                        connection.sendall(b"nonsense\n")
            out, _ = plant.communicate(timeout=30)
        self.assertEqual(plant.returncode, 1)
        self.assertIn("4 of 5 answers missing", out)
        self.assertEqual(forces, [0.0] + 4 * [7.0])  # the last one is held

    def test_a_plant_waits_for_its_controller_and_outlives_it(self):
        path = self.folder / "socket"
        plant = subprocess.Popen([PLANT, "--socket", path, "--seconds", "3.9"],
                                 stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        time.sleep(0.3)
        process, _ = self.listen()
        time.sleep(1)
        self.assertGreater(self.stop(process)["lines"]["good"], 10)
        time.sleep(0.2)
        process, _ = self.listen()
        out, _ = plant.communicate(timeout=30)
        self.assertGreater(self.stop(process)["lines"]["good"], 10)
        self.assertRegex(out, r"[1-9]\d* of 1?\d\d answers missing")

    def test_a_terminal_shows_the_plant_and_is_restored(self):
        for last in (b"q", b"\x03", None):
            leader, follower = pty.openpty()
            before = termios.tcgetattr(follower)
            termios.tcsetwinsize(follower, (24, 80))
            plant = subprocess.Popen([PLANT, "--policy", self.policy], stdin=follower,
                                     stdout=follower, stderr=subprocess.PIPE,
                                     start_new_session=True,
                                     env={**ENVIRONMENT, "LC_ALL": "C.UTF-8"})
            shown = b""

            def watch(text, seconds=10):
                nonlocal shown
                end = time.monotonic() + seconds
                while text not in shown:
                    self.assertLess(time.monotonic(), end, shown[-3000:])
                    if select.select([leader], [], [], 0.1)[0]:
                        shown += os.read(leader, 65536)

            watch("⣿".encode())
            watch(b"swinging up")
            os.write(leader, b"ad \x1b[C\x1b[D")
            os.write(leader, b"n")
            watch(b"trial 2 ")
            os.write(leader, b"r")
            watch(b"trial 3 ")
            if last == b"\x03":
                plant.send_signal(signal.SIGINT)  # no controlling terminal turns the key into it
            elif last:
                os.write(leader, last)
            else:
                plant.terminate()
            watch(b"\x1b[?1049l")
            watch(b"answers missing")
            _, said = plant.communicate(timeout=10)
            self.assertEqual(plant.returncode, 0)
            self.assertRegex(said.decode(), r"periods in .* [3-9] plants")
            self.assertEqual(termios.tcgetattr(follower), before)
            os.close(leader)
            os.close(follower)

    # Refusals.

    def test_refusals(self):
        def refused(code, text, *command):
            result = subprocess.run([*map(str, command)], stdin=subprocess.DEVNULL,
                                    capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
            self.expect(result, code, text)
            self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)

        bad = self.folder / "bad.bin"
        bad.write_bytes(self.policy.read_bytes()[:-9])
        good = ("--policy", self.policy)
        for program in (CONTROL, PLANT):
            refused(65, "/no/policy.bin: ", program, "--policy", "/no/policy.bin")
            refused(65, f"{bad}: ", program, "--policy", bad)
            refused(65, f"{ROOT / 'README.md'}: ", program, "--policy", ROOT / "README.md")
            refused(78, "'--no_such_option'", program, *good, "--no_such_option")
            refused(78, "1 to 107 characters", program,
                    "--policy" if program == CONTROL else "--seed",
                    self.policy if program == CONTROL else 0, "--socket", "x" * 108)
        refused(78, "--policy FILE is missing", CONTROL)
        refused(78, "must be steady or input", CONTROL, *good, "--clock", "sun")
        refused(78, "less than the policy's period", CONTROL, *good, "--tolerance", 0.02)
        refused(78, "more than 0 s", CONTROL, *good, "--tolerance", -1)
        refused(78, "'--tolerance' is invalid", CONTROL, *good, "--tolerance", "x")
        refused(78, "is not a socket", CONTROL, *good, "--socket", bad)
        refused(74, "cannot make the socket", CONTROL, *good, "--socket", "/no/such/folder/socket")
        refused(74, "--json: cannot write", CONTROL, *good, "--json", "/no/such/folder/file")
        refused(78, "either --policy FILE or --socket PATH", PLANT)
        refused(78, "--noise is '1,2'", PLANT, *good, "--noise", "1,2")
        refused(78, "--cart_mass must be more than 0", PLANT, *good, "--cart_mass", 0)
        refused(78, "--delay must be a whole number", PLANT, *good, "--delay", 0.5)
        refused(78, "must be hanging or upright", PLANT, *good, "--start", "lying")
        refused(78, "unknown key", PLANT, *good, "--config", self.write("no: 1"))
        refused(78, "was trained with another", PLANT, *good, "--config",
                self.write("world: {force_limit: 5}"))
        refused(74, "--log: cannot write", PLANT, *good, "--log", "/no/such/folder/file")

    def write(self, text):
        path = self.folder / "config.yaml"
        path.write_text(text)
        return path

    def test_help_has_an_example(self):
        for program in (CONTROL, PLANT):
            result = subprocess.run([program, "--help"], capture_output=True, text=True)
            self.assertEqual(result.returncode, 0)
            self.assertIn(f"{program.name} --policy policy.bin", result.stdout)
            self.assertLess(max(map(len, result.stdout.splitlines())), 105)


if __name__ == "__main__":
    unittest.main()
