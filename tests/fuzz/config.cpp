// A configuration in YAML, as a checkpoint holds it.
#include "program/config.h"

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text = text_of(data, size);
  accepted({ExitCode::kConfiguration}, [&] {
    const Config config = parse_yaml(text, "a checkpoint");
    const std::string yaml = to_yaml(config);
    std::string again;
    expect(
        accepted({ExitCode::kConfiguration}, [&] { again = to_yaml(parse_yaml(yaml, "again")); }),
        "what was written can be read");
    expect(again == yaml, "what was written reads back as it was");
    expect(!settings_text(config).empty() && !flatten_yaml(yaml).empty(), "a text");
  });
  return 0;
}
