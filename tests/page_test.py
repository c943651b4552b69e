"""Tests tools/make_page.py and what its page does in a headless Chromium.

Usage: page_test.py BUILD_FOLDER [EXPORT_FOLDER]

The export is one of conf/quickstart.yaml, a trained one: tests/golden/export, or the folder given.
Without Chromium, clang or an export it says what is not tested, and passes.
"""
import html
import json
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

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(sys.argv.pop(1)).resolve()
EXPORT = Path(sys.argv.pop(1)) if len(sys.argv) > 1 else ROOT / "tests/golden/export"
PERIOD, GRAVITY = 0.02, 9.81
# Plants with every imperfection that acts in a plant's equations.
IMPERFECT = [
    dict(cart_mass=0.6, pole_mass=0.4, half_length=0.3, cart_friction=1.5, pole_friction=0.01,
         motor_gain=0.8),
    dict(cart_mass=1.9, pole_mass=0.06, half_length=0.9, cart_friction=0.2, pole_friction=0.002,
         motor_gain=1.3)
]

# Leaves what `check` returns in the document, and what went wrong meanwhile.
HARNESS = """
<pre id="answer"></pre>
<script>
const problems = [];
addEventListener("error", (event) => problems.push(event.message));
addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => problems.push(event.blockedURI));
function check(cartpole, input) {%s}
cartpole.ready.then(() => {
  cartpole.stop();
  return check(cartpole, %s);
}).catch((error) => String(error.stack)).then((found) => {
  const failure = element("failure");
  element("answer").textContent = "BEGIN" + JSON.stringify(
    { found, problems, failure: failure.hidden ? "" : failure.textContent }) + "END";
});
</script></body>"""


def find_chromium():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if shutil.which(name):
            return name


def not_tested(why):
    print(f"page_test.py: {why}: the page is not tested")
    sys.exit(0)


def make_page(*arguments, **options):
    return subprocess.run([sys.executable, ROOT / "tools/make_page.py", *arguments],
                          capture_output=True, text=True, timeout=120, **options)


def dump(page, folder):
    """Returns the document that a page has become."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    command = [
        find_chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'profile'}", "--window-size=1280,800",
        "--virtual-time-budget=10000", "--dump-dom",
        path.as_uri()
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=300).stdout


def accelerations(p, force, state):
    _, xd, th, thd = state
    M, ml = p["cart_mass"] + p["pole_mass"], p["pole_mass"] * p["half_length"]
    J = 4 / 3 * ml * p["half_length"]
    mass = [[M, ml * np.cos(th)], [ml * np.cos(th), J]]
    push = [
        p["motor_gain"] * force - p["cart_friction"] * xd + ml * thd**2 * np.sin(th),
        ml * GRAVITY * np.sin(th) - p["pole_friction"] * thd
    ]
    xdd, thdd = np.linalg.solve(mass, push)
    return np.array([xd, xdd, thd, thdd])


def stepped(p, force, state):
    """The classical Runge-Kutta method, over one period."""
    h = PERIOD
    k1 = accelerations(p, force, state)
    k2 = accelerations(p, force, state + h / 2 * k1)
    k3 = accelerations(p, force, state + h / 2 * k2)
    k4 = accelerations(p, force, state + h * k3)
    return state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def regulator_gain(p, weights):
    """By the Riccati recursion, from a linearization by differences."""
    def jacobian(f, n):
        return np.array([(f(e) - f(-e)) / 2e-4 for e in 1e-4 * np.eye(n)]).T

    A = jacobian(lambda e: stepped(p, 0.0, e), 4)
    B = jacobian(lambda e: stepped(p, e[0], np.zeros(4)), 1)
    P = Q = np.diag(weights)
    for _ in range(20000):
        K = np.linalg.solve(0.1 + B.T @ P @ B, B.T @ P @ A)
        P = Q + A.T @ P @ (A - B @ K)
    return K[0]


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = Path(temporary.name)
        path = cls.folder / "made.html"
        made = make_page(EXPORT, path)
        assert made.returncode == 0, made.stderr
        assert made.stdout.startswith(str(path)), made.stdout
        cls.page = path.read_text(encoding="utf-8")
        cls.size = path.stat().st_size

    def ask(self, script, value=None, page=None):
        harness = HARNESS % (script, json.dumps(value))
        document = dump((page or self.page).replace("</body>", harness), self.folder)
        answer = re.search(r"BEGIN(\{.*\})END</pre>", html.unescape(document), re.DOTALL)
        self.assertTrue(answer, document[-2000:])
        return json.loads(answer[1])

    def found(self, script, value=None):
        answer = self.ask(script, value)
        self.assertEqual(answer["problems"], [])
        self.assertEqual(answer["failure"], "")
        self.assertNotIsInstance(answer["found"], str, answer["found"])
        return answer["found"]

    def test_file(self):
        """One file, small, which needs no other."""
        self.assertLess(self.size, 1.5e6)
        self.assertNotRegex(
            self.page, r"https?://|\bfetch\(|XMLHttpRequest|importScripts|@import|\burl\(|\bsrc=|"
            r"href=(?!\"data:)|\{\{")

    def test_policy(self):
        """The policy gives the answers of the worked example."""
        header = (EXPORT / "policy_8bit.bin").read_bytes()[:40]
        self.assertGreater(struct.unpack("<8I", header[8:])[6], 64, "examples")
        self.assertLess(self.found("return [cartpole.policyError()]")[0], 5e-3)

    def test_plant(self):
        random = np.random.default_rng(1)
        forces = random.uniform(-10, 10, 100).tolist()
        start = dict(x=0.3, x_dot=-0.5, theta=2.0, theta_dot=1.0)
        ends = self.found(
            "return input.plants.map((plant) =>"
            "  Object.values(cartpole.trajectory(plant, input.start, input.forces).at(-1)))",
            dict(plants=IMPERFECT, forces=forces, start=start))
        for plant, end in zip(IMPERFECT, ends):
            state = np.array(list(start.values()))
            for force in forces:
                state = stepped(plant, force, state)
            np.testing.assert_allclose(end, state, rtol=0, atol=1e-9)

    def test_expert(self):
        """Its force is that of the C++ expert, in sequences that pass through both modes."""
        random = np.random.default_rng(2)
        cases = []
        for _ in range(12):
            plant = dict(cart_mass=random.uniform(0.4, 2.5), pole_mass=random.uniform(0.04, 0.6),
                         half_length=random.uniform(0.2, 1.2))
            states = random.normal(0, 1, (40, 4)) * [0.8, 0.8, 0.5, 1.5]
            states[20:, 2] += np.pi
            cases.append(dict(plant=plant, states=states.tolist()))
        answers = self.found(
            "return input.map(({plant, states}) => cartpole.expertForces(plant, states))", cases)
        inside = 0
        for case, forces in zip(cases, answers):
            lines = "".join(" ".join(map(repr, state)) + "\n" for state in case["states"])
            expected = subprocess.run(
                [BUILD / "tests/expert_force", *map(repr, case["plant"].values())], input=lines,
                capture_output=True, text=True, check=True).stdout.split()
            np.testing.assert_allclose(forces, np.array(expected, float), rtol=0, atol=1e-6)
            inside += np.sum(np.abs(forces) < 9.99)
        self.assertGreater(inside, 100)  # not all at the limit

    def test_regulator(self):
        """Its gains, for plants that expert_force cannot have."""
        weights = json.loads((EXPORT / "controller.json").read_text())["expert"]["state_weights"]
        gains = self.found("return input.map(cartpole.regulatorGain)", IMPERFECT)
        for plant, gain in zip(IMPERFECT, gains):
            np.testing.assert_allclose(gain, regulator_gain(plant, weights), rtol=1e-5)

    def test_swing_up(self):
        found = self.found("""
            cartpole.advance(20);
            const first = cartpole.state(), upright = [];
            for (let i = 0; i < 10; ++i) {
              cartpole.seed(i);
              cartpole.newPlant();
              cartpole.advance(20);
              upright.push(cartpole.state().network.success);
            }
            return { first, upright };""")
        for lane in ("network", "expert"):
            self.assertTrue(found["first"][lane]["success"])
            self.assertEqual(found["first"][lane]["left_track"], 0)
        self.assertEqual(found["first"]["network"]["mode"], 1)
        self.assertGreaterEqual(sum(found["upright"]), 9)

    def test_disturbances(self):
        """A kick, then another plant, while it balances; and a reset."""
        found = self.found("""
            const states = {}, note = (name) => { states[name] = cartpole.state(); };
            cartpole.advance(10);
            element("kick_right").click();
            cartpole.advance(0.3);
            note("kicked");
            cartpole.advance(15);
            note("recovered");
            cartpole.setPlant({ cart_mass: 0.6, pole_mass: 0.45, half_length: 0.3 });
            cartpole.advance(0.4);
            document.body.dispatchEvent(new KeyboardEvent("keydown",
                                                          { key: "ArrowLeft", bubbles: true }));
            cartpole.advance(0.1);
            note("kicked_again");
            cartpole.advance(15);
            note("adapted");
            element("reset").click();
            note("reset");
            return states;""")
        for name in ("kicked", "kicked_again"):
            for lane in ("network", "expert"):
                self.assertEqual(found[name][lane]["upright"], 0)
        for name in ("recovered", "adapted"):
            for lane in ("network", "expert"):
                self.assertTrue(found[name][lane]["success"], (name, lane))
                self.assertEqual(found[name][lane]["left_track"], 0)
        self.assertLess(found["kicked_again"]["seen"], 65)
        self.assertEqual(found["reset"]["seen"], 0)
        self.assertAlmostEqual(found["reset"]["network"]["theta"], np.pi - 0.1)
        self.assertEqual(found["reset"]["plant"]["pole_mass"], 0.45)

    def test_imperfections(self):
        """Friction, gain and delay reach the plant; an expert that knows them copes."""
        found = self.found(
            """
            cartpole.setPlant(input);
            cartpole.reset();
            cartpole.advance(20);
            const told = cartpole.state();
            cartpole.setTold("nothing");
            cartpole.reset();
            cartpole.advance(20);
            const outside = [...document.querySelectorAll(".outside input")].map((one) => one.id);
            return { told, nothing: cartpole.state(), outside };""",
            dict(cart_mass=0.55, pole_mass=0.4, half_length=0.3, cart_friction=0.8, motor_gain=0.7,
                 delay=3))
        self.assertTrue(found["told"]["expert"]["success"])
        self.assertFalse(found["nothing"]["expert"]["success"])
        self.assertEqual(found["outside"], ["cart_friction", "motor_gain", "delay"])

    def test_time(self):
        """A hidden tab is a pause; a frame plays what has passed since the one before."""
        found = self.found("""
            const times = [], now = (ms) => {
              cartpole.frame(ms);
              times.push(cartpole.state().time);
            };
            document.dispatchEvent(new Event("visibilitychange"));
            cartpole.reset();
            now(1000);
            now(1110);    // 5.5 periods
            now(61110);   // a minute in another tab
            now(61165);   // 2.75 periods
            document.dispatchEvent(new Event("visibilitychange"));
            now(61300);
            now(61318);   // 0.9 periods
            cartpole.pause(true);
            now(61400);
            return times.map((time) => Math.round((time - times[0]) / 0.02));""")
        self.assertEqual(found, [0, 5, 5, 8, 8, 9, 9])

    def test_track(self):
        """A cart that leaves the track stays there for a moment, then starts again."""
        found = self.found("""
            cartpole.reset({ x: 2.3, x_dot: 6 });
            cartpole.advance(0.2);
            const left = cartpole.state();
            draw(0);
            cartpole.advance(1.8);
            return [left, cartpole.state()];""")
        for lane in ("network", "expert"):
            self.assertFalse(found[0][lane]["on_track"])
            self.assertEqual(found[0][lane]["left_track"], 1)
            self.assertTrue(found[1][lane]["on_track"])
            self.assertLess(abs(found[1][lane]["x"]), 1.5)

    def test_hand(self):
        """Drags the pole with the pointer; both controllers go on from where it lets go."""
        found = self.found("""
            const stage = element("stage"), states = [];
            stage.setPointerCapture = () => {};
            const point = (type, x, y) => {  // in m from the middle of the track
              const box = stage.getBoundingClientRect();
              stage.dispatchEvent(new PointerEvent(type, {
                clientX: box.left + view.center + x * view.meter,
                clientY: box.top + view.pivot - y * view.meter }));
            };
            const drag = (from, to) => {
              draw(0);
              point("pointerdown", ...from);
              point("pointermove", ...to);
              cartpole.advance(1);
              states.push(cartpole.state());
              point("pointerup", ...to);
              cartpole.advance(15);
              states.push(cartpole.state());
            };
            cartpole.reset();
            drag([0.08, -0.9], [0.9, 0.3]);
            drag([cartpole.state().network.x, 0], [-1.2, 0]);
            return states;""")
        pole, after_pole, cart, after_cart = found
        for lane in ("network", "expert"):
            self.assertAlmostEqual(pole[lane]["theta"], np.arctan2(0.9, 0.3), delta=0.02)
            self.assertAlmostEqual(cart[lane]["x"], -1.2, delta=0.15)
            self.assertTrue(after_pole[lane]["success"])
            self.assertTrue(after_cart[lane]["success"])
        self.assertEqual(pole["seen"], 0)

    def test_failures(self):
        """What does not run says so in the page."""
        damaged = re.sub(r'(id="policy">.{5000}).', r"\1A", self.page)
        damaged = damaged if damaged != self.page else re.sub(r'(id="policy">.{5000}).', r"\1B",
                                                              self.page)
        self.assertIn("damaged", self.ask("return []", page=damaged)["failure"])
        without = self.page.replace("<body>", "<body><script>delete window.WebAssembly</script>")
        self.assertIn("no WebAssembly", self.ask("return []", page=without)["failure"])

    def test_refusals(self):
        missing = make_page(self.folder / "nothing")
        self.assertEqual(missing.returncode, 1)
        self.assertIn("export_policy writes it", missing.stderr)
        shutil.copy(EXPORT / "policy_8bit.bin", self.folder)
        (self.folder / "controller.json").write_text('{"format": 2}')
        self.assertIn("export_policy", make_page(self.folder).stderr)
        without = make_page(EXPORT, env={**os.environ, "PATH": str(self.folder)})
        self.assertEqual(without.returncode, 1)
        self.assertRegex(without.stderr, r"^make_page.py: .*apt-get install clang lld\n$")


if __name__ == "__main__":
    if not (shutil.which("clang") and shutil.which("wasm-ld")):
        not_tested("clang or lld is missing")
    if not EXPORT.is_dir():
        not_tested(f"{EXPORT} is missing")
    with tempfile.TemporaryDirectory() as folder:
        if not find_chromium() or "ready" not in dump("<p>ready</p>", Path(folder)):
            not_tested("Chromium is missing, or does not run here")
    unittest.main(verbosity=2)
