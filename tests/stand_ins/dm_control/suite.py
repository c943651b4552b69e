"""Stands in for dm_control's cart-pole as tools/ use it: 1 kg, a rod of 0.1 kg and 1 m, 10 N at
control 1. The package itself is not among the requirements.
"""
import types

import numpy as np


class Environment:
    def __init__(self, task, seed):
        angle = 0.02 * (seed + 1) + (np.pi if task.startswith("swingup") else 0.0)
        self.start = np.array([0.0, angle, 0.0, 0.0])
        model = types.SimpleNamespace(body_mass={"cart": 1.0, "pole_1": 0.1},
                                      body_ipos={("pole_1", "z"): 0.5})
        self.physics = types.SimpleNamespace(named=types.SimpleNamespace(model=model))
        self.reset()

    def show(self):
        self.physics.data = types.SimpleNamespace(qpos=self.state[:2], qvel=self.state[2:])

    def reset(self):
        self.state = self.start.copy()
        self.show()

    def rate(self, state, force):
        (_, angle, x_dot, angle_dot), moment, g = state, 0.05, 9.81
        inertia = moment * 0.5 * 4 / 3
        matrix = [[1.1, moment * np.cos(angle)], [moment * np.cos(angle), inertia]]
        push = [force + moment * angle_dot**2 * np.sin(angle), moment * g * np.sin(angle)]
        return np.array([x_dot, angle_dot, *np.linalg.solve(matrix, push)])

    def step(self, control):
        force, h = 10.0 * control, 0.01
        assert abs(control) <= 1.0
        half = self.state + 0.5 * h * self.rate(self.state, force)
        self.state = self.state + h * self.rate(half, force)
        self.show()
        return types.SimpleNamespace(reward=float(np.cos(self.state[1]) > 0.995))


def load(domain, task, options):
    assert domain == "cartpole" and task in ("swingup", "swingup_sparse", "balance")
    return Environment(task, options["random"])
