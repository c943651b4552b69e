#include "cartpole_policy.h"

#include <stdint.h>

#include "policy_kernel.h"

#ifdef __wasm__ /* no C library: the page supplies these */
void* aligned_alloc(size_t alignment, size_t size);
void free(void*);
double sin(double), cos(double);
#else
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

enum { kState = 4, kFeatures = 6, kHeads = 11, kExampleNumbers = 11, kNameBytes = 64 };
enum { kHeaderBytes = 8 + 8 * 4 + 4 * 8 + (kFeatures + kState) * 4 + kNameBytes };
/* Of the worked example, see cartpole_policy_test. Between instruction sets the last bits differ,
 * which moves single numbers of a bfloat16 context by 1/256. */
static const double kTolerance = 1e-4, kSmallTolerance = 5e-3;

struct vector {
  const float *weight, *bias;
};
struct layer {
  struct vector norm_1, norm_2;
  struct policy_matrix attention, projection, hidden, out;
};

/* What the steps since it began have left: in each layer and head, see policy_memory. */
struct context {
  void* numbers; /* bfloat16 beside weights of 8 bits, which are as coarse; or else float */
  int length;
};

struct cartpole_policy {
  double period, force_limit, track_limit, gravity;
  int layers, width, heads, window, bits;
  long long parameters;
  float feature_scales[kFeatures], delta_rms[kState];
  char name[kNameBytes + 1];

  int padded;            /* width, to a multiple of a panel */
  int head, padded_head; /* of a head, to a multiple of a block */
  int attended;          /* all padded heads, to a multiple of a panel */
  int inner;             /* of a block's hidden layer, padded */
  int capacity;          /* window, to a multiple of a block */
  struct policy_matrix read_in, output;
  const float* positions; /* [window][padded] */
  struct layer* layer;
  struct vector norm;
  const double* examples; /* [example_count][kExampleNumbers] */
  int example_count;

  /* The second one begins at its position 0 when the first enters its last quarter, and sees the
   * same steps from there: when the first is full it holds what encoding them again would give. */
  struct context context[2];
  int current;

  float *x[2], *y[2], *qkv[2], *attention[2], *hidden[2], *scores, *heads_out;
  const struct policy_kernel* kernel;
  void* memory; /* all of it */
};

/* Kernels ---------------------------------------------------------------------------------- */

#ifdef POLICY_INSTRUCTION_SETS /* CMakeLists.txt compiles several */
#ifdef __x86_64__
extern const struct policy_kernel policy_avx512, policy_avx2, policy_plain;
#else
extern const struct policy_kernel policy_neon;
#endif
#else
extern const struct policy_kernel policy_native;
#endif

/* The k-th that this processor has, best first; NULL behind the last. */
static const struct policy_kernel* kernel_number(int k) {
  const struct policy_kernel* all[4] = {0};
  int n = 0;
#ifndef POLICY_INSTRUCTION_SETS
  all[n++] = &policy_native;
#elif defined(__x86_64__)
  if (__builtin_cpu_supports("x86-64-v4")) all[n++] = &policy_avx512;
  if (__builtin_cpu_supports("x86-64-v3")) all[n++] = &policy_avx2;
  all[n++] = &policy_plain;
#else
  all[n++] = &policy_neon;
#endif
  return k < n ? all[k] : 0;
}

static int same_text(const char* a, const char* b) {
  while (*a && *a == *b) ++a, ++b;
  return *a == *b;
}

int cartpole_policy_use(cartpole_policy* policy, const char* instruction_set) {
  if (!policy || !instruction_set) return CARTPOLE_POLICY_NULL_ARGUMENT;
  const struct policy_kernel* kernel;
  for (int k = 0; (kernel = kernel_number(k)) != 0; ++k)
    if (same_text(kernel->name, instruction_set)) {
      policy->kernel = kernel;
      return CARTPOLE_POLICY_OK;
    }
  return CARTPOLE_POLICY_UNSUPPORTED;
}

/* Reading ---------------------------------------------------------------------------------- */

static int is_finite(double value) { return value - value == 0.0; }

static void copy(void* to, const void* from, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) ((char*)to)[i] = ((const char*)from)[i];
}

/* Of a file whose size and checksum have been verified. */
struct reader {
  const uint8_t* at;
  int finite; /* everything read so far */
};

static uint32_t read_count(struct reader* reader) {
  uint32_t value;
  copy(&value, reader->at, sizeof value);
  reader->at += sizeof value;
  return value;
}
static float read_float(struct reader* reader) {
  float value;
  copy(&value, reader->at, sizeof value);
  reader->at += sizeof value;
  reader->finite &= is_finite(value);
  return value;
}
static double read_double(struct reader* reader) {
  double value;
  copy(&value, reader->at, sizeof value);
  reader->at += sizeof value;
  reader->finite &= is_finite(value);
  return value;
}

/* A piece of one block of memory. With no block yet it only counts. */
struct arena {
  char* base;
  size_t used;
};

static void* take(struct arena* arena, size_t bytes) {
  void* piece = arena->base ? arena->base + arena->used : 0;
  arena->used += (bytes + 63) / 64 * 64;
  return piece;
}
static float* take_floats(struct arena* arena, int64_t n) {
  return take(arena, (size_t)n * sizeof(float));
}

static int padded_to(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

/* rows * n numbers of the file, each row padded with zeros. */
static float* read_rows(struct reader* reader, struct arena* arena, int rows, int n, int padded) {
  float* result = take_floats(arena, (int64_t)rows * padded);
  if (result)
    for (int r = 0; r < rows; ++r)
      for (int i = 0; i < n; ++i) result[(int64_t)r * padded + i] = read_float(reader);
  return result;
}

static struct vector read_norm(struct reader* reader, struct arena* arena, int n, int padded) {
  struct vector norm;
  norm.weight = read_rows(reader, arena, 1, n, padded);
  norm.bias = read_rows(reader, arena, 1, n, padded);
  return norm;
}

/* Where input or output i of a matrix in the file belongs: heads lie apart by their padded size,
 * and each of `parts` (query, key, value) begins anew. part = 0: where it is. */
struct order {
  int part, padded_part, head, padded_head;
};
static int place(struct order order, int i) {
  if (order.part == 0) return i;
  const int within = i % order.part;
  return i / order.part * order.padded_part + within / order.head * order.padded_head +
         within % order.head;
}

/* Of a matrix in the file, with its bias. */
static int64_t matrix_bytes(int bits, int64_t inputs, int64_t outputs) {
  const int64_t groups = (inputs + POLICY_PANEL - 1) / POLICY_PANEL;
  return outputs * 4 +
         (bits == 32 ? inputs * outputs * 4 : inputs * outputs + groups * outputs * 4);
}

static struct policy_matrix read_matrix(struct reader* reader, struct arena* arena, int bits,
                                        int inputs, int outputs, int padded_inputs,
                                        int padded_outputs, struct order in, struct order out) {
  struct policy_matrix m = {.inputs = padded_inputs, .outputs = padded_outputs};
  const int64_t size = (int64_t)padded_inputs * padded_outputs;
#ifdef __wasm__ /* a browser multiplies numbers of 32 bits ten times faster */
  const int small = 0;
#else
  /* Where inputs move they may leave the group that shares their scale. */
  const int small = bits == 8 && (in.part == 0 || in.head == in.padded_head);
#endif
  float* weights = small ? 0 : take_floats(arena, size);
  int8_t* small_weights = small ? take(arena, (size_t)size) : 0;
  float* scales = small ? take_floats(arena, size / POLICY_PANEL) : 0;
  float* bias = take_floats(arena, padded_outputs);
  m.weights = weights;
  m.small_weights = small_weights;
  m.scales = scales;
  m.bias = bias;
  if (!arena->base) return m;

  const struct reader values = *reader;
  struct reader scale_reader = *reader;
  if (bits == 8) scale_reader.at += (int64_t)inputs * outputs;
  for (int i = 0; i < inputs; ++i)
    for (int o = 0; o < outputs; ++o) {
      const int to_input = place(in, i), to_output = place(out, o);
      const int64_t panel = to_output / POLICY_PANEL, lane = to_output % POLICY_PANEL;
      const int64_t to = (panel * padded_inputs + to_input) * POLICY_PANEL + lane;
      const int64_t from = (int64_t)i * outputs + o;
      if (bits == 32) {
        struct reader one = {values.at + from * 4, 1};
        weights[to] = read_float(&one);
        reader->finite &= one.finite;
        continue;
      }
      const int8_t small_weight = (int8_t)values.at[from];
      struct reader one = {scale_reader.at + ((int64_t)(i / POLICY_PANEL) * outputs + o) * 4, 1};
      const float scale = read_float(&one);
      reader->finite &= one.finite;
      if (small) {
        small_weights[to] = small_weight;
        scales[(panel * padded_inputs / POLICY_PANEL + to_input / POLICY_PANEL) * POLICY_PANEL +
               lane] = scale;
      } else {
        weights[to] = (float)small_weight * scale;
      }
    }
  reader->at += matrix_bytes(bits, inputs, outputs) - 4 * (int64_t)outputs;
  for (int o = 0; o < outputs; ++o) bias[place(out, o)] = read_float(reader);
  return m;
}

/* What a file with this header must have. */
static int64_t file_bytes(const cartpole_policy* p) {
  const int64_t C = p->width;
  const int64_t layer = 16 * C + matrix_bytes(p->bits, C, 3 * C) + matrix_bytes(p->bits, C, C) +
                        matrix_bytes(p->bits, C, 4 * C) + matrix_bytes(p->bits, 4 * C, C);
  return kHeaderBytes + matrix_bytes(32, kFeatures, C) + p->window * C * 4 + p->layers * layer +
         8 * C + matrix_bytes(32, C, kHeads) + (int64_t)p->example_count * kExampleNumbers * 8 + 8;
}

/* Bytes of a number in a context. */
static size_t context_number(const cartpole_policy* p) { return p->bits == 8 ? 2 : 4; }

static size_t context_bytes(const cartpole_policy* p) {
  return (size_t)p->layers * (size_t)p->heads * (size_t)p->capacity * (size_t)p->padded_head * 2 *
         context_number(p);
}

/* Everything behind the header, into memory that may only be counted yet. */
static void build(cartpole_policy* p, struct reader* reader, struct arena* arena) {
  const int C = p->width;
  const struct order as_it_is = {0, 0, 0, 0};
  const struct order by_head = {C, p->attended, p->head, p->padded_head};
  p->read_in =
      read_matrix(reader, arena, 32, kFeatures, C, POLICY_PANEL, p->padded, as_it_is, as_it_is);
  p->positions = read_rows(reader, arena, p->window, C, p->padded);
  p->layer = take(arena, (size_t)p->layers * sizeof(struct layer));
  for (int l = 0; l < p->layers; ++l) {
    struct layer layer;
    layer.norm_1 = read_norm(reader, arena, C, p->padded);
    layer.attention = read_matrix(reader, arena, p->bits, C, 3 * C, p->padded, 3 * p->attended,
                                  as_it_is, by_head);
    layer.projection =
        read_matrix(reader, arena, p->bits, C, C, p->attended, p->padded, by_head, as_it_is);
    layer.norm_2 = read_norm(reader, arena, C, p->padded);
    layer.hidden =
        read_matrix(reader, arena, p->bits, C, 4 * C, p->padded, p->inner, as_it_is, as_it_is);
    layer.out =
        read_matrix(reader, arena, p->bits, 4 * C, C, p->inner, p->padded, as_it_is, as_it_is);
    if (p->layer) p->layer[l] = layer;
  }
  p->norm = read_norm(reader, arena, C, p->padded);
  p->output =
      read_matrix(reader, arena, 32, C, kHeads, p->padded, POLICY_PANEL, as_it_is, as_it_is);
  double* examples = take(arena, (size_t)p->example_count * kExampleNumbers * sizeof(double));
  if (examples)
    for (int i = 0; i < p->example_count * kExampleNumbers; ++i) examples[i] = read_double(reader);
  p->examples = examples;

  for (int c = 0; c < 2; ++c) {
    p->context[c].numbers = take(arena, context_bytes(p));
    p->x[c] = take_floats(arena, p->padded);
    p->y[c] = take_floats(arena, p->padded);
    p->qkv[c] = take_floats(arena, 3 * p->attended);
    p->attention[c] = take_floats(arena, p->attended);
    p->hidden[c] = take_floats(arena, p->inner);
  }
  p->scores = take_floats(arena, p->capacity);
  p->heads_out = take_floats(arena, POLICY_PANEL);
}

static int read_header(cartpole_policy* p, const uint8_t* bytes, size_t size) {
  static const char kMagic[8] = {'C', 'A', 'R', 'T', 'P', 'O', 'L', 'E'};
  for (int i = 0; i < 8; ++i)
    if (size < 8 || bytes[i] != (uint8_t)kMagic[i]) return CARTPOLE_POLICY_NOT_A_POLICY;
  if (size < kHeaderBytes + 8) return CARTPOLE_POLICY_DAMAGED;
  uint64_t sum = 0xcbf29ce484222325U, recorded;
  for (size_t i = 0; i < size - 8; ++i) sum = (sum ^ bytes[i]) * 0x100000001b3U;
  copy(&recorded, bytes + size - 8, 8);
  if (sum != recorded) return CARTPOLE_POLICY_DAMAGED;

  struct reader reader = {bytes + 8, 1};
  uint32_t count[8];
  for (int i = 0; i < 8; ++i) count[i] = read_count(&reader);
  const uint32_t version = count[0], bits = count[1], layers = count[2], width = count[3],
                 heads = count[4], window = count[5], examples = count[6], inner = count[7];
  if (version != 1) return CARTPOLE_POLICY_NOT_A_POLICY;
  if ((bits != 32 && bits != 8) || layers < 1 || layers > 256 || width < 1 || width > 16384 ||
      heads < 1 || heads > width || width % heads != 0 || window < 1 || window > 65536 ||
      examples > 65536 || inner != 4 * width)
    return CARTPOLE_POLICY_UNSUPPORTED;
  p->bits = (int)bits;
  p->layers = (int)layers;
  p->width = (int)width;
  p->heads = (int)heads;
  p->window = (int)window;
  p->example_count = (int)examples;
  p->period = read_double(&reader);
  p->force_limit = read_double(&reader);
  p->track_limit = read_double(&reader);
  p->gravity = read_double(&reader);
  for (int i = 0; i < kFeatures; ++i) p->feature_scales[i] = read_float(&reader);
  for (int i = 0; i < kState; ++i) p->delta_rms[i] = read_float(&reader);
  copy(p->name, reader.at, kNameBytes);
  if ((uint64_t)file_bytes(p) != size) return CARTPOLE_POLICY_DAMAGED;
  if (!reader.finite || p->period <= 0 || p->force_limit <= 0 || p->track_limit <= 0)
    return CARTPOLE_POLICY_UNSUPPORTED;
  for (int i = 0; i < kFeatures; ++i)
    if (p->feature_scales[i] == 0) return CARTPOLE_POLICY_UNSUPPORTED;
  for (int i = 0; i < kState; ++i)
    if (p->delta_rms[i] <= 0) return CARTPOLE_POLICY_UNSUPPORTED;

  p->padded = padded_to(p->width, POLICY_PANEL);
  p->head = p->width / p->heads;
  p->padded_head = padded_to(p->head, POLICY_BLOCK);
  p->attended = padded_to(p->heads * p->padded_head, POLICY_PANEL);
  p->inner = padded_to(4 * p->width, POLICY_PANEL);
  p->capacity = padded_to(p->window, POLICY_BLOCK);
  const int64_t C = p->width;
  p->parameters = kFeatures * C + C + p->window * C + p->layers * (12 * C * C + 13 * C) + 2 * C +
                  kHeads * C + kHeads;
  return CARTPOLE_POLICY_OK;
}

/* Zeroed, and every page is there. In large pages where there are some: after a pause of a period
 * the processor has forgotten where thousands of small ones are. */
static char* allocate(size_t size) {
  const size_t large = (size_t)1 << 21, page = size < large / 8 ? 64 : large;
  size = (size + page - 1) / page * page;
  char* memory = aligned_alloc(page, size);
  if (!memory) return 0;
#ifdef MADV_HUGEPAGE
  if (page == large) madvise(memory, size, MADV_HUGEPAGE); /* a wish: its result does not matter */
#endif
  for (size_t i = 0; i < size; ++i) ((volatile char*)memory)[i] = 0;
  return memory;
}

int cartpole_policy_load_bytes(const void* bytes, size_t size, cartpole_policy** policy) {
  if (!bytes || !policy) return CARTPOLE_POLICY_NULL_ARGUMENT;
  *policy = 0;
  cartpole_policy header = {0};
  int status = read_header(&header, bytes, size);
  if (status) return status;

  struct reader reader = {(const uint8_t*)bytes + kHeaderBytes, 1};
  struct arena arena = {0, 0};
  take(&arena, sizeof(cartpole_policy));
  build(&header, &reader, &arena);
  /* A small file that asks for much: no real network has a window so long beside its width. */
  if (arena.used > ((size_t)1 << 28) + 64 * size) return CARTPOLE_POLICY_UNSUPPORTED;
  char* memory = allocate(arena.used);
  if (!memory) return CARTPOLE_POLICY_OUT_OF_MEMORY;

  arena = (struct arena){memory, 0};
  cartpole_policy* p = take(&arena, sizeof(cartpole_policy));
  *p = header;
  p->memory = memory;
  p->kernel = kernel_number(0);
  build(p, &reader, &arena);
  status = reader.finite ? cartpole_policy_test(p, 0) : CARTPOLE_POLICY_UNSUPPORTED;
  if (status) {
    cartpole_policy_free(p);
    return status;
  }
  *policy = p;
  return CARTPOLE_POLICY_OK;
}

#ifndef __wasm__
int cartpole_policy_load(const char* path, cartpole_policy** policy) {
  if (!path || !policy) return CARTPOLE_POLICY_NULL_ARGUMENT;
  *policy = 0;
  FILE* file = fopen(path, "rb");
  if (!file) return CARTPOLE_POLICY_UNREADABLE;
  int status = CARTPOLE_POLICY_UNREADABLE;
  uint8_t* bytes = 0;
  long size = -1;
  fgetc(file); /* fails for a folder, which would say that it is endless */
  if (!ferror(file) && fseek(file, 0, SEEK_END) == 0) size = ftell(file);
  if (size >= 0 && fseek(file, 0, SEEK_SET) == 0) {
    bytes = malloc(size > 0 ? (size_t)size : 1);
    if (!bytes) {
      status = CARTPOLE_POLICY_OUT_OF_MEMORY;
    } else if (fread(bytes, 1, (size_t)size, file) == (size_t)size) {
      status = cartpole_policy_load_bytes(bytes, (size_t)size, policy);
    }
  }
  free(bytes);
  fclose(file);
  return status;
}
#endif

void cartpole_policy_free(cartpole_policy* policy) {
  if (policy) free(policy->memory);
}

/* Running ---------------------------------------------------------------------------------- */

static struct policy_memory memory_of(const cartpole_policy* p, int context, int layer, int head) {
  const size_t size = (size_t)p->capacity * (size_t)p->padded_head * context_number(p);
  char* keys = (char*)p->context[context].numbers +
               ((size_t)layer * (size_t)p->heads + (size_t)head) * 2 * size;
  return (struct policy_memory){keys, keys + size, p->bits == 8};
}

static void put(const struct policy_memory* memory, void* numbers, int64_t at, float value) {
  if (!memory->half) {
    ((float*)numbers)[at] = value;
    return;
  }
  uint32_t bits;
  copy(&bits, &value, sizeof bits);
  ((uint16_t*)numbers)[at] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16); /* to nearest */
}

/* Puts the keys and values of one step at a position of a context. */
static void remember(cartpole_policy* p, int context, int layer, int position, const float* qkv) {
  const float *keys = qkv + p->attended, *values = keys + p->attended;
  for (int h = 0; h < p->heads; ++h) {
    const struct policy_memory memory = memory_of(p, context, layer, h);
    const int64_t block = (int64_t)(position / POLICY_BLOCK) * p->padded_head * POLICY_BLOCK;
    for (int d = 0; d < p->padded_head; ++d) {
      const int from = h * p->padded_head + d;
      const int64_t row = (int64_t)(d / POLICY_BLOCK) * p->capacity + position;
      put(&memory, (void*)memory.keys, block + d * POLICY_BLOCK + position % POLICY_BLOCK,
          keys[from]);
      put(&memory, (void*)memory.values, row * POLICY_BLOCK + d % POLICY_BLOCK, values[from]);
    }
  }
}

/* Through all layers, in the current context and with two rows in the next one, too, of which
 * nothing is wanted but what it remembers. */
static void run_layers(cartpole_policy* p, int rows, const int positions[2]) {
  const struct policy_kernel* kernel = p->kernel;
  const float scale = 1.0F / __builtin_sqrtf((float)p->head);
  for (int l = 0; l < p->layers; ++l) {
    const struct layer* layer = &p->layer[l];
    const int last = l + 1 == p->layers;
    for (int r = 0; r < rows; ++r)
      kernel->normalize(p->width, p->padded, p->x[r], layer->norm_1.weight, layer->norm_1.bias,
                        p->y[r]);
    kernel->multiply(&layer->attention, rows, p->y, p->qkv);
    for (int r = 0; r < rows; ++r) remember(p, p->current ^ r, l, positions[r], p->qkv[r]);
    if (last) rows = 1;
    for (int r = 0; r < rows; ++r)
      for (int h = 0; h < p->heads; ++h)
        kernel->attend(positions[r] + 1, p->capacity, p->padded_head, scale,
                       memory_of(p, p->current ^ r, l, h), p->qkv[r] + h * p->padded_head,
                       p->scores, p->attention[r] + h * p->padded_head);
    kernel->multiply(&layer->projection, rows, p->attention, p->y);
    for (int r = 0; r < rows; ++r) {
      kernel->add(p->padded, p->y[r], p->x[r]);
      kernel->normalize(p->width, p->padded, p->x[r], layer->norm_2.weight, layer->norm_2.bias,
                        p->y[r]);
    }
    kernel->multiply(&layer->hidden, rows, p->y, p->hidden);
    for (int r = 0; r < rows; ++r) kernel->gelu(p->inner, p->hidden[r]);
    kernel->multiply(&layer->out, rows, p->hidden, p->y);
    for (int r = 0; r < rows; ++r) kernel->add(p->padded, p->y[r], p->x[r]);
  }
}

/* A step as the network reads it; at position 0 it does not know the force before. */
static void embed(cartpole_policy* p, const double state[4], double sent, int position, float* x) {
  const double features[kFeatures] = {state[0],      state[1], sin(state[2]),
                                      cos(state[2]), state[3], position > 0 ? sent : 0.0};
  float* token = p->hidden[0]; /* free until the first layer */
  for (int i = 0; i < POLICY_PANEL; ++i)
    token[i] = i < kFeatures ? (float)features[i] / p->feature_scales[i] : 0.0F;
  float* const in[2] = {token, token};
  float* const out[2] = {x, x};
  p->kernel->multiply(&p->read_in, 1, in, out);
  p->kernel->add(p->padded, p->positions + (int64_t)position * p->padded, x);
}

static double limited(double value, double limit) {
  return value < -limit ? -limit : value > limit ? limit : value;
}

/* What is remembered may not be finite, and even numbers that count nothing are multiplied by 0. */
static void forget_all(cartpole_policy* p) {
  cartpole_policy_reset(p);
  for (int c = 0; c < 2; ++c)
    for (size_t i = 0; i < context_bytes(p); ++i) ((char*)p->context[c].numbers)[i] = 0;
}

int cartpole_policy_step(cartpole_policy* p, const double state[4], double sent,
                         cartpole_policy_action* action) {
  if (!p || !state || !action) return CARTPOLE_POLICY_NULL_ARGUMENT;
  for (int k = 0; k < kState; ++k)
    if (!is_finite((float)state[k])) return CARTPOLE_POLICY_NOT_FINITE;
  if (!is_finite((float)sent)) return CARTPOLE_POLICY_NOT_FINITE;

  const int kept = p->window / 4;
  if (p->context[p->current].length == p->window) {
    p->context[p->current].length = 0;
    p->current ^= 1;
  }
  struct context* now = &p->context[p->current];
  struct context* next = &p->context[p->current ^ 1];
  const int rows = now->length >= p->window - kept ? 2 : 1;
  const int positions[2] = {now->length, next->length};
  for (int r = 0; r < rows; ++r) embed(p, state, sent, positions[r], p->x[r]);
  run_layers(p, rows, positions);
  ++now->length;
  if (rows == 2) ++next->length;

  p->kernel->normalize(p->width, p->padded, p->x[0], p->norm.weight, p->norm.bias, p->y[0]);
  float* const out[2] = {p->heads_out, p->heads_out};
  p->kernel->multiply(&p->output, 1, p->y, out);
  const float *head = p->heads_out, *change = head + 3, *by_force = head + 7;
  for (int k = 0; k < kHeads; ++k)
    if (!is_finite(head[k])) {
      forget_all(p);
      return CARTPOLE_POLICY_NOT_FINITE;
    }
  const double share = limited(head[0], 1.0);
  action->force = share * p->force_limit;
  action->mode = head[2] > head[1];
  action->balancing = p->kernel->sigmoid(head[2] - head[1]);
  for (int k = 0; k < kState; ++k)
    action->next_state[k] = state[k] + p->delta_rms[k] * (change[k] + by_force[k] * share);
  return CARTPOLE_POLICY_OK;
}

int cartpole_policy_reset(cartpole_policy* policy) {
  if (!policy) return CARTPOLE_POLICY_NULL_ARGUMENT;
  policy->context[0].length = policy->context[1].length = 0;
  return CARTPOLE_POLICY_OK;
}

static double larger(double a, double b) {
  const double size = b < 0 ? -b : b;
  return size <= a ? a : size; /* which is not a number if b is not */
}

int cartpole_policy_test(cartpole_policy* p, double* largest_error) {
  if (!p) return CARTPOLE_POLICY_NULL_ARGUMENT;
  double largest = 0.0;
  cartpole_policy_reset(p);
  for (int i = 0; i < p->example_count; ++i) {
    const double* example = p->examples + (int64_t)i * kExampleNumbers;
    cartpole_policy_action action;
    if (cartpole_policy_step(p, example, example[4], &action)) {
      largest = 1e300;
      break;
    }
    largest = larger(largest, (action.force - example[5]) / p->force_limit);
    largest = larger(largest, action.balancing - example[6]);
    for (int k = 0; k < kState; ++k)
      largest = larger(largest, (action.next_state[k] - example[7 + k]) / p->delta_rms[k]);
  }
  cartpole_policy_reset(p);
  if (largest_error) *largest_error = largest;
  const double tolerance = p->bits == 8 ? kSmallTolerance : kTolerance;
  return largest <= tolerance ? CARTPOLE_POLICY_OK : CARTPOLE_POLICY_WRONG_ANSWERS;
}

int cartpole_policy_describe(const cartpole_policy* p, cartpole_policy_description* result) {
  if (!p || !result) return CARTPOLE_POLICY_NULL_ARGUMENT;
  *result = (cartpole_policy_description){
      .period = p->period,
      .force_limit = p->force_limit,
      .track_limit = p->track_limit,
      .gravity = p->gravity,
      .window = p->window,
      .bits = p->bits,
      .layers = p->layers,
      .width = p->width,
      .heads = p->heads,
      .parameters = p->parameters,
      .name = p->name,
      .instruction_set = p->kernel->name,
  };
  return CARTPOLE_POLICY_OK;
}

const char* cartpole_policy_status_text(int status) {
  switch (status) {
    case CARTPOLE_POLICY_OK:
      return "no error";
    case CARTPOLE_POLICY_NULL_ARGUMENT:
      return "an argument is NULL";
    case CARTPOLE_POLICY_UNREADABLE:
      return "the file cannot be read";
    case CARTPOLE_POLICY_NOT_A_POLICY:
      return "this is no policy file of this version; export_policy writes them";
    case CARTPOLE_POLICY_DAMAGED:
      return "the file is damaged: its size or checksum is not what it says; copy or export it "
             "again";
    case CARTPOLE_POLICY_UNSUPPORTED:
      return "the file holds a shape or a number that this library does not take";
    case CARTPOLE_POLICY_OUT_OF_MEMORY:
      return "there is not enough memory";
    case CARTPOLE_POLICY_WRONG_ANSWERS:
      return "the worked example in the file comes out differently here: do not use it";
    case CARTPOLE_POLICY_NOT_FINITE:
      return "a state, a force or an answer is not a finite number";
  }
  return "an unknown status";
}
