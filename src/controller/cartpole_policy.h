/* A trained cart-pole controller in plain C: no LibTorch, no C++, no threads. It computes what the
 * network of a checkpoint computes, from a file that export_policy writes (README.md here).
 *
 *   cartpole_policy* policy;
 *   int status = cartpole_policy_load("export/policy.bin", &policy);
 *   if (status) fail(cartpole_policy_status_text(status));
 *   double sent = 0.0;
 *   for (;;) {                                   // once per period, see cartpole_policy_describe
 *     const double state[4] = {x, x_dot, theta, theta_dot};
 *     cartpole_policy_action action;
 *     status = cartpole_policy_step(policy, state, sent, &action);
 *     sent = status ? 0.0 : action.force;
 *     send_to_motor(sent);
 *   }
 *   cartpole_policy_free(policy);
 *
 * Only load and free use memory from the heap. step, reset and test allocate nothing, take no lock,
 * make no system call, and touch only memory that load has written to. Every call returns a status;
 * nothing is thrown or printed. A handle belongs to one thread at a time; handles are independent.
 */
#ifndef CARTPOLE_POLICY_H
#define CARTPOLE_POLICY_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cartpole_policy cartpole_policy;

enum {
  CARTPOLE_POLICY_OK = 0,
  CARTPOLE_POLICY_NULL_ARGUMENT,
  CARTPOLE_POLICY_UNREADABLE,   /* the file; errno says why */
  CARTPOLE_POLICY_NOT_A_POLICY, /* another kind of file, or of another version */
  CARTPOLE_POLICY_DAMAGED,      /* its size or checksum is not what it says */
  CARTPOLE_POLICY_UNSUPPORTED,  /* a shape or a number that this library does not take */
  CARTPOLE_POLICY_OUT_OF_MEMORY,
  CARTPOLE_POLICY_WRONG_ANSWERS, /* here, the worked example in the file comes out differently */
  CARTPOLE_POLICY_NOT_FINITE /* a state or force, which the policy has not seen; or its answer */
};

/* A sentence in English for a status, never NULL. */
const char* cartpole_policy_status_text(int status);

/* Reads and verifies a policy and runs its worked example. On failure *policy is NULL. */
int cartpole_policy_load(const char* path, cartpole_policy** policy);
/* The same from memory, which may be released afterwards. */
int cartpole_policy_load_bytes(const void* bytes, size_t size, cartpole_policy** policy);
/* Takes NULL too. */
void cartpole_policy_free(cartpole_policy* policy);

typedef struct {
  double period;      /* s between steps: that of the plants it was trained on */
  double force_limit; /* N, symmetric */
  double track_limit; /* m, symmetric */
  double gravity;     /* m/s^2 */
  int window;         /* steps that it looks back on at most */
  int bits;           /* of a weight: 32 or 8 */
  int layers, width, heads;
  long long parameters;
  const char* name;            /* of the run and the step it comes from; lives as long as policy */
  const char* instruction_set; /* what step runs on: "avx512", "avx2", "neon", "plain", ... */
} cartpole_policy_description;
int cartpole_policy_describe(const cartpole_policy* policy, cartpole_policy_description* result);

/* Forgets what was seen: before a new trial, and after a pause of unknown length. */
int cartpole_policy_reset(cartpole_policy* policy);

typedef struct {
  double force;         /* N, within the limit: what to send in this period */
  int mode;             /* 0: swinging up, 1: balancing */
  double balancing;     /* probability of mode 1 */
  double next_state[4]; /* what the state is expected to be one period later, if force is sent */
} cartpole_policy_action;

/* One control period. `state` is [x (m), x_dot (m/s), theta (rad), theta_dot (rad/s)] as measured,
 * theta = 0 upright and positive leaning to +x; `sent` is the force (N) that was sent in the period
 * before (ignored in the first step after load and reset). Call once per period: the policy counts
 * periods, not time. When its window is full it goes on with the newest quarter of it, which it has
 * prepared meanwhile: no step takes longer for it than the quarter of the steps before. */
int cartpole_policy_step(cartpole_policy* policy, const double state[4], double sent,
                         cartpole_policy_action* action);

/* Runs the worked example of the file and resets. *largest_error, if not NULL, is the largest
 * deviation from the recorded answers: of the force over its limit, of the probability, and of the
 * next state in units of a usual change. Returns CARTPOLE_POLICY_WRONG_ANSWERS where it exceeds
 * 1e-4, or 5e-3 with 8-bit weights. */
int cartpole_policy_test(cartpole_policy* policy, double* largest_error);

/* Chooses among the instruction sets that this processor has, by name; for tests. Returns
 * CARTPOLE_POLICY_UNSUPPORTED where it has no such. */
int cartpole_policy_use(cartpole_policy* policy, const char* instruction_set);

#ifdef __cplusplus
}
#endif
#endif
