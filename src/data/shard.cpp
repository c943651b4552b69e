#include "data/shard.h"

#include <fcntl.h>
#include <hdf5.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <string_view>

#include "program/durable_file.h"
#include "program/exit_code.h"

namespace {

std::mutex one_thread_at_a_time;  // in HDF5

class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator hid_t() const { return id_; }
  // A close can be the call that fails on a full disk, so writers close by hand.
  bool close() { return close_(std::exchange(id_, -1)) >= 0; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

void quiet_hdf5() {
  // HDF5's own exit handler has crashed after a failed close on a full disk; and its error stack is
  // noise to users.
  static const bool once = H5dont_atexit() >= 0;
  (void)once;
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // of this thread
}

// How files are opened: every array aligned, since readers use them in place; and without HDF5's
// locks, which network file systems often lack, and no file here has two writers.
class Access : public Handle {
 public:
  Access() : Handle(H5Pcreate(H5P_FILE_ACCESS), H5Pclose) {
    ready = H5Pset_alignment(*this, 1, 64) >= 0 && H5Pset_file_locking(*this, false, true) >= 0;
  }
  bool ready;
};

// The file in memory, read-only, until the last copy of the pointer goes. Throws UserError: kIo,
// or kConfiguration where the kernel allows no more mappings.
std::shared_ptr<const char> map_file(const std::filesystem::path& path, size_t& bytes) {
  const auto fail = [&](ExitCode code, const char* hint = "") {
    throw UserError(code,
                    "cannot map " + path.string() + " into memory: " + std::strerror(errno) + hint);
  };
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(ExitCode::kIo);
  bytes = static_cast<size_t>(::lseek(fd, 0, SEEK_END));
  void* mapped = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  ::close(fd);
  if (mapped == MAP_FAILED && errno == ENOMEM)
    fail(ExitCode::kConfiguration,
         ". Every shard is mapped, and the kernel allows vm.max_map_count of them: raise it, or "
         "make the dataset of fewer, larger shards (dataset.train_shards)");
  if (mapped == MAP_FAILED) fail(ExitCode::kIo);
  return {static_cast<const char*>(mapped),
          [bytes](const char* address) { ::munmap(const_cast<char*>(address), bytes); }};
}

struct Column {
  const char* name;
  hid_t type;  // in the file, and little-endian memory
  std::vector<hsize_t> shape;
  const void* data;
  const char *unit, *meaning;
};

size_t column_bytes(const Column& column) {
  size_t bytes = H5Tget_size(column.type);
  for (const hsize_t extent : column.shape) bytes *= extent;
  return bytes;
}

class ShardFile {
 public:
  ShardFile(std::filesystem::path path, hid_t id) : path_(std::move(path)), file_(id, H5Fclose) {
    check(file_ >= 0, "open");
  }
  void check(bool ok, const std::string& what) const {
    if (!ok)
      throw UserError(ExitCode::kIo,
                      "cannot " + what + " in " + path_.string() +
                          " (disk full or not writable?): free space or choose another "
                          "dataset.path, then start again, which keeps what is complete");
  }
  void attribute(hid_t object, const std::string& name, const std::string& value) const {
    const Handle type(H5Tcopy(H5T_C_S1), H5Tclose), space(H5Screate(H5S_SCALAR), H5Sclose);
    const bool typed =
        H5Tset_size(type, H5T_VARIABLE) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0;
    const char* text = value.c_str();
    Handle attribute(H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT),
                     H5Aclose);
    check(typed && attribute >= 0 && H5Awrite(attribute, type, &text) >= 0 && attribute.close(),
          "write attribute " + name);
  }
  void write(const Column& column) const {
    const Handle space(
        H5Screate_simple(static_cast<int>(column.shape.size()), column.shape.data(), nullptr),
        H5Sclose);
    const Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    // Without times the same content gives the same bytes.
    const bool laid_out = H5Pset_obj_track_times(properties, false) >= 0 &&
                          H5Pset_layout(properties, H5D_CONTIGUOUS) >= 0;
    Handle dataset(
        H5Dcreate2(file_, column.name, column.type, space, H5P_DEFAULT, properties, H5P_DEFAULT),
        H5Dclose);
    check(laid_out && dataset >= 0 &&
              H5Dwrite(dataset, column.type, H5S_ALL, H5S_ALL, H5P_DEFAULT, column.data) >= 0,
          std::string("write ") + column.name);
    attribute(dataset, "unit", column.unit);
    attribute(dataset, "meaning", column.meaning);
    check(dataset.close(), std::string("close ") + column.name);
  }
  // As readers do it: where HDF5 says that the column lies.
  void verify(const Column& column, std::string_view mapped) const {
    const Handle dataset(H5Dopen2(file_, column.name, H5P_DEFAULT), H5Dclose);
    const size_t bytes = column_bytes(column);
    const haddr_t offset = dataset >= 0 ? H5Dget_offset(dataset) : HADDR_UNDEF;
    check(offset != HADDR_UNDEF && offset + bytes <= mapped.size() &&
              std::memcmp(mapped.data() + offset, column.data, bytes) == 0,
          std::string("find what was written to ") + column.name);
  }
  void close() {
    check(H5Fflush(file_, H5F_SCOPE_GLOBAL) >= 0, "flush");
    check(file_.close(), "close");
  }
  operator hid_t() const { return file_; }

 private:
  std::filesystem::path path_;
  Handle file_;
};

}  // namespace

Trajectories::Trajectories(size_t size, uint32_t steps)
    : recording(size, steps),
      plants(size),
      outcome(size),
      attempt(size),
      stage(size, kUnknownPlantStage),
      excitation_steps(size, 0),
      kick_step(size, -1),
      noise_sigma(size),
      force_gain(size, 1.0F) {}

Fingerprint write_shard(const std::filesystem::path& path, const Trajectories& trajectories,
                        const std::vector<std::pair<std::string, std::string>>& attributes) {
  std::unique_lock alone(one_thread_at_a_time);
  quiet_hdf5();
  const hsize_t N = trajectories.size(), T = trajectories.recording.steps;
  std::vector<float> params;
  std::vector<uint32_t> length;
  std::vector<uint8_t> success;
  std::vector<int32_t> first_switch;
  for (size_t i = 0; i < N; ++i) {
    const auto& p = trajectories.plants[i];
    for (const double value : {p.cart_mass, p.pole_mass, p.half_length, p.inertia_factor,
                               p.cart_friction, p.pole_friction, p.motor_gain, p.delay_steps})
      params.push_back(static_cast<float>(value));
    const auto& outcome = trajectories.outcome[i];
    const auto recorded = static_cast<uint32_t>(T);
    length.push_back(std::min(outcome.length, recorded));
    success.push_back(outcome.success);
    first_switch.push_back(
        outcome.first_switch < static_cast<int32_t>(recorded) ? outcome.first_switch : -1);
  }

  const Recording& recording = trajectories.recording;
  const hid_t f32 = H5T_IEEE_F32LE, u32 = H5T_STD_U32LE, i32 = H5T_STD_I32LE, u8 = H5T_STD_U8LE;
  const std::vector<Column> columns = {
      {"state",
       f32,
       {N, T + 1, 4},
       recording.state.data(),
       "m, m/s, rad, rad/s",
       "x, x_dot, theta, theta_dot; theta 0 is upright, not wrapped"},
      {"force_expert",
       f32,
       {N, T},
       recording.force_policy.data(),
       "N",
       "the expert's clean command: the label"},
      {"force_applied",
       f32,
       {N, T},
       recording.force_applied.data(),
       "N",
       "what moved the cart: the command times force_gain, plus noise, clipped, delay steps late"},
      {"mode", u8, {N, T}, recording.mode.data(), "", "0 swing-up, 1 stabilise"},
      {"params",
       f32,
       {N, 8},
       params.data(),
       "kg, kg, m, 1, N s/m, N m s, 1, steps",
       "cart mass, pole mass, half length, inertia factor, cart friction, pole friction, motor "
       "gain, delay"},
      {"length",
       u32,
       {N},
       length.data(),
       "steps",
       "valid steps; less than T when the cart left the track"},
      {"stage",
       u8,
       {N},
       trajectories.stage.data(),
       "",
       "0 balance, 1 catch, 2 swing-up, 3 unknown plant, 4 kicked"},
      {"attempt",
       u32,
       {N},
       trajectories.attempt.data(),
       "",
       "earlier draws of this index that were dropped"},
      {"success",
       u8,
       {N},
       success.data(),
       "",
       "1: the expert succeeded over 1024 steps, or over all if more are recorded"},
      {"first_switch",
       i32,
       {N},
       first_switch.data(),
       "steps",
       "first step in stabilise mode; -1: none"},
      {"excitation_steps",
       i32,
       {N},
       trajectories.excitation_steps.data(),
       "steps",
       "the first so many forces are noise, whatever the expert commands"},
      {"kick_step",
       i32,
       {N},
       trajectories.kick_step.data(),
       "steps",
       "step before which theta_dot jumps; -1: none"},
      {"noise_sigma",
       f32,
       {N},
       trajectories.noise_sigma.data(),
       "N",
       "standard deviation of the executed-force noise"},
      {"force_gain",
       f32,
       {N},
       trajectories.force_gain.data(),
       "1",
       "the executed force is the command times this, plus noise"},
  };

  Access access;
  ShardFile file(path, H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access));
  file.check(access.ready, "set up HDF5");
  for (const auto& [name, value] : attributes) file.attribute(file, name, value);
  for (const auto& column : columns) file.write(column);
  file.close();

  ShardFile written(path, H5Fopen(path.c_str(), H5F_ACC_RDONLY, access));
  size_t bytes = 0;
  const auto mapping = map_file(path, bytes);
  const std::string_view mapped(mapping.get(), bytes);
  for (const auto& column : columns) written.verify(column, mapped);
  written.close();
  access.close();
  alone.unlock();
  return {bytes, sha256_hex(mapped)};
}

MappedShard::MappedShard(const std::filesystem::path& path) {
  const std::lock_guard alone(one_thread_at_a_time);
  quiet_hdf5();
  const auto refuse = [&](const std::string& why) {
    throw UserError(ExitCode::kData, path.string() + ": " + why + "; generate the dataset again");
  };
  const Access access;
  const Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access), H5Fclose);
  if (file < 0) refuse("HDF5 cannot open it");
  size_t bytes = 0;
  mapping_ = map_file(path, bytes);

  // The address of a contiguous, unconverted array in the file; an extent of 0 in `shape` is taken
  // from the file.
  const auto array = [&](const char* name, hid_t type, std::vector<hsize_t>& shape) {
    const Handle dataset(H5Dopen2(file, name, H5P_DEFAULT), H5Dclose);
    if (dataset < 0) refuse(std::string("has no ") + name);
    const Handle space(H5Dget_space(dataset), H5Sclose), stored(H5Dget_type(dataset), H5Tclose);
    std::vector<hsize_t> extents(shape.size());
    const haddr_t offset = H5Dget_offset(dataset);
    if (H5Sget_simple_extent_ndims(space) != static_cast<int>(shape.size()) ||
        H5Sget_simple_extent_dims(space, extents.data(), nullptr) < 0 ||
        H5Tequal(stored, type) <= 0 || offset == HADDR_UNDEF || offset % H5Tget_size(type) != 0)
      refuse(std::string(name) + " is not of the expected shape, type, layout or alignment");
    size_t size = H5Tget_size(type);
    for (size_t k = 0; k < shape.size(); ++k) {
      if (shape[k] && shape[k] != extents[k])
        refuse(std::string(name) + " is not of the expected shape");
      size *= extents[k];
    }
    if (offset + size > bytes) refuse(std::string(name) + " ends beyond the file");
    shape = extents;
    return mapping_.get() + offset;
  };
  std::vector<hsize_t> state_shape{0, 0, 4};
  state_ = reinterpret_cast<const float*>(array("state", H5T_IEEE_F32LE, state_shape));
  rows_ = state_shape[0];
  steps_ = state_shape[1] - 1;
  std::vector<hsize_t> step_shape{rows_, steps_}, row_shape{rows_}, param_shape{rows_, 8};
  force_expert_ = reinterpret_cast<const float*>(array("force_expert", H5T_IEEE_F32LE, step_shape));
  force_applied_ =
      reinterpret_cast<const float*>(array("force_applied", H5T_IEEE_F32LE, step_shape));
  mode_ = reinterpret_cast<const uint8_t*>(array("mode", H5T_STD_U8LE, step_shape));
  params_ = reinterpret_cast<const float*>(array("params", H5T_IEEE_F32LE, param_shape));
  length_ = reinterpret_cast<const uint32_t*>(array("length", H5T_STD_U32LE, row_shape));
  stage_ = reinterpret_cast<const uint8_t*>(array("stage", H5T_STD_U8LE, row_shape));
  kick_step_ = reinterpret_cast<const int32_t*>(array("kick_step", H5T_STD_I32LE, row_shape));
}

CartPoleParameters MappedShard::plant(size_t row) const {
  const float* p = params_ + row * 8;
  return {p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]};
}

CartPoleState MappedShard::start(size_t row) const {
  const float* s = state(row);
  return {s[0], s[1], s[2], s[3]};
}
