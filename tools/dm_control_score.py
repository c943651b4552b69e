#!/usr/bin/env python3
"""Scores a trained network in a simulator it was never trained in: dm_control's cartpole swing-up.

  .venv/bin/python tools/dm_control_score.py output/quickstart

plays the newest checkpoint of a run and writes evaluation/dm_control.json in its folder, if the run
was evaluated; tools/report.py shows that. dm_control (MuJoCo) is not in requirements.txt: without
it, this prints what to install.

  ... output/quickstart --checkpoint FILE --episodes 100 --json scores.json
  ... --expert PROGRAM      plays a filter instead, such as tools/bench/expert_force.cpp

PROGRAM is started for every episode as "PROGRAM cart_mass pole_mass half_length" (kg, kg, m), and
answers every line "x x_dot theta theta_dot" with the force in N, on a line of its own.

An episode lasts 10 s and starts with a hanging pole. Its score is a sum of 1,000 rewards of at most
1, for a pole that is upright and slow, a cart near the center and a small force. The rail ends at
1.8 m, short of the 2.4 m of the default world.
"""
import argparse
import json
import os
import pickle
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import yaml

from bench.pytorch_peer import ControlModel

STEPS, STEP_SECONDS = 1000, 0.01  # of an episode
NEWTONS = 10.0  # at control 1
UPRIGHT = 0.995  # least cosine of the angle, as in dm_control's sparse swing-up
WORLD = {"control_period": 0.02, "force_limit": 10.0}  # where a configuration does not say


def fail(text):
    sys.exit(f"dm_control_score.py: {text}")


def load_environments(episodes):
    os.environ.setdefault("MUJOCO_GL", "disable")  # no pictures
    try:
        from dm_control import suite
        return [suite.load("cartpole", "swingup", dict(random=seed)) for seed in range(episodes)]
    except Exception as error:  # what another version of MuJoCo raises is anyone's guess
        fail(f"cannot load dm_control ({error}): pip install dm_control==1.0.50 mujoco==3.17.0")


def load_network(weights, model):
    """Returns the network of the speed benchmarks with the weights of a checkpoint."""
    own = {}
    for name, tensor in weights.items():
        if name != "feature_scales" and "_head." not in name:
            name = re.sub(r"\b(transformer|attn|mlp)\.", "", name.replace("mlp.c_proj", "c_out"))
            # GPT-2 keeps the matrices of its blocks as [in, out].
            own[name] = tensor.T if ".c_" in name and tensor.dim() == 2 else tensor
    for part in ("weight", "bias"):
        heads = [weights[f"{head}_head.{part}"] for head in ("force", "mode", "dynamics")]
        own[f"heads.{part}"] = torch.cat(heads)
    network = ControlModel(model["n_layer"], model["n_embd"], model["n_head"], model["n_positions"])
    network.load_state_dict(own)
    return network


def network_policy(path):
    """Returns the policy of a checkpoint, the world it was trained for, and its step."""
    try:
        checkpoint = torch.load(path, map_location="cpu")
        weights, step = checkpoint["model"], checkpoint["step"]
        config = yaml.safe_load(checkpoint["config"])
        window = min(config["model"]["n_positions"], checkpoint["trained_window"])
        world = WORLD | config.get("world", {})
        if config["model"]["family"] != "gpt2":
            fail(f"{path} is of model.family {config['model']['family']}; only gpt2 can play here")
        network, scales = load_network(weights, config["model"]), weights["feature_scales"]
    except (pickle.UnpicklingError, yaml.YAMLError, RuntimeError, EOFError, LookupError, TypeError,
            ValueError):
        fail(f"{path} is not a checkpoint of train_gpt2")
    if window < 1:
        fail(f"{path} is from step {step}: nothing has been trained yet")
    tokens = []  # of the current window, [episodes, 6] each

    @torch.inference_mode()
    def act(states, sent):
        # As src/model/model_policy.cpp, but everything is encoded again in every control period.
        if len(tokens) == window:
            del tokens[:window - window // 4]
            if tokens:
                tokens[0][:, -1] = 0.0
        if not tokens:  # as in training, where a window begins
            sent = np.zeros_like(sent)
        x, x_dot, theta, theta_dot = states.T
        features = np.column_stack((x, x_dot, np.sin(theta), np.cos(theta), theta_dot, sent))
        tokens.append(torch.tensor(features, dtype=torch.float32))
        share = network(torch.stack(tokens, dim=1) / scales)[:, -1, 0]
        return world["force_limit"] * share.double().numpy()

    return act, world, step


def expert_policy(program, environments):
    processes = []  # each ends with its standard input
    for environment in environments:
        model = environment.physics.named.model
        plant = model.body_mass["cart"], model.body_mass["pole_1"], model.body_ipos["pole_1", "z"]
        processes.append(
            subprocess.Popen([program, *map(str, plant)], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True))

    def act(states, _):
        try:
            for process, state in zip(processes, states):
                print(*state, file=process.stdin, flush=True)
            forces = np.array([float(process.stdout.readline()) for process in processes])
            if not np.isfinite(forces).all():
                raise ValueError("a force is not finite")
            return forces
        except (BrokenPipeError, ValueError) as error:
            fail(f"{program} does not answer with a force: {error}")

    return act


def play(policy, environments, world):
    """Returns the score of every episode, and when its pole is upright for good (s) or None."""
    hold = round(world["control_period"] / STEP_SECONDS)
    if abs(hold * STEP_SECONDS - world["control_period"]) > 1e-9:
        fail(f"world.control_period, {world['control_period']} s, is not a multiple of the "
             f"simulator's {STEP_SECONDS} s")
    limit = min(world["force_limit"], NEWTONS)
    rewards, cosines = np.empty((2, len(environments), STEPS))
    force = np.zeros(len(environments))
    for environment in environments:
        environment.reset()
    for step in range(STEPS):
        if step % hold == 0:
            states = np.array([(*e.physics.data.qpos, *e.physics.data.qvel) for e in environments])
            force = np.clip(policy(states[:, [0, 2, 1, 3]], force), -limit, limit)
        for i, environment in enumerate(environments):
            rewards[i, step] = environment.step(force[i] / NEWTONS).reward
            cosines[i, step] = np.cos(environment.physics.data.qpos[1])
    last_low = [int(np.flatnonzero(row < UPRIGHT)[-1]) for row in cosines]
    # Column t is the state at the end of step t.
    seconds = [round((t + 2) * STEP_SECONDS, 2) if t < STEPS - 1 else None for t in last_low]
    return rewards.sum(axis=1), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, nargs="?", metavar="RUN_FOLDER",
                        help="out_dir of the run, such as output/quickstart")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE",
                        help="(default: RUN_FOLDER/state.pt)")
    parser.add_argument("--episodes", type=int, default=10, metavar="N", help="(default: 10)")
    parser.add_argument("--expert", metavar="PROGRAM", help="plays instead of the network")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the scores, too")
    o = parser.parse_args()
    if not o.run_dir and not o.expert:
        parser.error("name a RUN_FOLDER or an --expert")
    if o.episodes < 1:
        parser.error("--episodes must be at least 1")
    environments = load_environments(o.episodes)
    files = [o.json] if o.json else []
    if o.expert:
        policy, world, step = expert_policy(o.expert, environments), WORLD, None
    else:
        policy, world, step = network_policy(o.checkpoint or o.run_dir / "state.pt")
        if (o.run_dir / "evaluation").is_dir():
            files.append(o.run_dir / "evaluation/dm_control.json")
    scores, seconds = play(policy, environments, world)
    upright = sum(s is not None for s in seconds)
    print("episode  score  upright after (s)")
    for i, (score, s) in enumerate(zip(scores, seconds)):
        print(f"{i:7}  {score:5.1f}  {'-' if s is None else f'{s:.2f}'}")
    print(f"mean {scores.mean():.1f}, {scores.min():.1f} to {scores.max():.1f} of {STEPS:,}; "
          f"{upright} of {o.episodes} stay upright")
    result = dict(scores=scores.tolist(), mean=scores.mean(), minimum=scores.min(),
                  maximum=scores.max(), upright=upright, episodes=o.episodes, step=step,
                  seconds_until_upright=seconds, dm_control=version("dm_control"),
                  mujoco=version("mujoco"))
    for path in files:
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        fail(error)
