// A file of conditions to judge in.
#include "data/conditions.h"

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = write("conditions.yaml", text_of(data, size));
  accepted({ExitCode::kConfiguration}, [&] {
    for (const auto& condition : read_conditions(file, Config()))
      expect(condition.trials(1, 250).plants.size() == 1, "a plant for every trial");
  });
  return 0;
}
