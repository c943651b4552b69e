// The machine that this process runs on.
#pragma once

#include <unistd.h>

#include <climits>
#include <string>

inline std::string host_name() {
  char name[HOST_NAME_MAX + 1] = "";
  gethostname(name, sizeof name);
  return name;
}
