// The manifest of a dataset, whose record matches it.
#include "data/dataset.h"
#include "fuzz.h"
#include "program/durable_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text = text_of(data, size);
  write("manifest.json", text);
  write("manifest.json.sha256", sha256_hex(text) + "  manifest.json\n");
  // A name that is none of a file cannot be read.
  accepted({ExitCode::kData, ExitCode::kIo}, [&] {
    const auto manifest = Manifest::read(folder());
    expect(manifest.sha256 == sha256_hex(text), "the dataset's identity");
    for (const char* split : {"train", "validation", "test"})
      if (const auto damage = manifest.find_damage(split); damage.empty())
        expect(manifest.trajectories(split) == 0 || !manifest.splits.at(split).empty(),
               "shards for the trajectories of a whole split");
    config_of(manifest);
  });
  return 0;
}
