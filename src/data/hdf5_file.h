// The subset of HDF5 that shards need: contiguous, aligned arrays with attributes, written durably
// and mapped into memory. Only hdf5_file.cpp calls HDF5.
#pragma once

#include <hdf5.h>

#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

// HDF5 runs in one thread at a time: hold one of these around every use.
class Hdf5Session {
 public:
  Hdf5Session();
  void end() { alone_.unlock(); }

 private:
  std::unique_lock<std::mutex> alone_;
};

// An HDF5 identifier, closed at the end of its scope. A negative one is an error.
class Hdf5Handle {
 public:
  Hdf5Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Hdf5Handle();
  Hdf5Handle(const Hdf5Handle&) = delete;
  Hdf5Handle& operator=(const Hdf5Handle&) = delete;
  operator hid_t() const { return id_; }
  // On a full disk the call that fails can be a close, so writers close explicitly.
  bool close();

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

// A file read-only in memory, until the last copy of `bytes` goes.
struct MappedFile {
  std::shared_ptr<const char> bytes;
  size_t size = 0;

  std::string_view view() const { return {bytes.get(), size}; }
};
// Throws UserError: kIo, or kConfiguration where the kernel allows no more mappings.
MappedFile map_file(const std::filesystem::path& path);

enum class ElementType { kF32, kU32, kI32, kU8 };

// An array in memory, and what describes it in the file.
struct Hdf5Array {
  std::string name;
  ElementType type;
  std::vector<hsize_t> shape;
  const void* data;
  std::string unit, meaning;
};

// A file being written, or one just written being checked. Every failure throws UserError(kIo) that
// names the file and says what to do.
class Hdf5Writer {
 public:
  enum class Mode { kCreate, kVerify };
  Hdf5Writer(std::filesystem::path path, Mode mode);

  void attribute(const std::string& name, const std::string& value) const;  // of the root
  void write(const Hdf5Array& array) const;
  // Compares the array with `mapped`, the file's bytes, at the offset where readers look for it.
  void verify(const Hdf5Array& array, std::string_view mapped) const;
  void close();

 private:
  void check(bool ok, const std::string& what) const;
  void attribute_of(hid_t object, const std::string& name, const std::string& value) const;

  std::filesystem::path path_;
  Hdf5Handle access_, file_;
};

// Arrays of an existing file, in place. Throws UserError(kData) naming the file and what is wrong.
class Hdf5Reader {
 public:
  explicit Hdf5Reader(const std::filesystem::path& path);

  // The address of a contiguous, aligned, unconverted array. Extents of 0 in `shape` are taken from
  // the file and filled in; the others must match.
  const char* array(const std::string& name, ElementType type, std::vector<hsize_t>& shape) const;
  const std::shared_ptr<const char>& mapping() const { return mapped_.bytes; }

 private:
  [[noreturn]] void refuse(const std::string& why) const;

  std::filesystem::path path_;
  Hdf5Handle access_, file_;
  MappedFile mapped_;
};
