#include "data/shard.h"

#include <algorithm>
#include <map>

#include "data/hdf5_file.h"
#include "program/durable_file.h"

namespace {

// The bytes of a column: those of the trajectories, or some made of them.
struct ColumnBytes {
  const void* data;
  std::shared_ptr<const void> owner;
};
template <class T>
ColumnBytes bytes_of(const std::vector<T>& values) {
  return {values.data(), nullptr};
}
template <class T, class Of>
ColumnBytes bytes_made(const Trajectories& all, size_t per_row, Of of) {
  auto values = std::make_shared<std::vector<T>>();
  values->reserve(all.size() * per_row);
  for (size_t i = 0; i < all.size(); ++i) of(i, *values);
  return {values->data(), values};
}

// An extent of a column's shape: a number, or one of these, N, T and T + 1 of FORMAT.md.
constexpr hsize_t kRows = 0, kSteps = ~hsize_t{0}, kStates = kSteps - 1;

struct Column {
  const char* name;
  ElementType type;
  std::vector<hsize_t> shape;
  const char *unit, *meaning;
  ColumnBytes (*bytes)(const Trajectories&);
};

ColumnBytes params(const Trajectories& all) {
  return bytes_made<float>(all, kPlantParameters.size(), [&](size_t i, std::vector<float>& values) {
    for (const auto& [name, value] : kPlantParameters)
      values.push_back(static_cast<float>(all.plants[i].*value));
  });
}
ColumnBytes length(const Trajectories& all) {
  return bytes_made<uint32_t>(all, 1, [&](size_t i, std::vector<uint32_t>& values) {
    values.push_back(std::min(all.outcome[i].length, all.recording.steps));
  });
}
ColumnBytes success(const Trajectories& all) {
  return bytes_made<uint8_t>(all, 1, [&](size_t i, std::vector<uint8_t>& values) {
    values.push_back(all.outcome[i].success);
  });
}
ColumnBytes first_switch(const Trajectories& all) {
  return bytes_made<int32_t>(all, 1, [&](size_t i, std::vector<int32_t>& values) {
    const int32_t step = all.outcome[i].first_switch;
    values.push_back(step < static_cast<int32_t>(all.recording.steps) ? step : -1);
  });
}

using enum ElementType;
template <class T>
constexpr ElementType kTypeOf = std::is_same_v<T, float>      ? kF32
                                : std::is_same_v<T, uint32_t> ? kU32
                                : std::is_same_v<T, int32_t>  ? kI32
                                                              : kU8;
using All = const Trajectories&;

// The format: what the writer writes and the reader expects. tests/programs/generate_test.py
// compares names, shapes, types and units with FORMAT.md.
// clang-format off
const std::vector<Column> kColumns = {
    {"state", kF32, {kRows, kStates, kStateSize}, "m, m/s, rad, rad/s",
     "x, x_dot, theta, theta_dot; theta 0 is upright, not wrapped",
     [](All all) { return bytes_of(all.recording.state); }},
    {"force_expert", kF32, {kRows, kSteps}, "N", "the expert's clean command: the label",
     [](All all) { return bytes_of(all.recording.force_policy); }},
    {"force_sent", kF32, {kRows, kSteps}, "N",
     "the command sent: a policy's times force_gain, plus noise, clipped; it moves the cart delay "
     "steps later",
     [](All all) { return bytes_of(all.recording.force_sent); }},
    {"mode", kU8, {kRows, kSteps}, "", "0 swing-up, 1 stabilise",
     [](All all) { return bytes_of(all.recording.mode); }},
    {"params", kF32, {kRows, kPlantParameters.size()}, "kg, kg, m, 1, N s/m, N m s, 1, steps",
     "cart mass, pole mass, half length, inertia factor, cart friction, pole friction, motor gain, "
     "delay",
     params},
    {"length", kU32, {kRows}, "steps", "valid steps; less than T when the cart left the track",
     length},
    {"stage", kU8, {kRows}, "", "0 balance, 1 catch, 2 swing-up, 3 unknown plant, 4 kicked",
     [](All all) { return bytes_of(all.stage); }},
    {"attempt", kU32, {kRows}, "", "earlier draws of this index that were dropped",
     [](All all) { return bytes_of(all.attempt); }},
    {"success", kU8, {kRows}, "",
     "1: the expert succeeded over 20.48 s, or over all steps if more are recorded",
     success},
    {"first_switch", kI32, {kRows}, "steps", "first step in stabilise mode; -1: none",
     first_switch},
    {"excitation_steps", kI32, {kRows}, "steps",
     "for so many first steps the command is noise",
     [](All all) { return bytes_of(all.excitation_steps); }},
    {"kick_step", kI32, {kRows}, "steps", "step before which theta_dot jumps; -1: none",
     [](All all) { return bytes_of(all.kick_step); }},
    {"kick", kF32, {kRows}, "rad/s", "by how much it jumps",
     [](All all) { return bytes_of(all.kick); }},
    {"noise_sigma", kF32, {kRows}, "N", "standard deviation of the commands' noise",
     [](All all) { return bytes_of(all.noise_sigma); }},
    {"force_gain", kF32, {kRows}, "1", "the command sent is the policy's times this, plus noise",
     [](All all) { return bytes_of(all.force_gain); }},
};
// Only in worlds with sensor noise.
const Column kMeasured = {
    "measured", kF32, {kRows, kSteps, kStateSize}, "m, m/s, rad, rad/s",
    "the state as sensors measured it: what a controller sees",
    [](All all) { return bytes_of(all.recording.measured); }};
// clang-format on

std::vector<Column> columns_of(bool noisy) {
  std::vector<Column> columns = kColumns;
  if (noisy) columns.push_back(kMeasured);
  return columns;
}

// The column's shape for `rows` trajectories of `steps`.
std::vector<hsize_t> shape_of(const Column& column, hsize_t rows, hsize_t steps) {
  std::vector<hsize_t> shape = column.shape;
  for (hsize_t& extent : shape)
    extent = extent == kRows     ? rows
             : extent == kSteps  ? steps
             : extent == kStates ? steps + 1
                                 : extent;
  return shape;
}

}  // namespace

Trajectories::Trajectories(size_t size, uint32_t steps, bool noisy)
    : recording(size, steps, noisy),
      plants(size),
      outcome(size),
      attempt(size),
      stage(size, kUnknownPlantStage),
      excitation_steps(size, 0),
      kick_step(size, -1),
      kick(size),
      noise_sigma(size),
      force_gain(size, 1.0F) {}

Fingerprint write_shard(const std::filesystem::path& path, const Trajectories& trajectories,
                        const std::vector<std::pair<std::string, std::string>>& attributes) {
  std::vector<ColumnBytes> bytes;
  std::vector<Hdf5Array> arrays;
  for (const Column& column : columns_of(!trajectories.recording.measured.empty())) {
    bytes.push_back(column.bytes(trajectories));
    arrays.push_back({column.name, column.type,
                      shape_of(column, trajectories.size(), trajectories.recording.steps),
                      bytes.back().data, column.unit, column.meaning});
  }

  Hdf5Session session;
  Hdf5Writer file(path, Hdf5Writer::Mode::kCreate);
  for (const auto& [name, value] : attributes) file.attribute(name, value);
  for (const auto& array : arrays) file.write(array);
  file.close();

  Hdf5Writer written(path, Hdf5Writer::Mode::kVerify);
  const MappedFile mapped = map_file(path);
  for (const auto& array : arrays) written.verify(array, mapped.view());
  written.close();
  session.end();
  return {mapped.size, sha256_hex(mapped.view())};
}

MappedShard::MappedShard(const std::filesystem::path& path, bool noisy) {
  const Hdf5Session session;
  const Hdf5Reader file(path);
  mapping_ = file.mapping();
  std::vector<hsize_t> shape{0, 0, kStateSize};  // 0: as the file has it
  file.array("state", kF32, shape);
  rows_ = shape[0];
  steps_ = shape[1] - 1;
  std::map<std::string, std::pair<ElementType, const char*>> columns;
  for (const Column& column : columns_of(noisy)) {
    shape = shape_of(column, rows_, steps_);
    columns[column.name] = {column.type, file.array(column.name, column.type, shape)};
  }
  const auto find = [&]<class T>(const char* name, const T*& pointer) {
    const auto& [type, address] = columns.at(name);
    if (type != kTypeOf<T>) throw std::logic_error(std::string(name) + " has another type");
    pointer = reinterpret_cast<const T*>(address);
  };
  find("state", state_);
  find("force_expert", force_expert_);
  if (noisy) find("measured", measured_);
  find("force_sent", force_sent_);
  find("mode", mode_);
  find("params", params_);
  find("length", length_);
  find("stage", stage_);
  find("kick_step", kick_step_);
  find("kick", kick_);
}

CartPoleParameters MappedShard::plant(size_t row) const {
  CartPoleParameters plant;
  const float* stored = params_ + row * kPlantParameters.size();
  for (const auto& [name, value] : kPlantParameters) plant.*value = *stored++;
  return plant;
}

CartPoleState MappedShard::start(size_t row) const {
  const float* s = state(row);
  return {s[0], s[1], s[2], s[3]};
}
