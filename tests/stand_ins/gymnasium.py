"""Stands in for Gymnasium's CartPole-v1: its dynamics, limits and 500 steps."""
import numpy as np


class Environment:
    def reset(self, seed):
        self.state = np.random.default_rng(seed).uniform(-0.05, 0.05, 4)
        self.steps = 0
        return self.state.astype(np.float32), {}

    def step(self, action):
        assert action in (0, 1) and self.steps >= 0, "the episode is over"
        x, x_dot, theta, theta_dot = self.state
        force = 10.0 if action else -10.0
        push = (force + 0.05 * theta_dot**2 * np.sin(theta)) / 1.1
        theta_ddot = (9.8 * np.sin(theta) -
                      np.cos(theta) * push) / (0.5 * (4 / 3 - 0.1 * np.cos(theta)**2 / 1.1))
        x_ddot = push - 0.05 * theta_ddot * np.cos(theta) / 1.1
        self.state = self.state + 0.02 * np.array([x_dot, x_ddot, theta_dot, theta_ddot])
        fell = bool(abs(self.state[0]) > 2.4 or abs(self.state[2]) > np.radians(12))
        self.steps = self.steps + 1
        full = self.steps == 500
        if fell or full:
            self.steps = -1
        return self.state.astype(np.float32), 1.0, fell, full, {}


def make(name):
    assert name == "CartPole-v1"
    return Environment()
