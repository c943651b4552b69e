// A commit record. `sha256sum` of a file gives one, perhaps with * and with a longer path.
#include "fuzz.h"
#include "program/durable_file.h"

namespace {

constexpr std::string_view kName = "checkpoint_250.pt", kBytes = "what was published\n";

// The definition, without a regular expression.
bool is_of_the_file(std::string_view record) {
  if (record.size() > 100'000) return false;  // no path is so long
  const std::string hash = sha256_hex(kBytes);
  if (!record.starts_with(hash)) return false;
  record.remove_prefix(hash.size());
  if (!record.starts_with("  ") && !record.starts_with(" *")) return false;
  record.remove_prefix(2);
  if (!record.ends_with('\n')) return false;
  record.remove_suffix(1);
  if (record.find('\n') != record.npos) return false;
  return record == kName || record.ends_with("/" + std::string(kName));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string record = text_of(data, size);
  const auto path = write(std::string(kName), std::string(kBytes));
  write(std::string(kName) + ".sha256", record);
  const bool valid = accepted({ExitCode::kData}, [&] {
    expect(read_verified(path).bytes == kBytes, "the bytes of the file");
  });
  expect(valid == is_of_the_file(record), "the records of the file, and no others, are accepted");
  return 0;
}
