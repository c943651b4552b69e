// The metrics of an earlier start, of which a run that continues keeps a part. The first byte is
// the step that it continues after.
#include "run/metrics.h"

#include <array>

#include "fuzz.h"
#include "program/durable_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string text = text_of(data + 1, size - 1);
  const auto json = write("metrics.jsonl", text), lines = write("model_training_log.txt", text);
  const auto keep = [&] {
    const Metrics metrics(folder(), data[0]);
    return std::array{read_file(json), read_file(lines)};
  };
  const auto kept = keep();
  for (const auto& part : kept)
    expect(text.starts_with(part) && (part.empty() || part.back() == '\n'), "whole lines kept");
  expect(keep() == kept, "a second start finds nothing to cut");
  return 0;
}
