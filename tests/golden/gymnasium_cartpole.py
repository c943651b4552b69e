"""Makes gymnasium_cartpole.txt, which was done once: steps of Gymnasium's CartPole.

It needs `pip install gymnasium==1.4.0`. The integrator is explicit Euler and the force is +-10 N,
on several plants, under this project's gravity.

  python tests/golden/gymnasium_cartpole.py > tests/golden/gymnasium_cartpole.txt
"""

import random

from gymnasium.envs.classic_control.cartpole import CartPoleEnv

random.seed(1)
print("# cart_mass pole_mass half_length force, state before, state after: x x_dot theta theta_dot")
for _ in range(40):
    env = CartPoleEnv()
    env.gravity = 9.81
    env.masscart, env.masspole, env.length = random.uniform(0.5, 2), random.uniform(
        0.05, 0.5), random.uniform(0.25, 1)
    # The environment computes these only in its constructor.
    env.total_mass, env.polemass_length = env.masscart + env.masspole, env.masspole * env.length
    env.reset()
    env.state = before = tuple(random.uniform(-a, a) for a in (2, 2, 3, 6))
    action = random.randrange(2)
    env.step(action)
    print(*map(
        repr,
        map(float, (env.masscart, env.masspole, env.length, 10 if action else -10, *before,
                    *env.state))))
