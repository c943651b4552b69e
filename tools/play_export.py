#!/usr/bin/env python3
r"""Plays an exported controller in simulators that it was never trained in.

  .venv/bin/python tools/play_export.py output/quickstart/export --episodes 100 \
      --json output/quickstart/evaluation/judges.json     # which tools/report.py shows

It needs nothing else of this project:

  pip install numpy torch transformers dm_control==1.0.50 mujoco==3.17.0 gymnasium==1.4.0

and the class Controller below is all that another program needs to use an export.

  swingup, swingup_sparse, balance   dm_control's cartpole (MuJoCo): 10 s, 1,000 points at most
  CartPole-v1                        Gymnasium's: 10 s, 500 points at most; over at 12 degrees

CartPole-v1 takes 10 N or -10 N and nothing between. It gets the one that brings the sum of the
applied forces closer to the sum of the commands. The controller is told its command of one period
before, as in training, not what an actuator made of it; --told applied tells it the 10 N or -10 N.

  .venv/bin/python tools/play_export.py --expert build/gpu/tests/expert_force

plays a filter instead, for comparison: it is started for every episode, gets a line "x x_dot theta
theta_dot" per control period and answers with the force in N, on a line of its own.
"""
import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

try:
    import numpy as np
    import torch
    import transformers
    from safetensors.torch import load_file
except ImportError as error:
    sys.exit(f"play_export.py: {error}: pip install numpy torch transformers")

TASKS = ["swingup", "swingup_sparse", "balance", "CartPole-v1"]
NEWTONS = 10.0  # the largest force of these simulators
UPRIGHT = 0.995  # least cosine of the angle, as in dm_control's sparse swing-up


def fail(text):
    sys.exit(f"play_export.py: {text}")


class Controller:
    """An export that controls any number of cart-poles at the same time."""
    def __init__(self, folder):
        self.facts = json.loads(Path(folder, "controller.json").read_text())
        self.body = transformers.GPT2Model.from_pretrained(folder).eval()
        self.tensors = load_file(Path(folder, "model.safetensors"))
        self.reset()

    def reset(self):
        """Forgets what was seen: before a new trial."""
        self.tokens, self.cache = [], transformers.DynamicCache()  # tokens: [cart-poles, 6] each

    def linear(self, name, x):
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    @torch.inference_mode()
    def step(self, states, sent):
        """Returns forces to send (N), probabilities of balancing, and the next states it expects.

        Call it once per period. states: [cart-poles, 4] of x (m), x_dot, theta (rad), theta_dot,
        where theta 0 is upright and positive leans to +x; sent: the forces sent one period before.
        """
        window = self.facts["window"]
        if len(self.tokens) == window:  # it is full: go on with the newest quarter
            self.tokens, self.cache = self.tokens[window -
                                                  window // 4:], transformers.DynamicCache()
            for first in self.tokens[:1]:
                first[:, -1] = 0.0
        if not self.tokens:  # as in training, where a window begins
            sent = np.zeros(len(states))
        states = np.asarray(states, dtype=float)
        x, x_dot, theta, theta_dot = states.T
        features = np.column_stack((x, x_dot, np.sin(theta), np.cos(theta), theta_dot, sent))
        self.tokens.append(torch.tensor(features, dtype=torch.float32))
        new = torch.stack(self.tokens[self.cache.get_seq_length():], dim=1)
        embedded = self.linear("read_in", new / self.tensors["feature_scales"])
        hidden = self.body(None, self.cache, inputs_embeds=embedded, use_cache=True)[0][:, -1]
        share = self.linear("force_head", hidden).double().numpy().clip(-1, 1)  # of the limit
        balancing = self.linear("mode_head", hidden).softmax(-1)[:, 1].numpy()
        change = self.linear("dynamics_head", hidden).double().numpy()
        expected = states + self.facts["delta_rms"] * (change[:, :4] + change[:, 4:] * share)
        return self.facts["force_limit"] * share[:, 0], balancing, expected


def check_example(controller, folder):
    """Returns the largest deviation from the recorded forces, in units of the force limit."""
    rows = np.genfromtxt(folder / "example.csv", delimiter=",", names=True)
    states = np.column_stack([rows[name] for name in ("x", "x_dot", "theta", "theta_dot")])
    controller.reset()
    forces = [controller.step([state], [sent])[0][0] for state, sent in zip(states, rows["sent"])]
    return np.abs(forces - rows["force"]).max() / controller.facts["force_limit"]


class Expert:
    """A filter that controls any number of cart-poles: a process each."""
    facts = dict(period=0.02)
    plant = "1", "0.1", "0.5"  # masses of cart and pole and half its length, here everywhere

    def __init__(self, program):
        self.program, self.processes = program, []

    def reset(self):
        for process in self.processes:
            process.communicate()  # closes its standard input, which ends it
        self.processes = []

    def step(self, states, _):
        try:
            while len(self.processes) < len(states):
                self.processes.append(
                    subprocess.Popen([self.program, *self.plant], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, text=True))
            for process, state in zip(self.processes, states):
                print(*state, file=process.stdin, flush=True)
            forces = np.array([float(process.stdout.readline()) for process in self.processes])
            if not np.isfinite(forces).all():
                raise ValueError("a force is not finite")
        except (OSError, ValueError) as error:
            fail(f"{self.program} does not answer with a force: {error}")
        return forces, None, None


def steps_per_period(controller, task, seconds):
    """Returns how many steps of a simulator a control period has."""
    period = controller.facts["period"]
    steps = round(period / seconds)
    if abs(steps * seconds - period) > 1e-9:
        fail(f"the control period, {period} s, is not a multiple of {seconds} s, as {task} needs")
    return steps


def load_environments(task, episodes):
    if task == "CartPole-v1":
        try:
            import gymnasium
        except ImportError as error:
            fail(f"{error}: pip install gymnasium==1.4.0")
        return [gymnasium.make(task) for _ in range(episodes)]
    os.environ.setdefault("MUJOCO_GL", "disable")  # no pictures
    try:
        from dm_control import suite
        return [suite.load("cartpole", task, dict(random=i)) for i in range(episodes)]
    except Exception as error:  # what another version of MuJoCo raises is anyone's guess
        fail(f"cannot load dm_control ({error}): pip install dm_control==1.0.50 mujoco==3.17.0")


def play_dm_control(controller, task, environments):
    """Returns the score of every episode, and when its pole is upright for good (s) or None."""
    episodes = len(environments)
    hold = steps_per_period(controller, task, 0.01)
    rewards, cosines = np.empty((2, episodes, 1000))
    forces = np.zeros(episodes)
    controller.reset()
    for environment in environments:
        environment.reset()
    for step in range(1000):
        if step % hold == 0:
            data = [environment.physics.data for environment in environments]
            states = [(d.qpos[0], d.qvel[0], d.qpos[1], d.qvel[1]) for d in data]
            forces = controller.step(states, forces)[0].clip(-NEWTONS, NEWTONS)
        for i, environment in enumerate(environments):
            rewards[i, step] = environment.step(forces[i] / NEWTONS).reward
            cosines[i, step] = np.cos(environment.physics.data.qpos[1])
    # Column t is the state at the end of step t.
    low = [np.flatnonzero(row < UPRIGHT) for row in cosines]
    first = [steps[-1] + 1 if len(steps) else 0 for steps in low]
    seconds = [round((t + 1) * 0.01, 2) if t < 1000 else None for t in first]
    return rewards.sum(axis=1), seconds


def play_gymnasium(controller, environments, told):
    """Returns the score of every episode."""
    episodes = len(environments)
    hold = steps_per_period(controller, "CartPole-v1", 0.02)
    states = np.array([e.reset(seed=i)[0] for i, e in enumerate(environments)])
    scores, over = np.zeros(episodes), np.zeros(episodes, dtype=bool)
    sent, owed = np.zeros((2, episodes))
    controller.reset()
    while not over.all():
        commands = controller.step(states, sent)[0]
        applied = np.where(owed + commands >= 0, NEWTONS, -NEWTONS)
        owed += commands - applied
        sent = applied if told == "applied" else commands
        for i in np.repeat(np.flatnonzero(~over), hold):
            if not over[i]:
                states[i], reward, fell, full, _ = environments[i].step(int(applied[i] > 0))
                scores[i] += reward
                over[i] = fell or full
    return scores


def play(controller, task, environments, told):
    if task == "CartPole-v1":
        scores, more = play_gymnasium(controller, environments, told), dict(told=told)
    else:
        scores, seconds = play_dm_control(controller, task, environments)
        more = dict(upright=sum(s is not None for s in seconds), seconds_until_upright=seconds)
    return dict(mean=scores.mean(), minimum=scores.min(), maximum=scores.max(),
                episodes=len(scores), step=controller.facts.get("step"), scores=scores.tolist(),
                **more)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", metavar="EXPORT_FOLDER")
    parser.add_argument("--expert", metavar="PROGRAM", help="plays instead of an export")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, metavar="TASK",
                        help="(default: all)")
    parser.add_argument("--episodes", type=int, default=10, metavar="N", help="(default: 10)")
    parser.add_argument("--told", choices=["command", "applied"], default="command",
                        help="(default: command)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the scores, too")
    parser.add_argument("--example", action="store_true",
                        help="play nothing, compare with the answers in the export's example.csv")
    o = parser.parse_args()
    if o.episodes < 1:
        parser.error("--episodes must be at least 1")
    if bool(o.folder) == bool(o.expert):
        parser.error("name either an EXPORT_FOLDER or an --expert")
    if o.expert and o.example:
        parser.error("--example is of an EXPORT_FOLDER")
    transformers.utils.logging.set_verbosity_error()  # silent on the tensors that are not GPT-2's
    transformers.utils.logging.disable_progress_bar()
    try:
        controller = Expert(o.expert) if o.expert else Controller(o.folder)
    except (OSError, ValueError) as error:
        fail(f"{o.folder} is not an export: {error}")
    if o.example:
        print(f"forces differ by at most {check_example(controller, o.folder):.1e} of the limit")
        return
    environments = {task: load_environments(task, o.episodes) for task in o.tasks}
    result = {}
    print("task               mean  min to max      episodes")
    for task in o.tasks:
        row = result[task] = play(controller, task, environments[task], o.told)
        print(f"{task:16} {row['mean']:6.1f}  {row['minimum']:5.1f} to {row['maximum']:5.1f}  "
              f"{o.episodes:8,}")
        if o.json:
            o.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        fail(error)
