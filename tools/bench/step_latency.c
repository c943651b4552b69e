/* Times the steps of a policy at its period, for control_latency.py: sleeps to every multiple of
 * the period, prints the microseconds that the step took and the position in the window.
 *   step_latency POLICY SECONDS PROCESSOR */
#define _GNU_SOURCE
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "controller/cartpole_policy.h"

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int main(int argc, char** argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: step_latency POLICY SECONDS PROCESSOR\n");
    return 64;
  }
  cpu_set_t processor;
  CPU_ZERO(&processor);
  CPU_SET(atoi(argv[3]), &processor);
  sched_setaffinity(0, sizeof processor, &processor);
  cartpole_policy* policy;
  const int status = cartpole_policy_load(argv[1], &policy);
  if (status) {
    fprintf(stderr, "step_latency: %s: %s\n", argv[1], cartpole_policy_status_text(status));
    return 65;
  }
  cartpole_policy_description about;
  cartpole_policy_describe(policy, &about);
  mlockall(MCL_CURRENT | MCL_FUTURE); /* a wish */

  const int steps = (int)(atof(argv[2]) / about.period);
  double* took = calloc((size_t)steps, sizeof(double));
  if (!took) return 74;
  cartpole_policy_action action = {0};
  double tick = seconds_now();
  for (int i = 0; i < steps; ++i) {
    for (double wait; (wait = tick - seconds_now()) > 0;) {
      const struct timespec pause = {0, (long)(1e9 * wait)};
      nanosleep(&pause, NULL);
    }
    const double state[] = {0.1 * sin(0.05 * i), 0.1 * cos(0.05 * i), 3.0 * sin(0.03 * i), 0.1};
    const double before = seconds_now();
    cartpole_policy_step(policy, state, action.force, &action);
    const double after = seconds_now();
    took[i] = after - before;
    while (tick <= after) tick += about.period; /* a period that was missed is not made up for */
  }
  int position = 0;
  for (int i = 0; i < steps; ++i) {
    const int full = position == about.window;
    position = full ? about.window / 4 : position;
    printf("%.3f %d\n", 1e6 * took[i], full ? -1 : position);
    ++position;
  }
  return 0;
}
