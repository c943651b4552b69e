#include "data/hdf5_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "program/exit_code.h"

namespace {

hid_t hdf5_type(ElementType type) {
  switch (type) {
    case ElementType::kF32:
      return H5T_IEEE_F32LE;
    case ElementType::kU32:
      return H5T_STD_U32LE;
    case ElementType::kI32:
      return H5T_STD_I32LE;
    case ElementType::kU8:
      return H5T_STD_U8LE;
  }
  return H5I_INVALID_HID;
}

size_t byte_size(ElementType type, const std::vector<hsize_t>& shape) {
  size_t bytes = H5Tget_size(hdf5_type(type));
  for (const hsize_t extent : shape) bytes *= extent;
  return bytes;
}

// Every array aligned, since readers use them in place; and without HDF5's locks, which network
// file systems often lack: no file here has two writers.
hid_t access_properties() {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  const bool ready =
      H5Pset_alignment(access, 1, 64) >= 0 && H5Pset_file_locking(access, false, true) >= 0;
  if (ready) return access;
  H5Pclose(access);
  return H5I_INVALID_HID;
}

}  // namespace

Hdf5Session::Hdf5Session() {
  static std::mutex mutex;
  alone_ = std::unique_lock(mutex);
  // HDF5's own exit handler has crashed after a failed close on a full disk; and its error stack is
  // noise to users.
  static std::once_flag once;
  std::call_once(once, [] { H5dont_atexit(); });
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // of this thread
}

Hdf5Handle::~Hdf5Handle() {
  if (id_ >= 0) close_(id_);
}

bool Hdf5Handle::close() { return close_(std::exchange(id_, -1)) >= 0; }

MappedFile map_file(const std::filesystem::path& path) {
  const auto fail = [&](ExitCode code, const char* hint = "") {
    throw UserError(code,
                    "cannot map " + path.string() + " into memory: " + std::strerror(errno) + hint);
  };
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(ExitCode::kIo);
  const auto bytes = static_cast<size_t>(::lseek(fd, 0, SEEK_END));
  void* mapped = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  ::close(fd);
  if (mapped == MAP_FAILED && errno == ENOMEM)
    fail(ExitCode::kConfiguration,
         ". Every shard is mapped, and the kernel allows vm.max_map_count of them: raise it, or "
         "make the dataset of fewer, larger shards (dataset.train_shards)");
  if (mapped == MAP_FAILED) fail(ExitCode::kIo);
  const auto unmap = [bytes](const char* address) { ::munmap(const_cast<char*>(address), bytes); };
  return {{static_cast<const char*>(mapped), unmap}, bytes};
}

Hdf5Writer::Hdf5Writer(std::filesystem::path path, Mode mode)
    : path_(std::move(path)),
      access_(access_properties(), H5Pclose),
      file_(mode == Mode::kCreate ? H5Fcreate(path_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access_)
                                  : H5Fopen(path_.c_str(), H5F_ACC_RDONLY, access_),
            H5Fclose) {
  check(access_ >= 0 && file_ >= 0, "open");
}

void Hdf5Writer::check(bool ok, const std::string& what) const {
  if (!ok)
    throw UserError(ExitCode::kIo, "cannot " + what + " in " + path_.string() +
                                       " (disk full or not writable?): free space or choose "
                                       "another dataset.path, then start again, which keeps what "
                                       "is complete");
}

void Hdf5Writer::attribute(const std::string& name, const std::string& value) const {
  attribute_of(file_, name, value);
}

void Hdf5Writer::attribute_of(hid_t object, const std::string& name,
                              const std::string& value) const {
  const Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose), space(H5Screate(H5S_SCALAR), H5Sclose);
  const bool typed = H5Tset_size(type, H5T_VARIABLE) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0;
  const char* text = value.c_str();
  Hdf5Handle attribute(H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT),
                       H5Aclose);
  check(typed && attribute >= 0 && H5Awrite(attribute, type, &text) >= 0 && attribute.close(),
        "write attribute " + name);
}

void Hdf5Writer::write(const Hdf5Array& array) const {
  const hid_t type = hdf5_type(array.type);
  const Hdf5Handle space(
      H5Screate_simple(static_cast<int>(array.shape.size()), array.shape.data(), nullptr),
      H5Sclose);
  const Hdf5Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  // Without times the same content gives the same bytes.
  const bool laid_out = H5Pset_obj_track_times(properties, false) >= 0 &&
                        H5Pset_layout(properties, H5D_CONTIGUOUS) >= 0;
  Hdf5Handle dataset(
      H5Dcreate2(file_, array.name.c_str(), type, space, H5P_DEFAULT, properties, H5P_DEFAULT),
      H5Dclose);
  check(laid_out && dataset >= 0 &&
            H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, array.data) >= 0,
        "write " + array.name);
  attribute_of(dataset, "unit", array.unit);
  attribute_of(dataset, "meaning", array.meaning);
  check(dataset.close(), "close " + array.name);
}

void Hdf5Writer::verify(const Hdf5Array& array, std::string_view mapped) const {
  const Hdf5Handle dataset(H5Dopen2(file_, array.name.c_str(), H5P_DEFAULT), H5Dclose);
  const size_t bytes = byte_size(array.type, array.shape);
  const haddr_t offset = dataset >= 0 ? H5Dget_offset(dataset) : HADDR_UNDEF;
  check(offset != HADDR_UNDEF && offset + bytes <= mapped.size() &&
            std::memcmp(mapped.data() + offset, array.data, bytes) == 0,
        "find what was written to " + array.name);
}

void Hdf5Writer::close() {
  check(H5Fflush(file_, H5F_SCOPE_GLOBAL) >= 0, "flush");
  check(file_.close(), "close");
  access_.close();
}

Hdf5Reader::Hdf5Reader(const std::filesystem::path& path)
    : path_(path),
      access_(access_properties(), H5Pclose),
      file_(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access_), H5Fclose) {
  if (file_ < 0) refuse("HDF5 cannot open it");
  mapped_ = map_file(path);
}

void Hdf5Reader::refuse(const std::string& why) const {
  throw UserError(ExitCode::kData, path_.string() + ": " + why + "; generate the dataset again");
}

const char* Hdf5Reader::array(const std::string& name, ElementType type,
                              std::vector<hsize_t>& shape) const {
  const Hdf5Handle dataset(H5Dopen2(file_, name.c_str(), H5P_DEFAULT), H5Dclose);
  if (dataset < 0) refuse("has no " + name);
  const Hdf5Handle space(H5Dget_space(dataset), H5Sclose), stored(H5Dget_type(dataset), H5Tclose);
  std::vector<hsize_t> extents(shape.size());
  const haddr_t offset = H5Dget_offset(dataset);
  const hid_t expected = hdf5_type(type);
  if (H5Sget_simple_extent_ndims(space) != static_cast<int>(shape.size()) ||
      H5Sget_simple_extent_dims(space, extents.data(), nullptr) < 0 ||
      H5Tequal(stored, expected) <= 0 || offset == HADDR_UNDEF ||
      offset % H5Tget_size(expected) != 0)
    refuse(name + " is not of the expected shape, type, layout or alignment");
  for (size_t k = 0; k < shape.size(); ++k)
    if (shape[k] && shape[k] != extents[k]) refuse(name + " is not of the expected shape");
  if (offset + byte_size(type, extents) > mapped_.size) refuse(name + " ends beyond the file");
  shape = extents;
  return mapped_.bytes.get() + offset;
}
