// How every program reads its command line: long options only, whole names, nothing besides.
#pragma once

#include <boost/program_options.hpp>
#include <string>

#include "program/exit_code.h"

// Throws UserError(kConfiguration); `listed` is what --help lists.
inline boost::program_options::variables_map parse_arguments(
    int argc, const char* const* argv, const boost::program_options::options_description& options,
    const std::string& listed) {
  namespace po = boost::program_options;
  po::variables_map given;
  try {
    using namespace po::command_line_style;
    po::store(po::command_line_parser(argc, argv)
                  .options(options)
                  .positional({})
                  .style(unix_style & ~allow_guessing & ~allow_short)
                  .run(),
              given);
    po::notify(given);
  } catch (const po::error& error) {
    throw UserError(ExitCode::kConfiguration, std::string("command line: ") + error.what() +
                                                  "; --help lists every " + listed);
  }
  return given;
}
