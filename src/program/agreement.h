// Ranks that agree: on an error, on a text. Everything here is collective: all ranks must call it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "program/exit_code.h"

// A UserError that every rank throws at the same place.
class AgreedError : public UserError {
  using UserError::UserError;
};

// Collective. Throws the error of the lowest rank that has one (a non-empty text) on every rank.
void agree(const std::string& error, ExitCode code);

// Collective. Runs `body`, which must not communicate, on every rank; if any rank's throws a
// UserError or a file system error, all throw the lowest rank's.
void agree_on_errors(const std::function<void()>& body);

// Collective. Rank `from`'s text on every rank.
void broadcast_text(std::string& text, int from = 0);

// Collective. The texts of all ranks, in their order, on rank 0; nothing elsewhere.
std::vector<std::string> gather_texts(const std::string& mine);
