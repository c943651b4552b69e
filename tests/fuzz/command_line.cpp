// A command line, the words of the first line, and the file that --config names, the other lines.
#include <iostream>
#include <sstream>
#include <vector>

#include "fuzz.h"
#include "program/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text = text_of(data, size);
  const size_t end = std::min(text.find('\n'), size);
  const std::string file = write("config.yaml", text.substr(end));
  std::vector<std::string> words{"train_gpt2", "--config", file};
  std::istringstream line(text.substr(0, end));
  for (std::string word; std::getline(line, word, ' ');) words.push_back(word);
  std::vector<const char*> arguments;
  arguments.reserve(words.size());
  for (const auto& word : words) arguments.push_back(word.c_str());

  std::ostringstream answers;  // of --help and --show
  std::cout.rdbuf(answers.rdbuf());
  accepted({ExitCode::kConfiguration}, [&] {
    const auto parsed =
        parse_command_line(static_cast<int>(arguments.size()), arguments.data(), "description");
    expect(parsed || !answers.str().empty(), "a configuration or an answer");
    if (parsed) parse_yaml(to_yaml(parsed->config), "again");
  });
  std::cout.rdbuf(nullptr);
  return 0;
}
